"""Tokenizers to train a hypernetwork on: `Sampler.draw(step)` gives a new one, a pure function of (seed, step).

Three kinds are drawn. Byte-level BPE: a pool is trained once on random parts of the text, and every draw keeps the first merges
of one of them, which is exactly the smaller tokenizer of that training. Unigram: likewise a pool, thinned at random.
Substrings: the ZeTT paper's way (arXiv 2405.07883, section 3.3), corrected: one regex for sampling and tokenising, candidates
begin and end between characters, runs of spaces and all 256 bytes are always in.

Training and counting are done once and cached on disk; what comes from there is decomposed into source pieces at every start.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from zett.config import SamplerConfig
from zett.data.lm import cache_folder
from zett.data.text import Documents
from zett.errors import UserError
from zett.vocab.build import WORD_REGEX, train_tokenizer
from zett.vocab.bytes import to_alphabet, token_bytes
from zett.vocab.decompose import Decomposer
from zett.vocab.vocabulary import SurfaceForms, Vocabulary, pad_pieces, rank_prior, token_features, unigram_prior

RECIPE = 2  # part of the cache's key; to be raised when what is cached is made differently
BYTES = tuple(bytes([b]) for b in range(256))
SPACES = tuple(b" " * n for n in range(2, 17)) + tuple(b"\n" + b" " * n for n in range(4, 17, 4)) + (b"\n\n", b"\t\t")


@dataclasses.dataclass(frozen=True)
class Draw:
    """A drawn tokenizer: encodes text to ids `[0, V)`; `tokens[id]` are its bytes; `forms` the tokens in source pieces."""

    tokenizer: object
    tokens: Sequence[bytes]
    forms: SurfaceForms
    kind: str


@dataclasses.dataclass(frozen=True)
class _Member:
    """One trained tokenizer of a pool: its parsed tokenizer.json, and its tokens in the order of ids."""

    spec: dict
    known: "_Known"


@dataclasses.dataclass(frozen=True)
class _Inventory:
    """Candidate substrings, the required ones first, with their counts per shard `[N, shards]`."""

    known: "_Known"
    counts: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Known:
    """Tokens decomposed beforehand, once for all the draws that choose among them; fields as in SurfaceForms."""

    tokens: list[bytes]
    pieces: np.ndarray
    lengths: np.ndarray
    same: np.ndarray

    def take(self, ids, log_prior) -> tuple[list[bytes], SurfaceForms]:
        tokens = [self.tokens[i] for i in ids]
        features = token_features(tokens, log_prior(tokens))
        return tokens, SurfaceForms(self.pieces[ids], self.lengths[ids], features, self.same[ids])


class Sampler:
    """Draws tokenizers. `texts` are the sources that they are drawn from; `source` is the base model's vocabulary."""

    def __init__(self, config: SamplerConfig, texts: Sequence[Documents], source: Vocabulary, max_pieces: int, seed: int):
        import tokenizers

        self._config, self._seed, self._source = config, seed, source
        self._max_pieces = max_pieces
        self._decompose = Decomposer(source)
        key = json.dumps([RECIPE, tokenizers.__version__, dataclasses.asdict(config), [t.fingerprint() for t in texts], seed])
        self._cache = cache_folder() / "sampler" / hashlib.sha256(key.encode()).hexdigest()[:32]
        self._pools = {kind: self._pool(kind, texts) for kind in ("bpe", "unigram") if getattr(config, kind) > 0}
        self._inventory = self._count(texts) if config.substring > 0 else None

    def draw(self, step: int) -> Draw:
        """The tokenizer of `step`."""
        c = self._config
        rng = np.random.default_rng([self._seed, step, 1])
        size = int(np.exp(rng.uniform(np.log(c.min_size), np.log(c.max_size))))
        shares = np.asarray([c.bpe, c.unigram, c.substring])
        kind = ("bpe", "unigram", "substring")[rng.choice(3, p=shares / shares.sum())]
        if kind == "substring":
            return self._draw_substrings(rng, size)
        member = self._pools[kind][rng.integers(len(self._pools[kind]))]
        return self._cut_bpe(member, size) if kind == "bpe" else self._thin_unigram(member, size, rng)

    def _known(self, tokens: list[bytes]) -> _Known:
        same = np.asarray([self._source.id_of.get(t, -1) if t else -1 for t in tokens], np.int32)
        return _Known(tokens, *pad_pieces(self._decompose(tokens), self._max_pieces), same)

    # ------------------------------------------------------------------------------------------------------- pools

    def _pool(self, kind: str, texts: Sequence[Documents]) -> list[_Member]:
        members = []
        for number in range(self._config.pool):
            path = self._cache / f"{kind}-{number}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                spec = self._train(kind, number, texts)
                temporary = path.with_suffix(f".{os.getpid()}.tmp")
                temporary.write_text(json.dumps(spec, ensure_ascii=False), encoding="utf-8")
                temporary.rename(path)
            members.append(self._member(json.loads(path.read_text(encoding="utf-8"))))
        return members

    def _train(self, kind: str, number: int, texts: Sequence[Documents]) -> dict:
        rng = np.random.default_rng([self._seed, number, 2 if kind == "bpe" else 3])
        sample = _random_texts(texts[number % len(texts)], self._config.pool_bytes, rng)
        tokenizer = train_tokenizer(kind, self._config.max_size, sample, word_regex=_WORD_REGEXES[number // len(texts) % 3])
        return json.loads(tokenizer.to_str())

    def _member(self, spec: dict) -> _Member:
        import tokenizers

        return _Member(spec, self._known(token_bytes(tokenizers.Tokenizer.from_str(json.dumps(spec)))))

    def _cut_bpe(self, member: _Member, size: int) -> Draw:
        import tokenizers as tk

        model = member.spec["model"]
        longest = len(member.known.tokens)
        size = int(np.clip(size, longest - len(model["merges"]) + 1, longest))  # special tokens and bytes always stay
        # The trainer gives ids in the order of merges, so the first ids and merges are the smaller tokenizer.
        vocab = {token: i for token, i in model["vocab"].items() if i < size}
        pairs = [m.split(" ") if isinstance(m, str) else m for m in model["merges"]]
        merges = [(left, right) for left, right in pairs if left + right in vocab]
        tokenizer = tk.Tokenizer(tk.models.BPE(vocab, merges))
        tokenizer.pre_tokenizer = _pre_tokenizer(member.spec)
        tokens, forms = member.known.take(np.arange(size), rank_prior)
        return Draw(tokenizer, tokens, forms, "bpe")

    def _thin_unigram(self, member: _Member, size: int, rng: np.random.Generator) -> Draw:
        import tokenizers as tk

        entries = member.spec["model"]["vocab"]
        scores = np.asarray([score for _, score in entries])
        required = np.asarray([len(t) <= 1 for t in member.known.tokens])
        keep = np.flatnonzero(required)
        others = np.flatnonzero(~required)
        # Better pieces stay; the noise makes every draw of one member another vocabulary.
        order = np.argsort(-(scores[others] + rng.normal(0, rng.uniform(0, 1), len(others))), kind="stable")
        keep = np.sort(np.concatenate([keep, others[order[: max(size - len(keep), 1)]]]))
        spec = member.spec | {"model": member.spec["model"] | {"vocab": [entries[i] for i in keep]}, "added_tokens": []}
        spec["model"]["unk_id"] = int(np.flatnonzero(keep == member.spec["model"]["unk_id"])[0])
        tokens, forms = member.known.take(keep, functools.partial(unigram_prior, scores[keep]))
        return Draw(tk.Tokenizer.from_str(json.dumps(spec)), tokens, forms, "unigram")

    # -------------------------------------------------------------------------------------------------- substrings

    def _count(self, texts: Sequence[Documents]) -> _Inventory:
        path = self._cache / "inventory.npz"
        if not path.exists():
            tokens, counts = count_substrings(texts, self._config, self._seed)
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
            offsets = np.cumsum([0, *map(len, tokens)])
            np.savez(temporary, text=np.frombuffer(b"".join(tokens), np.uint8), offsets=offsets, counts=counts)
            temporary.rename(path)
        with np.load(path, allow_pickle=False) as stored:
            text, offsets, counts = stored["text"].tobytes(), stored["offsets"], stored["counts"]
        tokens = [text[a:b] for a, b in itertools.pairwise(offsets)]
        return _Inventory(self._known(tokens), counts)

    def _draw_substrings(self, rng: np.random.Generator, size: int) -> Draw:
        import tokenizers as tk

        inventory, c = self._inventory, self._config
        assert inventory is not None  # it is there where substrings are drawn
        weights = rng.dirichlet(np.full(inventory.counts.shape[1], 0.5)).astype(np.float32)
        lengths = np.asarray([len(t) for t in inventory.known.tokens], np.float32)
        scores = (inventory.counts @ weights) * lengths
        scores = scores / scores.sum()
        noise = rng.lognormal(c.noise_mean, c.noise_std)
        noisy = scores + rng.normal(0, min(noise, 1e-3), len(scores)).astype(np.float32)
        required = len(BYTES) + len(SPACES)
        others = max(min(size, len(noisy)) - required, 1)
        best = np.argpartition(-noisy[required:], others - 1)[:others]
        keep = np.concatenate([np.arange(required), np.sort(best) + required])
        kept = np.maximum(noisy[keep], max(float(scores[scores > 0].min()), 1e-9))
        log_scores = np.log(kept / kept.sum())
        tokens, forms = inventory.known.take(keep, functools.partial(unigram_prior, log_scores))
        entries = [(to_alphabet(t), float(s)) for t, s in zip(tokens, log_scores)]
        tokenizer = tk.Tokenizer(tk.models.Unigram(entries, unk_id=0))
        tokenizer.pre_tokenizer = _byte_words(WORD_REGEX)
        return Draw(tokenizer, tokens, forms, "substring")


# Tokenizers in use cut words in several ways: like cl100k, like GPT-2 (digits with their word), with single digits.
_GPT2_REGEX = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORD_REGEXES = (WORD_REGEX, _GPT2_REGEX, WORD_REGEX.replace(r"\p{N}{1,3}", r"\p{N}"))


def _pre_tokenizer(spec: dict):
    import tokenizers as tk

    empty = {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
    return tk.Tokenizer.from_str(json.dumps(empty | {"pre_tokenizer": spec["pre_tokenizer"]})).pre_tokenizer


def _byte_words(regex: str):
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def _random_texts(documents: Documents, limit: int, rng: np.random.Generator) -> Iterator[str]:
    """Random documents, none twice, until `limit` characters."""
    total = 0
    for i in rng.permutation(len(documents)):
        text = documents[int(i)]
        yield text
        total += len(text)
        if total >= limit:
            return


def count_substrings(texts: Sequence[Documents], config: SamplerConfig, seed: int) -> tuple[list[bytes], np.ndarray]:
    """Candidates (the required ones first, then the best by count x length) and their counts per shard `[N, shards]`.

    Distinct words are counted first, so that each word is cut into substrings once.
    """
    import regex

    word = regex.compile(WORD_REGEX)
    shards: list[Counter] = [Counter() for _ in range(config.shards)]
    rng = np.random.default_rng([seed, 4])
    for source in texts:
        for number, text in enumerate(_random_texts(source, config.inventory_bytes // len(texts), rng)):
            shards[number % config.shards].update(word.findall(text))
    total: Counter = sum(shards, Counter())
    words = [w for w, n in total.items() if n > 1]
    if not words:
        raise UserError(f"the text of {', '.join(t.name for t in texts)} is too short to draw tokenizers from it")
    index: dict[bytes, int] = {t: i for i, t in enumerate((*BYTES, *SPACES))}
    required = len(index)
    owners, members = [], []
    for number, w in enumerate(words):
        for part in _substrings(w, config.max_bytes):
            owners.append(number)
            members.append(index.setdefault(part, len(index)))
    owner, member = np.asarray(owners), np.asarray(members)
    counts = np.zeros((len(index), config.shards), np.float32)
    for s, shard in enumerate(shards):
        per_word = np.asarray([shard[w] for w in words], np.float32)
        counts[:, s] = np.bincount(member, per_word[owner], len(index))
        counts[:, s] /= max(counts[:, s].sum(), 1.0)
    tokens = list(index)
    score = counts.sum(1) * np.asarray([len(t) for t in tokens])
    best = np.argsort(-score[required:], kind="stable")[: config.inventory] + required
    keep = np.concatenate([np.arange(required), best])
    return [tokens[i] for i in keep], counts[keep]


def _substrings(word: str, max_bytes: int) -> Iterator[bytes]:
    """All runs of whole characters of 2 to `max_bytes` bytes, in the first 64 characters of the word."""
    encoded = [c.encode("utf-8", "surrogatepass") for c in word[:64]]
    for start in range(len(encoded)):
        part = b""
        for char in encoded[start:]:
            part += char
            if len(part) > max_bytes:
                break
            if len(part) > 1:
                yield part
