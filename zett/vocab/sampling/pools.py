"""Pools of tokenizers that are trained once; a draw keeps some entries of one of them."""

import concurrent.futures
import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Sequence

import numpy as np

from zett.config import SamplerConfig
from zett.data.documents import Documents
from zett.progress import bar, say
from zett.vocab.bytes import token_bytes
from zett.vocab.continued import continued_bpe, merges_in, own_merges
from zett.vocab.priors import rank_prior, unigram_prior
from zett.vocab.regexes import BERT, DIGITS, GPT2, PIECES, SENTENCES, STYLES, SUPERWORDS, WORDS
from zett.vocab.sampling.draw import Draw, bpe_model, byte_words, unigram_model, wordpiece_model
from zett.vocab.sampling.packed import Candidates, PackedTokens
from zett.vocab.sampling.stored import Store, stored
from zett.vocab.sampling.texts import random_texts
from zett.vocab.train import train_superwords, train_tokenizer

MOST_AT_ONCE = 8  # trainings, each with its text and counts in memory
POOLED = {"bpe": 2, "unigram": 3, "wordpiece": 7, "near": 10, "superword": 11}  # each with a random seed of its own
# The members of each text take turns with the ways to cut words.
STYLES_OF = {"unigram": (PIECES,), "wordpiece": (BERT,), "superword": (SUPERWORDS, SENTENCES)}
BPE_STYLES = (WORDS, GPT2, DIGITS)
LEAST = 0.25  # of the base model's merges, a member of "near" begins with
FIRST = 300  # entries of a member of "superword" are of single words, or more, up to half of it


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One trained tokenizer of a pool. arrays: `left`, `right`, `merged` of BPE's merges; `scores`, `fallback` of Unigram."""

    candidates: Candidates
    arrays: dict[str, np.ndarray]
    style: int
    lowercase: bool

    @property
    def spec(self) -> dict:
        """Its parsed tokenizer.json."""
        return json.loads(self.arrays["spec"].tobytes())


class Pools:
    """The trained tokenizers, `members`, by kind. shares: how much of the training each text is, adding up to 1."""

    def __init__(self, config: SamplerConfig, texts: Sequence[Documents], shares: np.ndarray, seed: int, store: Store):
        self._config, self._texts, self._shares, self._seed, self._store = config, texts, shares, seed, store
        self._merges = own_merges(store.base) if config.near > 0 else []
        size = max(config.pool, len(texts))
        kinds = [kind for kind in POOLED if getattr(config, kind) > 0]
        say(f"training {size * len(kinds)} tokenizers to draw from, those that are not in the cache")
        self.members: dict[str, list[Member]] = {kind: [] for kind in kinds}
        # The trainers are compiled code that lets other threads work; each has one thread at its end, when it merges.
        with (
            bar(size * len(kinds), "training tokenizers", "tokenizer") as advance,
            concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_AT_ONCE)) as threads,
        ):
            for kind, member in threads.map(lambda one: (one[0], self._member(*one)), itertools.product(kinds, range(size))):
                self.members[kind].append(member)
                advance(1)

    def draw(self, kind: str, rng: np.random.Generator, size: int, text_number: int | None) -> Draw:
        """A smaller tokenizer from a random member; with a `text_number`, from one trained on that text."""
        members = self.members[kind] if text_number is None else self.members[kind][text_number :: len(self._texts)]
        member = members[rng.integers(len(members))]
        return thin_unigram(member, size, rng) if kind == "unigram" else cut(member, size, kind)

    def _member(self, kind: str, number: int) -> Member:
        import tokenizers

        c = self._config
        lowercase = kind == "wordpiece" and (number + 1) * c.lowercase // 1 > number * c.lowercase // 1
        styles = STYLES_OF.get(kind, BPE_STYLES)
        style = styles[number // len(self._texts) % len(styles)]
        what = f"{kind} {number} {style} {lowercase} {tokenizers.__version__}"
        what += f" {self._store.base_key}" if kind == "near" else ""
        folder = self._store.folder(what, "max_size", "pool_bytes", "text_weights", "one_text")
        arrays = stored(folder, lambda: self._train(kind, number, style, lowercase))
        return Member(self._store.candidates(PackedTokens(arrays["data"], arrays["starts"])), arrays, style, lowercase)

    def _train(self, kind: str, number: int, style: int, lowercase: bool) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self._seed, number, POOLED[kind]])
        sample = self._sample(number, rng)
        if lowercase:
            sample = [text.lower() for text in sample]
        size, words = self._config.max_size, STYLES[style]
        if kind == "near":
            first = int(rng.uniform(LEAST, 1) * min(len(self._merges), size))
            tokenizer = continued_bpe(self._merges[:first], size, sample, words)
        elif kind == "superword":
            first = int(np.exp(rng.uniform(np.log(FIRST), np.log(max(size / 2, FIRST)))))
            tokenizer = train_superwords(first, size, sample, style)
        else:
            tokenizer = train_tokenizer("unigram" if kind == "unigram" else "bpe", size, sample, word_regex=words)
        spec = json.loads(tokenizer.to_str())
        tokens = PackedTokens.of(token_bytes(tokenizer))
        arrays = {"data": tokens.data, "starts": tokens.starts, "spec": np.frombuffer(json.dumps(spec).encode(), np.uint8)}
        vocab = spec["model"]["vocab"]
        if kind == "unigram":
            ids = {piece: i for i, (piece, _) in enumerate(vocab)}
            fallback = np.asarray([ids[f"<0x{b:02X}>"] for b in range(256)])
            return arrays | {"scores": np.asarray([score for _, score in vocab]), "fallback": fallback}
        merges = np.asarray([(vocab[a], vocab[b], vocab[a + b]) for a, b in merges_in(spec)], np.int32).reshape(-1, 3)
        return arrays | {"left": merges[:, 0], "right": merges[:, 1], "merged": merges[:, 2]}

    def _sample(self, number: int, rng: np.random.Generator) -> list[str]:
        """What a pool's member is trained on: documents of one text, or of a random mixture of the texts by their weights."""
        limit = self._config.pool_bytes
        if self._config.one_text or not self._config.text_weights:
            return list(random_texts(self._texts[number % len(self._texts)], limit, rng))
        mixture = rng.dirichlet(self._shares * len(self._texts))
        return [text for documents, share in zip(self._texts, mixture) for text in random_texts(documents, share * limit, rng)]


def cut(member: Member, size: int, kind: str) -> Draw:
    """The first `size` entries and their merges, which are the smaller tokenizer of that training: ids follow the merges."""
    arrays, longest = member.arrays, len(member.candidates.tokens)
    size = int(np.clip(size, longest - len(arrays["merged"]) + 1, longest))  # special tokens and bytes always stay
    kept = arrays["merged"] < size
    tokens, forms = member.candidates.take(np.arange(size), rank_prior(member.candidates.tokens.lengths[:size].tolist()))
    merges = (arrays[name][kept] for name in ("left", "right", "merged"))
    model = wordpiece_model(tokens) if kind == "wordpiece" else bpe_model(tokens, *merges)
    build = functools.partial(_build_bpe, member, size, kind)
    return Draw(kind, tokens, forms, member.style, model, build, member.lowercase)


def thin_unigram(member: Member, size: int, rng: np.random.Generator) -> Draw:
    """About `size` of the member's pieces."""
    scores, fallback = member.arrays["scores"], member.arrays["fallback"]
    required = member.candidates.tokens.lengths <= 1
    keep = np.flatnonzero(required)
    others = np.flatnonzero(~required)
    # The better pieces stay; the noise makes each draw from the same member another vocabulary.
    order = np.argsort(-(scores[others] + rng.normal(0, rng.uniform(0, 1), len(others))), kind="stable")
    keep = np.sort(np.concatenate([keep, others[order[: max(size - len(keep), 1)]]]))
    tokens, forms = member.candidates.take(keep, unigram_prior(scores[keep], member.candidates.tokens.lengths[keep].tolist()))
    pieces = (tokens.lengths > 0) & ~np.isin(keep, fallback)
    model = unigram_model(tokens, pieces, scores[keep], np.searchsorted(keep, fallback).astype(np.int32), by_byte=False)
    return Draw("unigram", tokens, forms, member.style, model, functools.partial(_build_unigram, member, keep))


# ------------------------------------------------------------------------------------------------ the library's tokenizers


def _build_bpe(member: Member, size: int, kind: str):
    import tokenizers as tk

    spec = member.spec
    vocab = {token: i for token, i in spec["model"]["vocab"].items() if i < size}
    if kind != "wordpiece":
        merges = [(left, right) for left, right in merges_in(spec) if left + right in vocab]
        tokenizer = tk.Tokenizer(tk.models.BPE(vocab, merges))
    else:
        settings = dict(unk_token="", continuing_subword_prefix="", max_input_chars_per_word=1_000_000)
        tokenizer = tk.Tokenizer(tk.models.WordPiece(vocab, **settings))
    if member.lowercase:
        tokenizer.normalizer = tk.normalizers.Lowercase()
    tokenizer.pre_tokenizer = byte_words(member.style)
    return tokenizer


def _build_unigram(member: Member, keep: np.ndarray):
    import tokenizers as tk

    spec = member.spec
    entries = spec["model"]["vocab"]
    unknown = int(np.searchsorted(keep, spec["model"]["unk_id"]))
    spec["model"] |= {"vocab": [entries[i] for i in keep], "unk_id": unknown}
    return tk.Tokenizer.from_str(json.dumps(spec | {"added_tokens": []}))
