"""Tokenizers to train a hypernetwork on: `Sampler.draw(step)` gives a new one, a pure function of (seed, step).

Six kinds are drawn:

- Byte-level BPE: a pool of tokenizers is trained once on random parts of the texts, and a draw keeps the first merges of one of
  them. That is exactly the smaller tokenizer which the same training would have given.
- Near: the same, but training goes on from merges of the base model's own tokenizer, a random number of its first ones; see
  zett/vocab/continued.py.
- Superwords: the same, but tokens may be several words, after a random number of first ones; see `train_superwords`.
- WordPiece: as the first, but the drawn tokenizer takes the longest match, as BERT's does, and has no merges.
- Unigram: a pool, too; a draw keeps a random part of one tokenizer's pieces.
- Substrings: frequent substrings of words, as in the ZeTT paper (arXiv 2405.07883, section 3.3), with these corrections: the
  same regex cuts words for sampling and for tokenising, candidates begin and end between characters, and runs of spaces and all
  256 bytes are always in the vocabulary.

Training, counting and decomposing are done once and kept on disk, so that a draw only indexes arrays. Drawn tokenizers encode
with the compiled models of zett/vocab/compiled, because a `tokenizers.Tokenizer` takes longer to build than it is used; they
give the same ids.
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
from zett.vocab.sampling.texts import text_shares
from zett.vocab.vocabulary import Vocabulary

KINDS = ("bpe", "unigram", "substring", "wordpiece", "near", "superword")  # their order is part of what a seed draws


class Sampler:
    """Draws tokenizers from `texts`; `base` is the base model's vocabulary, in whose pieces their tokens are given."""

    def __init__(self, config: SamplerConfig, texts: Sequence[Documents], base: Vocabulary, max_pieces: int, seed: int):
        self._config, self._seed = config, seed
        self._shares = text_shares(texts, config, seed)
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
        text_number = int(rng.choice(len(self._shares), p=self._shares)) if c.one_text else None
        if kind == "substring":
            assert self.substrings is not None  # its share is not 0, since it was chosen
            draw = self.substrings.draw(rng, size, step, text_number)
        else:
            draw = self.pools.draw(kind, rng, size, text_number)
        return dataclasses.replace(draw, text_number=text_number)
