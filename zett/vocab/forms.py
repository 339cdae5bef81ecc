"""`SurfaceForms`: the tokens of a target vocabulary in pieces of the source tokenizer."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from zett.vocab.pairing import mapped_pieces, pair_special
from zett.vocab.vocabulary import Vocabulary

FEATURES = ("log prior", "log vocabulary size", "longer tokens with this prefix", "longer tokens with this suffix", "bytes")
DISTANCE = ("pieces", "shared")  # of the whole vocabulary; see `with_distance`


@dataclasses.dataclass(frozen=True)
class SurfaceForms:
    """Target tokens in source pieces.

    pieces: `[V, S]` int32 source ids, right-padded with 0; the id `source size + b` is byte b, if the source has no token for
    it. lengths: `[V]` int32, the number of pieces (0: a token that stands for no text and has no partner). features: `[V, 5]`
    float32, numbers about the token and the vocabulary around it (see FEATURES), scaled to about unit size, `[V, 7]` with those
    of DISTANCE. same: `[V]` int32, the source id that stands for exactly the same bytes, or is the partner of a special token;
    else -1. Tokens that somebody has mapped to a text have that text's pieces.
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
    """Every target token in source pieces, as the source tokenizer's own model would cut it.

    Results are kept and shared: do not change one.
    """
    pieces, lengths = source.decompose.cached(target.tokens).padded(max_pieces)
    same = np.asarray([source.id_of.get(token, -1) if token else -1 for token in target.tokens], np.int32)
    for i, partner in pair_special(target, source).items():
        pieces[i, 0], lengths[i], same[i] = partner, 1, partner
    for i, ids in mapped_pieces(target, source).items():
        if len(ids) > 1:
            number = min(len(ids), max_pieces)
            pieces[i], lengths[i], same[i] = 0, number, -1
            pieces[i, :number] = ids[:number]
    return SurfaceForms(pieces, lengths, token_features(target.tokens, target.log_prior), same)


def token_features(tokens: Sequence[bytes], log_prior: np.ndarray) -> np.ndarray:
    """`[V, 5]` float32, see FEATURES. Longer tokens count because text takes them where they fit, and this token elsewhere."""
    from zett.vocab.compiled.counting import extensions  # imports numba, which few readers of tokenizers need

    lengths = np.asarray([len(t) for t in tokens])
    data, starts = np.frombuffer(b"".join(tokens), np.uint8), np.concatenate([[0], np.cumsum(lengths)])
    return feature_columns(lengths, extensions(data, starts), extensions(data, starts, backwards=True), log_prior)


def feature_columns(
    lengths: np.ndarray, prefixes: np.ndarray, suffixes: np.ndarray, log_prior: np.ndarray, sizes=None
) -> np.ndarray:
    """`[V, 5]` float32; lengths in bytes; prefixes, suffixes: how many longer tokens begin or end with the token.

    sizes: of the vocabulary that a token is in, for each (None: these tokens are the vocabulary).
    """
    sizes = max((lengths > 0).sum(), 1) if sizes is None else sizes
    log_size = np.broadcast_to(np.log(sizes), lengths.shape)
    columns = [(log_prior + 9) / 2, log_size - 8.5, np.log1p(prefixes) - 1, np.log1p(suffixes) - 1, np.log1p(lengths) - 1.5]
    return np.stack(columns, 1).astype(np.float32)


def with_distance(forms: SurfaceForms) -> SurfaceForms:
    """The forms of a whole vocabulary with two more features, how far it is from the source: the same for all of its tokens.

    They are the mean number of pieces, as many as `forms` has room for, and the share of tokens that the source has, both of
    tokens as often as their prior says, scaled to about unit size.
    """
    prior = np.exp(2.0 * forms.features[:, 0].astype(np.float64)) * (forms.lengths > 0)
    weights = prior / max(prior.sum(), 1e-30)
    values = [2 * (weights @ forms.lengths - 1.5), 4 * (weights @ (forms.same >= 0) - 0.5)]
    columns = np.broadcast_to(np.asarray(values, np.float32), (len(forms), len(DISTANCE)))
    return dataclasses.replace(forms, features=np.concatenate([forms.features, columns], 1))
