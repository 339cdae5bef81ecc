"""Which texts tokenizers are drawn from: random documents, and the shares of sources."""

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


def source_shares(texts: Sequence[Documents], config: SamplerConfig, seed: int) -> np.ndarray:
    """`[sources]`, adding up to 1: the weights times the sizes to the power of config.text_exponent.

    Sizes are the number of documents times the mean length of some.
    """
    shares = np.asarray(config.text_weights or [1.0] * len(texts), np.float64)
    if config.text_exponent:
        for s, source in enumerate(texts):
            chosen = np.random.default_rng([seed, s, 6]).permutation(len(source))[:256]
            shares[s] *= (len(source) * np.mean([len(source[int(i)]) for i in chosen])) ** config.text_exponent
    return shares / shares.sum()
