"""Draws of frequent substrings, as in the ZeTT paper (arXiv 2405.07883, section 3.3), corrected; see sampler.py."""

import functools
from collections.abc import Sequence

import numpy as np

from zett.config import SamplerConfig
from zett.data.documents import Documents
from zett.progress import phase
from zett.vocab.bytes import to_alphabet
from zett.vocab.priors import unigram_prior
from zett.vocab.regexes import WORDS
from zett.vocab.sampling.counts import REQUIRED, count_inventory
from zett.vocab.sampling.draw import Draw, byte_words, ids_of_bytes, unigram_model
from zett.vocab.sampling.packed import PackedTokens
from zett.vocab.sampling.queue import TextQueue
from zett.vocab.sampling.stored import Store, stored


class Substrings:
    """Draws among the substrings of an inventory, `candidates`, or of the newest texts with config.queue."""

    def __init__(self, config: SamplerConfig, texts: Sequence[Documents], shares: np.ndarray, seed: int, store: Store):
        self._config, self._shares, self._store = config, shares, store
        self._inventory = self._queue = None
        if config.queue:
            self._queue = TextQueue(texts, shares, config, seed)
        else:
            folder = store.folder("inventory", "inventory", "inventory_bytes", "shards", "max_bytes")
            with phase("counting the words of the texts, if that has not been done before"):
                self._inventory = stored(folder, lambda: count_inventory(texts, config, seed))
                self.candidates = store.candidates(PackedTokens(self._inventory["data"], self._inventory["starts"]))

    def draw(self, rng: np.random.Generator, size: int, step: int, source: int | None) -> Draw:
        """About `size` of the most frequent substrings in a random mixture of the text's parts, or in the queue of `step`."""
        c = self._config
        if self._queue is not None:
            tokens, counts = self._queue.count(step, source)
            weights = np.ones(1, np.float32)
        else:
            assert self._inventory is not None  # it is there where substrings are drawn and there is no queue
            tokens, counts = self.candidates.tokens, self._inventory["counts"]
            of_source = self._inventory["source"]
            if source is not None:
                counts, of_source = counts[of_source == source], np.zeros((of_source == source).sum(), np.int64)
            shares = self._shares if source is None else np.ones(1)
            weights = rng.dirichlet(0.5 * len(shares) * shares[of_source]).astype(np.float32)
        # Cell by cell, since a matrix product rounds differently on other machines and with other numbers of threads.
        scores = np.zeros(len(tokens), np.float32)
        for weight, cell in zip(weights, counts):
            scores += weight * cell
        scores *= tokens.lengths
        scores /= scores.sum(dtype=np.float64)
        noise = min(rng.lognormal(c.noise_mean, c.noise_std), 1e-3)
        noisy = scores + np.float32(noise) * rng.standard_normal(len(scores), np.float32)
        required = len(REQUIRED)
        noisy[scores == 0] = -np.inf  # what is nowhere in the mixture is not drawn for its noise
        others = min(max(size - required, 1), int((scores[required:] > 0).sum()))
        best = np.argpartition(-noisy[required:], others - 1)[:others]
        keep = np.concatenate([np.arange(required), np.sort(best) + required])
        kept = np.maximum(noisy[keep], max(float(scores[scores > 0].min()), 1e-9)).astype(np.float64)
        log_scores = np.log(kept / kept.sum())
        prior = unigram_prior(log_scores, tokens.lengths[keep].tolist())
        if self._queue is not None:
            chosen = tokens.take(keep)
            tokens, forms = self._store.new_candidates(chosen).take(np.arange(len(keep)), prior)
        else:
            tokens, forms = self.candidates.take(keep, prior)
        model = unigram_model(tokens, np.ones(len(tokens), np.bool_), log_scores, ids_of_bytes(tokens), by_byte=True)
        return Draw("substring", tokens, forms, WORDS, model, functools.partial(_build_substrings, tokens, log_scores))


def _build_substrings(tokens: PackedTokens, log_scores: np.ndarray):
    import tokenizers as tk

    # Without an unknown token, of which the library makes one of several in a row: there are all bytes.
    tokenizer = tk.Tokenizer(tk.models.Unigram([(to_alphabet(t), float(s)) for t, s in zip(tokens, log_scores)]))
    tokenizer.pre_tokenizer = byte_words(WORDS)
    return tokenizer
