"""What tokenizers are drawn from: random documents of each text, and how much each text counts."""

from collections.abc import Iterator, Sequence

import numpy as np

from zett.config import SamplerConfig
from zett.data.documents import Documents


def random_texts(documents: Documents, limit: float, rng: np.random.Generator) -> Iterator[str]:
    """Random documents, none twice, until `limit` characters."""
    total = 0
    for i in rng.permutation(len(documents)):
        if total >= limit:
            return
        text = documents[int(i)]
        yield text
        total += len(text)


def text_shares(texts: Sequence[Documents], config: SamplerConfig, seed: int) -> np.ndarray:
    """`[texts]`, adding up to 1: the weight of each text times its size to the power of config.text_exponent.

    A size is the number of documents times the mean length of 256 of them.
    """
    shares = np.asarray(config.text_weights or [1.0] * len(texts), np.float64)
    if config.text_exponent:
        for t, documents in enumerate(texts):
            chosen = np.random.default_rng([seed, t, 6]).permutation(len(documents))[:256]
            shares[t] *= (len(documents) * np.mean([len(documents[int(i)]) for i in chosen])) ** config.text_exponent
    return shares / shares.sum()
