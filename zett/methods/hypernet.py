"""A trained hypernetwork (arXiv 2405.07883) predicts the rows of every token."""

import dataclasses
import functools
from typing import ClassVar

from zett.errors import UserError
from zett.hypernet import TrainedHypernet, load_hypernet
from zett.lms.base import BaseModel
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary


@dataclasses.dataclass(frozen=True)
class HypernetMethod:
    """Rows that a hypernetwork trained for this base model predicts, in float32.

    path: its folder or Hub name, or "pico"; without one, that of the package, which is for the base model "pico". language: of
    the target, by code or number, where the hypernetwork knows languages.
    """

    path: str | None = None
    language: str | None = None

    baseline: ClassVar[bool] = False
    needs: ClassVar[str] = "a hypernetwork trained for the base model"
    first: ClassVar[str] = "path"

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used. UserError if the hypernetwork belongs to another base model."""
        return self.trained_for(base.name)(base, target, language=self.language)

    def trained_for(self, base: str) -> TrainedHypernet:
        """The hypernetwork itself. UserError without a path if the package has none for the base model of that name."""
        if self.path is None and base != "pico":
            raise UserError(
                f"method 'hypernet' needs a hypernetwork made for {base}: give its folder, hypernet:DIR, or take a method that "
                "needs nothing, such as fvt"
            )
        return _loaded(self.path or "pico")


@functools.lru_cache(maxsize=2)
def _loaded(path: str) -> TrainedHypernet:
    return load_hypernet(path)
