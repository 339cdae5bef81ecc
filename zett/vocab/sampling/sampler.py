"""Tokenizers to train a hypernetwork on: `Sampler.draw(step)` gives a new one, a pure function of (seed, step).

Four kinds are drawn. Byte-level BPE: a pool is trained once on random parts of the text, and every draw keeps the first merges
of one of them, which is exactly the smaller tokenizer of that training. WordPiece: likewise, but the longest match counts, as
with BERT, and not the merges. Unigram: likewise a pool, thinned at random. Substrings: the ZeTT paper's way (arXiv 2405.07883,
section 3.3), corrected: one regex for sampling and tokenising, candidates begin and end between characters, runs of spaces and
all 256 bytes are always in.

Training, counting and decomposing are done once and kept on disk; a draw is an indexing operation. Drawn tokenizers encode with
the compiled models of zett/vocab/compiled, to the ids of a `tokenizers.Tokenizer`, which takes longer to build than to use.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from zett.config import SamplerConfig
from zett.data.documents import Documents
from zett.vocab.sampling.draw import Draw
from zett.vocab.sampling.pools import Pools
from zett.vocab.sampling.stored import Store
from zett.vocab.sampling.substrings import Substrings
from zett.vocab.sampling.texts import source_shares
from zett.vocab.vocabulary import Vocabulary

KINDS = ("bpe", "unigram", "substring", "wordpiece")  # in the order that draws choose by


class Sampler:
    """Draws tokenizers. `texts` are the sources that they are drawn from; `base` is the base model's vocabulary."""

    def __init__(self, config: SamplerConfig, texts: Sequence[Documents], base: Vocabulary, max_pieces: int, seed: int):
        self._config, self._seed = config, seed
        self._shares = source_shares(texts, config, seed)
        store = Store(config, texts, self._shares, seed, base, max_pieces)
        self.pools = Pools(config, texts, self._shares, seed, store)
        self.substrings = Substrings(config, texts, self._shares, seed, store) if config.substring > 0 else None

    def draw(self, step: int) -> Draw:
        """The tokenizer of `step`."""
        c = self._config
        rng = np.random.default_rng([self._seed, step, 1])
        size = int(np.exp(rng.uniform(np.log(c.min_size), np.log(c.max_size)))) if c.sizes == "log-uniform" else c.max_size
        shares = np.asarray([getattr(c, kind) for kind in KINDS])
        kind = KINDS[rng.choice(len(KINDS), p=shares / shares.sum())]
        source = int(rng.choice(len(self._shares), p=self._shares)) if c.one_text else None
        if kind == "substring":
            assert self.substrings is not None  # its share is not 0, since it was chosen
            draw = self.substrings.draw(rng, size, step, source)
        else:
            draw = self.pools.draw(kind, rng, size, source)
        return dataclasses.replace(draw, source=source)
