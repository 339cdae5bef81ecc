"""Substrings of the newest texts, counted at every step instead of once for an inventory."""

import functools
from collections.abc import Sequence

import numpy as np

from zett.config import SamplerConfig
from zett.data.documents import Documents
from zett.vocab.sampling.counts import check_found, count_candidates
from zett.vocab.sampling.packed import PackedTokens

QUEUE_TEXT = 2000  # characters of an excerpt


class TextQueue:
    """The newest texts, where nothing is counted beforehand: a window of excerpts that moves on with every step.

    Its excerpts of random documents, of texts chosen by their shares, depend on (seed, step) alone.
    """

    def __init__(self, texts: Sequence[Documents], shares: np.ndarray, config: SamplerConfig, seed: int):
        self._texts, self._config, self._seed = texts, config, seed
        self._shares = shares
        self._excerpt = functools.lru_cache(config.queue + 8 * config.queue_step)(
            self._read
        )  # enough for the steps before and after, which share excerpts

    def _read(self, number: int, text_number: int | None) -> str:
        rng = np.random.default_rng([self._seed, number, 5])
        documents = self._texts[rng.choice(len(self._texts), p=self._shares) if text_number is None else text_number]
        text = documents[int(rng.integers(len(documents)))]
        start = int(rng.integers(max(len(text) - QUEUE_TEXT, 0) + 1))
        return text[start : start + QUEUE_TEXT]

    def texts(self, step: int, text_number: int | None) -> list[str]:
        """The excerpts in the window of `step`, from all texts or from one of them."""
        first = step * self._config.queue_step
        return [self._excerpt(number, text_number) for number in range(first, first + self._config.queue)]

    def count(self, step: int, text_number: int | None) -> tuple[PackedTokens, np.ndarray]:
        """The window's tokens and counts, as `count_candidates` gives them for a single cell."""
        tokens, counts = count_candidates(
            self.texts(step, text_number), np.zeros(self._config.queue, np.int64), 1, self._config
        )
        check_found(tokens, self._texts)
        return tokens, counts
