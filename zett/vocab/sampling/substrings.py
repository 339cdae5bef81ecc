"""Draws of frequent substrings, as in the ZeTT paper (arXiv 2405.07883, section 3.3), with corrections; see sampler.py."""

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
    """Draws from the substrings of an inventory (`candidates`), or with config.queue from those of the newest texts."""

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

    def draw(self, rng: np.random.Generator, size: int, step: int, text_number: int | None) -> Draw:
        """About `size` substrings, the most frequent ones in a random mixture of the texts' cells or in the queue of `step`."""
        c = self._config
        if self._queue is not None:
            tokens, counts = self._queue.count(step, text_number)
            weights = np.ones(1, np.float32)
        else:
            assert self._inventory is not None  # it is there where substrings are drawn and there is no queue
            tokens, counts = self.candidates.tokens, self._inventory["counts"]
            of_text = self._inventory["source"]  # the text that each cell is of; caches have it under this name
            if text_number is not None:
                counts, of_text = counts[of_text == text_number], np.zeros((of_text == text_number).sum(), np.int64)
            shares = self._shares if text_number is None else np.ones(1)
            weights = rng.dirichlet(0.5 * len(shares) * shares[of_text]).astype(np.float32)
        # Added up cell by cell: a matrix product would round differently on other machines and with other numbers of threads.
        scores = np.zeros(len(tokens), np.float32)
        for weight, cell in zip(weights, counts):
            scores += weight * cell
        scores *= tokens.lengths
        scores /= scores.sum(dtype=np.float64)
        noise = min(rng.lognormal(c.noise_mean, c.noise_std), 1e-3)
        noisy = scores + np.float32(noise) * rng.standard_normal(len(scores), np.float32)
        required = len(REQUIRED)
        noisy[scores == 0] = -np.inf  # what does not occur in the mixture is not drawn because of its noise
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

    # It has no unknown token, since it has all bytes; and the library would merge several unknown tokens in a row into one.
    tokenizer = tk.Tokenizer(tk.models.Unigram([(to_alphabet(t), float(s)) for t, s in zip(tokens, log_scores)]))
    tokenizer.pre_tokenizer = byte_words(WORDS)
    return tokenizer
