"""Batches for language-model training: documents -> token windows; `batch(step)` is a pure function of (seed, step)."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence

import numpy as np

from zett.data.documents import Documents
from zett.files.cache import cache_folder
from zett.progress import bar


def token_stream(documents: Documents, tokenizer, separator: int | None) -> np.ndarray:
    """All documents as one array of token ids, each followed by `separator`; made once, then memory-mapped from the cache."""

    key = hashlib.sha256(f"{documents.fingerprint()}{tokenizer.to_str()}{separator}".encode()).hexdigest()[:32]
    path = cache_folder() / "tokens" / f"{key}.int32"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        end = [] if separator is None else [separator]
        try:
            # Written to the disk at once, since the tokens of a run's texts may not fit in memory.
            with temporary.open("wb") as file, bar(len(documents), "cutting into tokens", "document") as advance:
                for start in range(0, len(documents), 64):
                    some = documents[start : start + 64]
                    for encoding in tokenizer.encode_batch_fast(some, add_special_tokens=False):
                        file.write(np.asarray([*encoding.ids, *end], "<i4").data)
                    advance(len(some))
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
    return np.memmap(path, "<i4", "r") if path.stat().st_size else np.empty(0, np.int32)


@dataclasses.dataclass(frozen=True)
class Splits:
    """All ways to cut each token into two tokens of the same vocabulary (StochasTok, arXiv 2506.01687)."""

    starts: np.ndarray  # [V + 1]: token t has the pairs starts[t]:starts[t + 1]
    pairs: np.ndarray  # [N, 2]

    @classmethod
    def of(cls, token_bytes: Sequence[bytes]) -> "Splits":
        ids = {b: i for i, b in reversed(list(enumerate(token_bytes))) if b}
        starts, pairs = [0], []
        for b in token_bytes:
            pairs += [(ids[b[:k]], ids[b[k:]]) for k in range(1, len(b)) if b[:k] in ids and b[k:] in ids]
            starts.append(len(pairs))
        return cls(np.asarray(starts), np.asarray(pairs, np.int32).reshape(-1, 2))

    def apply(self, ids: np.ndarray, rate: float, rounds: int, rng: np.random.Generator) -> np.ndarray:
        """Cut each token in two with probability `rate`, `rounds` times over."""
        for _ in range(rounds):
            if not len(self.pairs):
                return ids
            count = self.starts[ids + 1] - self.starts[ids]
            cut = (rng.random(len(ids)) < rate) & (count > 0)
            choice = self.starts[ids] + (rng.random(len(ids)) * count).astype(np.int64)
            pair = self.pairs[np.where(cut, choice, 0)]
            widths = np.where(cut, 2, 1)
            out = np.repeat(np.where(cut, pair[:, 0], ids), widths)
            second = np.cumsum(widths)[cut] - 1
            out[second] = pair[cut, 1]
            ids = out
        return ids


@dataclasses.dataclass(frozen=True)
class LMBatches:
    """Random windows of a token stream, every one visited once per epoch.

    resegment_share: this share of the rows is re-cut, each with a rate drawn from U(0, resegment_rate), so that the model also
    knows unusual segmentations of its text, as large models do.
    """

    tokens: np.ndarray
    batch_size: int
    length: int
    seed: int
    splits: Splits | None = None
    resegment_share: float = 0.0
    resegment_rate: float = 0.3
    resegment_rounds: int = 4

    def __call__(self, step: int, which: np.ndarray | None = None) -> np.ndarray:
        """Token ids `[B, L]` int32, of the rows `which` of the step (None: all)."""
        windows = (len(self.tokens) - 1) // self.length
        which = np.arange(self.batch_size) if which is None else which
        rows = np.empty((len(which), self.length), np.int32)
        for i, b in enumerate(which):
            epoch, index = divmod(step * self.batch_size + b, windows)
            start = _permutation(self.seed, epoch, windows)[index] * self.length
            ids = np.asarray(self.tokens[start : start + self.length])
            rng = np.random.default_rng([self.seed, epoch, index, 1])
            if self.splits is not None and rng.random() < self.resegment_share:
                rate = rng.random() * self.resegment_rate
                ids = self.splits.apply(ids, rate, self.resegment_rounds, rng)
            rows[i] = ids[: self.length]
        return rows


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch, 0]).permutation(n)
