"""`SurfaceForms`: the tokens of a target vocabulary in pieces of the source tokenizer."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from zett.vocab.pairing import pair_special
from zett.vocab.vocabulary import Vocabulary

FEATURES = ("log prior", "log vocabulary size", "longer tokens with this prefix", "longer tokens with this suffix", "bytes")


@dataclasses.dataclass(frozen=True)
class SurfaceForms:
    """Target tokens in source pieces.

    pieces: `[V, S]` int32 source ids, right-padded with 0; id `source size + b` stands for byte b where the source has no token
    for it. lengths: `[V]` int32, pieces in use (0: the token stands for no text and has no partner). features: `[V, 5]`
    float32, what the vocabulary around the token looks like (see FEATURES), scaled to about unit size. same: `[V]` int32, the
    source id that stands for exactly the same bytes, or that has the same special role; else -1.
    """

    pieces: np.ndarray
    lengths: np.ndarray
    features: np.ndarray
    same: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        return f"SurfaceForms({len(self):,} tokens, at most {self.pieces.shape[1]} pieces)"

    def take(self, ids: np.ndarray) -> "SurfaceForms":
        """The forms of the tokens `ids [N]`."""
        return SurfaceForms(self.pieces[ids], self.lengths[ids], self.features[ids], self.same[ids])


@functools.lru_cache(maxsize=8)
def surface_forms(target: Vocabulary, source: Vocabulary, max_pieces: int = 8) -> SurfaceForms:
    """Every target token in source pieces, as the source tokenizer's own model would cut it. Kept: nobody may change them."""
    pieces, lengths = source.decompose.cached(target.tokens).padded(max_pieces)
    same = np.asarray([source.id_of.get(token, -1) if token else -1 for token in target.tokens], np.int32)
    for i, partner in pair_special(target, source).items():
        pieces[i, 0], lengths[i], same[i] = partner, 1, partner
    return SurfaceForms(pieces, lengths, token_features(target.tokens, target.log_prior), same)


def token_features(tokens: Sequence[bytes], log_prior: np.ndarray) -> np.ndarray:
    """`[V, 5]` float32; the meaning of a token depends on the longer ones that are used instead of it where they fit."""
    from zett.vocab.compiled.counting import extensions  # imports numba, which most of what reads a tokenizer does not need

    lengths = np.asarray([len(t) for t in tokens])
    data, starts = np.frombuffer(b"".join(tokens), np.uint8), np.concatenate([[0], np.cumsum(lengths)])
    return feature_columns(lengths, extensions(data, starts), extensions(data, starts, backwards=True), log_prior)


def feature_columns(lengths: np.ndarray, prefixes: np.ndarray, suffixes: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
    """`[V, 5]` float32; lengths in bytes; prefixes, suffixes: how many longer tokens begin or end with the token."""
    log_size = np.full(len(lengths), np.log(max((lengths > 0).sum(), 1)))
    columns = [(log_prior + 9) / 2, log_size - 8.5, np.log1p(prefixes) - 1, np.log1p(suffixes) - 1, np.log1p(lengths) - 1.5]
    return np.stack(columns, 1).astype(np.float32)
