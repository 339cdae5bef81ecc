"""Counting the substrings of the newest texts, instead of an inventory that is counted once."""

import functools
from collections.abc import Sequence

import numpy as np

from zett.config import SamplerConfig
from zett.data.documents import Documents
from zett.vocab.sampling.counts import check_found, count_candidates
from zett.vocab.sampling.packed import PackedTokens

QUEUE_TEXT = 2000  # characters of an excerpt


class TextQueue:
    """The newest texts, for sources that are not counted beforehand: a window that moves on with every step.

    Which texts are in it depends on (seed, step) alone: excerpts of random documents, the sources taking turns by their shares.
    """

    def __init__(self, texts: Sequence[Documents], shares: np.ndarray, config: SamplerConfig, seed: int):
        self._texts, self._config, self._seed = texts, config, seed
        self._shares = shares
        self._excerpt = functools.lru_cache(config.queue + 8 * config.queue_step)(self._read)  # those of the steps around

    def _read(self, number: int, source: int | None) -> str:
        rng = np.random.default_rng([self._seed, number, 5])
        documents = self._texts[rng.choice(len(self._texts), p=self._shares) if source is None else source]
        text = documents[int(rng.integers(len(documents)))]
        start = int(rng.integers(max(len(text) - QUEUE_TEXT, 0) + 1))
        return text[start : start + QUEUE_TEXT]

    def texts(self, step: int, source: int | None) -> list[str]:
        """The window of `step`, of all sources or of one."""
        first = step * self._config.queue_step
        return [self._excerpt(number, source) for number in range(first, first + self._config.queue)]

    def count(self, step: int, source: int | None) -> tuple[PackedTokens, np.ndarray]:
        """As `count_candidates`, with one cell."""
        tokens, counts = count_candidates(self.texts(step, source), np.zeros(self._config.queue, np.int64), 1, self._config)
        check_found(tokens, self._texts)
        return tokens, counts
