"""What a task scores."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Items:
    """Texts, each scored alone. weights: `[N]`, what an item's score counts against: bytes, or 1 where it is right or wrong."""

    texts: tuple[str, ...]
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def mean(self, scores: np.ndarray) -> float:
        """Of scores `[N]`, over the weights."""
        return float(scores.sum() / self.weights.sum())
