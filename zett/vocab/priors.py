"""How often a token is expected in a text, as natural logarithms: from Unigram scores, or from the rank by id."""

from collections.abc import Sequence

import numpy as np

from zett.vocab.bytes import BYTE_TOKEN


def score_prior(vocab: Sequence[tuple[str, float]], tokens: Sequence[bytes]) -> np.ndarray:
    scores = np.asarray([score for _, score in vocab], np.float64)
    # SentencePiece gives bytes the score 0, the best possible, although it uses them only where no piece fits.
    fallback = np.asarray([BYTE_TOKEN.fullmatch(piece) is not None for piece, _ in vocab])
    scores[fallback] = np.minimum(scores[fallback], scores[~fallback].min(initial=0.0) - 1)
    scores = np.concatenate([scores, np.full(max(len(tokens) - len(scores), 0), scores.min())])[: len(tokens)]
    return unigram_prior(scores, tokens)


def rank_prior(tokens: Sequence[bytes]) -> np.ndarray:
    """`[V]` natural logs, by Zipf's law: in BPE and WordPiece, ids are about in the order of frequency."""
    present = _present(tokens)
    rank = np.cumsum(present)
    prior = -np.log(rank + 10.0)
    return (prior - np.log(np.exp(prior[present]).sum())).astype(np.float32)


def unigram_prior(scores: np.ndarray, tokens: Sequence[bytes]) -> np.ndarray:
    """Unigram scores (natural logs), normalised over the tokens that stand for text: `[V]`."""
    present = _present(tokens)
    scores = np.clip(scores, -25.0, 0.0)
    return (scores - np.log(np.exp(scores[present]).sum())).astype(np.float32)


def _present(tokens: Sequence[bytes]) -> np.ndarray:
    return np.fromiter(map(bool, tokens), np.bool_, len(tokens))
