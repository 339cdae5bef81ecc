"""Tokenizers to train a hypernetwork on: `Sampler.draw(step)` gives a new one, a pure function of (seed, step).

Four kinds are drawn. Byte-level BPE: a pool is trained once on random parts of the text, and every draw keeps the first merges
of one of them, which is exactly the smaller tokenizer of that training. WordPiece: likewise, but the longest match counts, as
with BERT, and not the merges. Unigram: likewise a pool, thinned at random. Substrings: the ZeTT paper's way (arXiv 2405.07883,
section 3.3), corrected: one regex for sampling and tokenising, candidates begin and end between characters, runs of spaces and
all 256 bytes are always in.

Training, counting and decomposing are done once and kept on disk; a draw is an indexing operation. Drawn tokenizers encode with
the compiled models of zett/vocab/kernels.py, to the ids of a `tokenizers.Tokenizer`, which takes longer to build than to use.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zett.config import SamplerConfig
from zett.data.text import Documents
from zett.files.cache import cache_folder
from zett.vocab import decompose
from zett.vocab.build import train_tokenizer
from zett.vocab.bytes import to_alphabet, token_bytes
from zett.vocab.inventory import (
    REQUIRED,
    Candidates,
    PackedTokens,
    TextQueue,
    count_inventory,
    random_texts,
    source_shares,
    stored,
)
from zett.vocab.vocabulary import SurfaceForms, Vocabulary, rank_prior, unigram_prior

RECIPE = 3  # part of the cache's key; to be raised when what is cached is made differently
KINDS = ("bpe", "unigram", "substring", "wordpiece")


@dataclasses.dataclass(frozen=True)
class Draw:
    """A drawn tokenizer: encodes text to ids `[0, V)`; `tokens[id]` are its bytes; `forms` the tokens in source pieces.

    lowercase: whether it reads text in lower case; otherwise the tokens of a text spell that text. source: the number of the
    source that it was drawn from, with config.one_source.
    """

    kind: str
    tokens: PackedTokens
    forms: SurfaceForms
    style: int  # of zett.vocab.words.STYLES
    model: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]  # packed words -> all ids, number of each word's
    build: Callable[[], Any]
    lowercase: bool = False
    source: int | None = None

    @functools.cached_property
    def tokenizer(self):
        """The `tokenizers.Tokenizer` that encodes to the same ids."""
        return self.build()

    def encode(self, texts: Sequence[str], limit: int) -> tuple[np.ndarray, np.ndarray]:
        """The first `limit` ids of each text, `[B, limit]` int64 padded with 0, and how many there are, `[B]`."""
        from zett.vocab.words import PIECES, distinct_words, gather, packed_texts, starts_of

        if self.lowercase:
            texts = [
                text.replace("Σ", "σ").lower() for text in texts
            ]  # Python's other small sigma, at a word's end, is not theirs
        if self.style == PIECES:
            texts = [text.replace("▁", " ") for text in texts]
        text, starts = packed_texts(texts)
        begins, ends, words, stops = distinct_words(text, starts, self.style)
        lengths = ends - begins
        pieces, per_word = self.model(gather(text, begins, lengths), starts_of(lengths))
        firsts, sizes = np.cumsum(per_word) - per_word, per_word[words]
        row = np.repeat(np.arange(len(texts)), np.diff(stops, prepend=0))
        before = np.cumsum(sizes) - sizes
        column = before - np.append(before, sizes.sum())[np.append(0, stops[:-1])][row]
        near = np.flatnonzero(column < limit)
        row, column, words, sizes = row[near], column[near], words[near], sizes[near]
        row, inside = np.repeat(row, sizes), np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        column = np.repeat(column, sizes) + inside
        fits = column < limit
        ids = np.zeros((len(texts), limit), np.int64)
        ids[row[fits], column[fits]] = gather(pieces, firsts[words], sizes)[fits]
        return ids, np.bincount(row[fits], minlength=len(texts))


@dataclasses.dataclass(frozen=True, eq=False)
class _Member:
    """One trained tokenizer of a pool. arrays: `left`, `right`, `merged` of BPE's merges; `scores`, `fallback` of Unigram."""

    candidates: Candidates
    arrays: dict[str, np.ndarray]
    style: int
    lowercase: bool

    @property
    def spec(self) -> dict:
        """Its parsed tokenizer.json."""
        return json.loads(self.arrays["spec"].tobytes())


class Sampler:
    """Draws tokenizers. `texts` are the sources that they are drawn from; `source` is the base model's vocabulary."""

    def __init__(self, config: SamplerConfig, texts: Sequence[Documents], source: Vocabulary, max_pieces: int, seed: int):
        self._config, self._seed, self._source, self._texts = config, seed, source, texts
        self._max_pieces = max_pieces
        self._shares = source_shares(texts, config, seed)
        kinds = [kind for kind in KINDS if kind != "substring" and getattr(config, kind) > 0]
        self._pools = {kind: [self._member(kind, n) for n in range(max(config.pool, len(texts)))] for kind in kinds}
        self._inventory = self._queue = None
        if config.substring > 0 and config.queue:
            self._queue = TextQueue(texts, self._shares, config, seed)
        elif config.substring > 0:
            folder = self._folder("inventory", "inventory", "inventory_bytes", "shards", "max_bytes")
            self._inventory = stored(folder, lambda: count_inventory(texts, config, seed))
            self._candidates = self._known(PackedTokens(self._inventory["data"], self._inventory["starts"]))

    def draw(self, step: int) -> Draw:
        """The tokenizer of `step`."""
        c = self._config
        rng = np.random.default_rng([self._seed, step, 1])
        size = int(np.exp(rng.uniform(np.log(c.min_size), np.log(c.max_size)))) if c.sizes == "log-uniform" else c.max_size
        shares = np.asarray([getattr(c, kind) for kind in KINDS])
        kind = KINDS[rng.choice(len(KINDS), p=shares / shares.sum())]
        source = int(rng.choice(len(self._texts), p=self._shares)) if c.one_source else None
        if kind == "substring":
            draw = self._draw_substrings(rng, size, step, source)
        else:
            pool = self._pools[kind][source :: len(self._texts)] if source is not None else self._pools[kind]
            member = pool[rng.integers(len(pool))]
            draw = self._thin_unigram(member, size, rng) if kind == "unigram" else self._cut_bpe(member, size, kind)
        return dataclasses.replace(draw, source=source)

    @functools.cached_property
    def _of_texts(self) -> list:
        """What identifies the sources and their shares."""
        return [[text.fingerprint() for text in self._texts], self._shares.tolist()]

    @functools.cached_property
    def _of_source(self) -> str:
        """What identifies the base model's tokenizer."""
        return hashlib.sha256(self._source.tokenizer.to_str().encode()).hexdigest()

    def _folder(self, what: str, *fields: str) -> Path:
        """Where `what`, which depends on these fields of the config, is kept."""
        key = json.dumps([RECIPE, what, [getattr(self._config, field) for field in fields], self._of_texts, self._seed])
        return cache_folder() / "sampler" / hashlib.sha256(key.encode()).hexdigest()[:32]

    def _known(self, tokens: PackedTokens) -> Candidates:
        """The tokens in source pieces, kept beside what they were decomposed with."""
        key = hashlib.sha256(json.dumps([RECIPE, decompose.RECIPE, self._of_source, self._max_pieces]).encode())
        key.update(tokens.data.tobytes() + tokens.starts.tobytes())
        forms = stored(cache_folder() / "sampler" / key.hexdigest()[:32], lambda: self._decomposed(tokens))
        return Candidates(tokens, **forms)

    def _decomposed(self, tokens: PackedTokens) -> dict[str, np.ndarray]:
        listed = list(tokens)
        pieces, lengths = self._source.decompose(listed).padded(self._max_pieces)
        same = np.asarray([self._source.id_of.get(t, -1) if t else -1 for t in listed], np.int32)
        return {"pieces": pieces, "lengths": lengths, "same": same}

    # ------------------------------------------------------------------------------------------------------- pools

    def _member(self, kind: str, number: int) -> _Member:
        import tokenizers

        from zett.vocab.words import BERT, PIECES

        c = self._config
        lowercase = kind == "wordpiece" and (number + 1) * c.lowercase // 1 > number * c.lowercase // 1
        # Of BPE, the members of every source have the three ways to cut words in turn.
        style = {"bpe": number // len(self._texts) % 3, "unigram": PIECES, "wordpiece": BERT}[kind]
        what = f"{kind} {number} {style} {lowercase} {tokenizers.__version__}"
        folder = self._folder(what, "max_size", "pool_bytes", "source_weights", "one_source")
        arrays = stored(folder, lambda: self._train(kind, number, style, lowercase))
        return _Member(self._known(PackedTokens(arrays["data"], arrays["starts"])), arrays, style, lowercase)

    def _train(self, kind: str, number: int, style: int, lowercase: bool) -> dict[str, np.ndarray]:
        from zett.vocab.words import STYLES

        rng = np.random.default_rng([self._seed, number, {"bpe": 2, "unigram": 3, "wordpiece": 7}[kind]])
        sample = self._sample(number, rng)
        if lowercase:
            sample = [text.lower() for text in sample]
        model = "unigram" if kind == "unigram" else "bpe"
        tokenizer = train_tokenizer(model, self._config.max_size, sample, word_regex=STYLES[style])
        spec = json.loads(tokenizer.to_str())
        tokens = PackedTokens.of(token_bytes(tokenizer))
        arrays = {"data": tokens.data, "starts": tokens.starts, "spec": np.frombuffer(json.dumps(spec).encode(), np.uint8)}
        vocab = spec["model"]["vocab"]
        if kind == "unigram":
            ids = {piece: i for i, (piece, _) in enumerate(vocab)}
            fallback = np.asarray([ids[f"<0x{b:02X}>"] for b in range(256)])
            return arrays | {"scores": np.asarray([score for _, score in vocab]), "fallback": fallback}
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in spec["model"]["merges"]]
        merges = np.asarray([(vocab[a], vocab[b], vocab[a + b]) for a, b in pairs], np.int32).reshape(-1, 3)
        return arrays | {"left": merges[:, 0], "right": merges[:, 1], "merged": merges[:, 2]}

    def _sample(self, number: int, rng: np.random.Generator) -> list[str]:
        """The text of a pool's member: of one source, or of a random mixture of them by their weights."""
        limit = self._config.pool_bytes
        if self._config.one_source or not self._config.source_weights:
            return list(random_texts(self._texts[number % len(self._texts)], limit, rng))
        mixture = rng.dirichlet(self._shares * len(self._texts))
        return [text for source, share in zip(self._texts, mixture) for text in random_texts(source, share * limit, rng)]

    def _cut_bpe(self, member: _Member, size: int, kind: str) -> Draw:
        from zett.vocab import kernels

        arrays, longest = member.arrays, len(member.candidates.tokens)
        size = int(np.clip(size, longest - len(arrays["merged"]) + 1, longest))  # special tokens and bytes always stay
        # The trainer gives ids in the order of merges, so the first ids and merges are the smaller tokenizer.
        kept = arrays["merged"] < size
        tokens, forms = member.candidates.take(np.arange(size), rank_prior(member.candidates.tokens.lengths[:size].tolist()))
        byte_ids = _byte_ids(tokens)
        if kind == "bpe":
            merges = kernels.merge_table(*(arrays[name][kept] for name in ("left", "right", "merged")))
            whole = _trie(tokens, np.zeros(0, np.int64), 0)
            chars, spelled, usable = np.tile(byte_ids, (4, 1)), np.full(256, kernels.NONE, np.int32), np.ones(size, np.bool_)

            def model(text, starts):
                roots = np.zeros(len(starts) - 1, np.uint8)
                return kernels.bpe(text, starts, roots, True, chars, spelled, merges, *whole, usable, byte_ids)
        else:
            # A word's beginning is told from its rest by the space before it, so every piece may stand anywhere.
            edges, ends = _trie(tokens, np.flatnonzero(tokens.lengths), 1)

            def model(text, starts):
                return kernels.wordpiece(text, starts, np.ones(len(starts) - 1, np.uint8), edges, ends, byte_ids)

        return Draw(
            kind, tokens, forms, member.style, model, functools.partial(_build_bpe, member, size, kind), member.lowercase
        )

    def _thin_unigram(self, member: _Member, size: int, rng: np.random.Generator) -> Draw:
        scores, fallback = member.arrays["scores"], member.arrays["fallback"]
        required = member.candidates.tokens.lengths <= 1
        keep = np.flatnonzero(required)
        others = np.flatnonzero(~required)
        # Better pieces stay; the noise makes every draw of one member another vocabulary.
        order = np.argsort(-(scores[others] + rng.normal(0, rng.uniform(0, 1), len(others))), kind="stable")
        keep = np.sort(np.concatenate([keep, others[order[: max(size - len(keep), 1)]]]))
        tokens, forms = member.candidates.take(
            keep, unigram_prior(scores[keep], member.candidates.tokens.lengths[keep].tolist())
        )
        pieces = (tokens.lengths > 0) & ~np.isin(keep, fallback)
        model = _unigram_model(tokens, pieces, scores[keep], np.searchsorted(keep, fallback).astype(np.int32), by_byte=False)
        return Draw("unigram", tokens, forms, member.style, model, functools.partial(_build_unigram, member, keep))

    # -------------------------------------------------------------------------------------------------- substrings

    def _draw_substrings(self, rng: np.random.Generator, size: int, step: int, source: int | None) -> Draw:
        from zett.vocab.words import WORDS

        c = self._config
        if self._queue is not None:
            tokens, counts = self._queue.count(step, source)
            weights = np.ones(1, np.float32)
        else:
            assert self._inventory is not None  # it is there where substrings are drawn and there is no queue
            tokens, counts = self._candidates.tokens, self._inventory["counts"]
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
            tokens, forms = Candidates(chosen, **self._decomposed(chosen)).take(np.arange(len(keep)), prior)
        else:
            tokens, forms = self._candidates.take(keep, prior)
        model = _unigram_model(tokens, np.ones(len(tokens), np.bool_), log_scores, _byte_ids(tokens), by_byte=True)
        return Draw("substring", tokens, forms, WORDS, model, functools.partial(_build_substrings, tokens, log_scores))


def _trie(tokens: PackedTokens, ids: np.ndarray, root: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the tokens `ids [N]`, all from one root."""
    from zett.vocab import kernels

    packed = tokens.take(ids)
    return kernels.trie(packed.data, packed.starts, ids.astype(np.int32), np.full(len(ids), root, np.uint8))


def _byte_ids(tokens: PackedTokens) -> np.ndarray:
    """`[256]` the id of each byte."""
    single = np.flatnonzero(tokens.lengths == 1)
    ids = np.zeros(256, np.int32)
    ids[tokens.data[tokens.starts[single]]] = single
    return ids


def _unigram_model(tokens: PackedTokens, pieces: np.ndarray, scores: np.ndarray, byte_ids: np.ndarray, *, by_byte: bool):
    """pieces: `[V]` bool, whether a token stands for its text, or else for nothing or a byte of last resort."""
    from zett.vocab import kernels

    edges, ends = _trie(tokens, np.flatnonzero(pieces), 0)
    unknown = scores.min() - decompose.UNKNOWN_PENALTY
    return lambda text, starts: kernels.unigram(text, starts, by_byte, edges, ends, scores, unknown, byte_ids)


# ------------------------------------------------------------------------------------------------ the library's tokenizers


def _build_bpe(member: _Member, size: int, kind: str):
    import tokenizers as tk

    spec = member.spec
    vocab = {token: i for token, i in spec["model"]["vocab"].items() if i < size}
    if kind == "bpe":
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in spec["model"]["merges"]]
        tokenizer = tk.Tokenizer(tk.models.BPE(vocab, [(left, right) for left, right in pairs if left + right in vocab]))
    else:
        settings = dict(unk_token="", continuing_subword_prefix="", max_input_chars_per_word=1_000_000)
        tokenizer = tk.Tokenizer(tk.models.WordPiece(vocab, **settings))
    if member.lowercase:
        tokenizer.normalizer = tk.normalizers.Lowercase()
    tokenizer.pre_tokenizer = _byte_words(member.style)
    return tokenizer


def _build_unigram(member: _Member, keep: np.ndarray):
    import tokenizers as tk

    spec = member.spec
    entries = spec["model"]["vocab"]
    unknown = int(np.searchsorted(keep, spec["model"]["unk_id"]))
    spec["model"] |= {"vocab": [entries[i] for i in keep], "unk_id": unknown}
    return tk.Tokenizer.from_str(json.dumps(spec | {"added_tokens": []}))


def _build_substrings(tokens: PackedTokens, log_scores: np.ndarray):
    import tokenizers as tk

    from zett.vocab.words import WORDS

    # Without an unknown token, of which the library makes one of several in a row: there are all bytes.
    tokenizer = tk.Tokenizer(tk.models.Unigram([(to_alphabet(t), float(s)) for t, s in zip(tokens, log_scores)]))
    tokenizer.pre_tokenizer = _byte_words(WORDS)
    return tokenizer


def _byte_words(style: int):
    from tokenizers import Regex, pre_tokenizers

    from zett.vocab.words import STYLES

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(STYLES[style]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
