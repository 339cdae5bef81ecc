"""Tokens packed in one array, alone and with their decomposition in pieces of the base model."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from zett.vocab.compiled.counting import extensions
from zett.vocab.compiled.ranges import gather, starts_of
from zett.vocab.forms import SurfaceForms, feature_columns


@dataclasses.dataclass(frozen=True, eq=False)
class PackedTokens(Sequence[bytes]):
    """Tokens in one array of bytes: token t is `data[starts[t] : starts[t + 1]]`."""

    data: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, tokens: Sequence[bytes]) -> "PackedTokens":
        return cls(np.frombuffer(b"".join(tokens), np.uint8), np.cumsum([0, *map(len, tokens)]))

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """`[V]` bytes of each token."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index):
        if isinstance(index, slice):
            return list(self)[index]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self.data[self.starts[index] : self.starts[index + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        data, starts = self.data.tobytes(), self.starts.tolist()
        return (data[a:b] for a, b in itertools.pairwise(starts))

    def take(self, ids: np.ndarray) -> "PackedTokens":
        """The tokens `ids [N]`."""
        lengths = self.lengths[ids]
        return PackedTokens(gather(self.data, self.starts[ids], lengths), starts_of(lengths))


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Tokens that were decomposed once, for all draws that choose from them; the fields are those of SurfaceForms."""

    tokens: PackedTokens
    pieces: np.ndarray
    lengths: np.ndarray
    same: np.ndarray

    def take(self, ids: np.ndarray, log_prior: np.ndarray) -> tuple[PackedTokens, SurfaceForms]:
        """The tokens `ids [V]` as a vocabulary of their own; log_prior: `[V]`."""
        tokens = self.tokens.take(ids)
        prefixes, suffixes = (extensions(tokens.data, tokens.starts, backwards=backwards) for backwards in (False, True))
        features = feature_columns(tokens.lengths, prefixes, suffixes, log_prior)
        return tokens, SurfaceForms(self.pieces[ids], self.lengths[ids], features, self.same[ids])
