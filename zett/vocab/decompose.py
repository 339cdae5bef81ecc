"""Exact decomposition of byte strings into source tokens: what the source tokenizer's own model makes of those bytes.

Sometimes the model's pieces do not spell the bytes: it has no piece for a character, or it takes the text "<0x0A>" for a line
break. Then single bytes stand in between the pieces; the id `size + b` is the byte b, if the source has no token for it.

If the source's normaliser changes characters (lower case, NFKC), it comes first, since the model has seen its output alone. A
token that the source has is left as it is.

The pre-tokeniser is not applied, with one exception: models that mark where words begin or end (WordPiece, "</w>") see one word
at a time, as their pre-tokeniser cuts them. Their marks stand for spaces, so one space before and one after a word are left
out. A token that does not begin with a space is taken for the rest of a word, unless it begins with punctuation or a symbol.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from zett.files.cache import cache_folder
from zett.vocab.bytes import BYTE_TOKEN, CHAR_TO_BYTE, TokenFormat, token_format
from zett.vocab.normalise import token_normaliser

RECIPE = 2  # part of the cache's key; to be raised when decompositions change
CACHED_FROM = 16384  # tokens; for fewer, decomposing is faster than hashing them and reading a file
UNKNOWN_PENALTY = 10.0  # Unigram: how much worse than the worst piece an unknown character is


@dataclasses.dataclass(frozen=True)
class Decomposition:
    """Byte strings in pieces: those of string t, all of them, are `ids[starts[t]:starts[t + 1]]`; both int32 or wider."""

    ids: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.tolist())

    @property
    def lengths(self) -> np.ndarray:
        """`[V]` the number of pieces of each string."""
        return np.diff(self.starts)

    def tolist(self) -> list[list[int]]:
        ids, starts = self.ids.tolist(), self.starts.tolist()
        return [ids[a:b] for a, b in itertools.pairwise(starts)]

    def padded(self, max_pieces: int) -> tuple[np.ndarray, np.ndarray]:
        """`[V, S]` int32 right-padded with 0, and `[V]` int32 lengths; of a longer string, the first S pieces are left."""
        lengths = np.minimum(self.lengths, max_pieces).astype(np.int32)
        pieces = np.zeros((len(self), max_pieces), np.int32)
        rows = np.arange(len(self))
        for column in range(max_pieces):
            rows = rows[lengths[rows] > column]
            pieces[rows, column] = self.ids[self.starts[rows] + column]
        return pieces, lengths


class Decomposer:
    """Takes byte strings apart as the model of `source`, a Vocabulary, does. Its tables are built at the first use."""

    def __init__(self, source):
        self._source = source

    def __call__(self, tokens: Sequence[bytes]) -> Decomposition:
        """Source pieces of each byte string."""
        if self._normalised is not None:
            tokens = [t if t in self._source.id_of else self._normalised(t) for t in tokens]
        if not self._by_word:
            packed = _with_spaces(*_pack(tokens), self._format.space.encode())
            ids, counts = self._run(*packed, np.zeros(len(tokens), np.uint8))
            return Decomposition(ids, _starts(counts))
        words, roots, owners = self._words(tokens)
        ids, counts = self._run(*_pack(words), roots)
        return Decomposition(ids, _starts(np.bincount(owners, counts, len(tokens)).astype(np.int64)))

    def cached(self, tokens: Sequence[bytes]) -> Decomposition:
        """The same, but a large result is kept in zett's cache folder, under a hash of both vocabularies."""
        if len(tokens) < CACHED_FROM:
            return self(tokens)
        digest = hashlib.sha256(f"{RECIPE} {self._digest}".encode())
        for part in _pack(tokens):
            digest.update(part.tobytes())
        path = cache_folder() / "decompositions" / f"{digest.hexdigest()[:32]}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:  # checks the checksums of what it reads
                found = Decomposition(stored["ids"], stored["starts"])
            if len(found) == len(tokens) and found.starts[-1] == len(found.ids):
                return found
        except Exception:  # absent or damaged, for which numpy and zipfile have many exceptions
            pass
        made = self(tokens)
        temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(temporary, ids=made.ids, starts=made.starts)
            temporary.rename(path)
        except OSError:  # a cache that cannot be written is no reason to stop
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        return made

    @functools.cached_property
    def _digest(self) -> str:
        """A hash of all that a decomposition depends on."""
        tokenizer = self._source.tokenizer
        digest = hashlib.sha256(tokenizer.model.__getstate__())
        digest.update(repr(self._format).encode())
        if self._normalised is not None:
            digest.update(tokenizer.normalizer.__getstate__())
        if self._by_word and tokenizer.pre_tokenizer is not None:
            digest.update(tokenizer.pre_tokenizer.__getstate__())
        for part in _pack(self._source.tokens):
            digest.update(part.tobytes())
        return digest.hexdigest()

    # ------------------------------------------------------------------------------------------------------------ the model

    @functools.cached_property
    def _format(self) -> TokenFormat:
        return self._source.format or token_format(self._source.tokenizer)

    @functools.cached_property
    def _normalised(self) -> Callable[[bytes], bytes] | None:
        return token_normaliser(self._source.tokenizer)

    @functools.cached_property
    def _by_word(self) -> bool:
        return bool(self._format.word_end or self._format.continuing) or self._format.kind in ("WordPiece", "WordLevel")

    def _words(self, tokens: Sequence[bytes]) -> tuple[list[bytes], np.ndarray, np.ndarray]:
        """The words of all tokens; of each, whether it goes on in a word (1) or begins one (0), and the number of its token."""
        cut = self._source.tokenizer.pre_tokenizer
        words: list[bytes] = []
        roots: list[bool] = []
        owners: list[int] = []
        for owner, token in enumerate(tokens):
            # With surrogateescape, each byte that is not UTF-8 becomes one character between the runs of text.
            for run in _NOT_UTF8.split(token.decode("utf-8", "surrogateescape")):
                whole = cut is None or _NOT_UTF8.match(run)
                spans = [(0, len(run))] if whole else [span for _, span in cut.pre_tokenize_str(run)]
                end = 0
                for start, stop in [*spans, (len(run), len(run))]:
                    gap = run[end:start]
                    if end > 0 and gap.startswith(" "):
                        gap = gap[1:]
                    if start < stop and gap.endswith(" "):
                        gap = gap[:-1]
                    words += [char.encode() for char in gap]
                    roots += [False] * len(gap)
                    if start < stop:
                        words.append(run[start:stop].encode("utf-8", "surrogateescape"))
                        roots.append(start == 0 and unicodedata.category(run[0])[0] not in "PS")
                    end = stop
            owners += [owner] * (len(words) - len(owners))
        return words, np.asarray(roots, np.uint8), np.asarray(owners, np.int64)

    def _run(self, text: np.ndarray, starts: np.ndarray, roots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pieces and counts of packed strings. roots: `[N]` uint8, 1 where a string goes on in a word."""
        from zett.vocab.compiled import models

        model, arguments = self._prepared
        if model == "unigram":
            return models.unigram(text, starts, *arguments)
        return getattr(models, model)(text, starts, roots, *arguments)

    @functools.cached_property
    def _prepared(self) -> tuple[str, tuple]:
        """The name of the compiled model, and its arguments other than the text."""
        state = json.loads(self._source.tokenizer.model.__getstate__())
        size = len(self._source)
        byte_ids = np.asarray([self._source.id_of.get(bytes([b]), size + b) for b in range(256)], np.int32)
        if state["type"] == "BPE":
            return "bpe", (self._format.byte_level, *self._merging(state), byte_ids)
        if state["type"] == "Unigram":
            vocab = {piece: i for i, (piece, _) in enumerate(state["vocab"])}
            scores = np.asarray([score for _, score in state["vocab"]], np.float64)
            return "unigram", (self._format.byte_level, *self._trie(vocab), scores, scores.min() - UNKNOWN_PENALTY, byte_ids)
        return "wordpiece", (*self._trie(state["vocab"]), byte_ids)

    def _merging(self, state: dict) -> tuple:
        from zett.vocab.compiled.table import NONE, merge_table

        form, vocab = self._format, state["vocab"]
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in state["merges"]]
        left, right = [vocab[a] for a, _ in pairs], [vocab[b] for _, b in pairs]
        merged = [vocab[a + b[len(form.continuing) :]] for a, b in pairs]
        merges = merge_table(*(np.asarray(ids, np.int32) for ids in (left, right, merged)))
        # A character is written in up to four ways: after `continuing` unless it is a word's first, and before `word_end` if
        # it is the last.
        ways = [(before, after) for after in ("", form.word_end) for before in ("", form.continuing)]
        longest = len(form.continuing) + 1 + len(form.word_end)
        points: dict[tuple[int, int], int] = {}
        for token, i in vocab.items():
            for way, (before, after) in enumerate(ways if len(token) <= longest else ()):
                if len(token) == len(before) + 1 + len(after) and token.startswith(before) and token.endswith(after):
                    points[way, self._point(token[len(before)])] = i
        chars = np.full((len(ways), max((point for _, point in points), default=0) + 1), NONE, np.int32)
        for (way, point), i in points.items():
            if point >= 0:
                chars[way, point] = i
        spelling = vocab if state["byte_fallback"] else {}
        spelled = [spelling.get(f"<0x{b:02X}>", NONE) for b in range(256)]
        whole = self._trie(vocab if state["ignore_merges"] and not self._by_word else {})
        usable = np.asarray([bool(token) for token in self._source.tokens])
        return chars, np.asarray(spelled, np.int32), merges, *whole, usable

    def _point(self, char: str) -> int:
        """Which byte, or in other formats which code point, a character of the vocabulary stands for; -1: none."""
        form = self._format
        if form.byte_level:
            return CHAR_TO_BYTE.get(char, -1)
        if form.space and char in (form.space, " "):
            return ord(" ") if char == form.space else -1
        return ord(char)

    def _trie(self, vocab: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """A trie of the pieces that stand for their own text."""
        from zett.vocab.compiled.table import trie

        form, tokens = self._format, self._source.tokens
        usable = {p: i for p, i in vocab.items() if tokens[i] and not (form.byte_tokens and BYTE_TOKEN.fullmatch(p))}
        inner = [
            self._by_word and bool(form.continuing) and p.startswith(form.continuing) and p != form.continuing for p in usable
        ]
        if self._by_word:
            texts = [p[len(form.continuing) * goes_on :].encode() for p, goes_on in zip(usable, inner)]
        else:
            texts = [tokens[i] for i in usable.values()]
        return trie(*_pack(texts), np.asarray([*usable.values()], np.int32), np.asarray(inner, np.uint8))


_NOT_UTF8 = re.compile("([\udc80-\udcff])")


def _pack(strings: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """All bytes as one uint8 array, and the `[N + 1]` int64 places where strings start."""
    text = np.frombuffer(b"".join(strings), np.uint8)
    return text, _starts(np.fromiter(map(len, strings), np.int64, len(strings)))


def _with_spaces(text: np.ndarray, starts: np.ndarray, mark: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Packed strings with each mark replaced by a space."""
    marks = np.asarray([m.start() for m in re.finditer(re.escape(mark), text.tobytes())] if mark else [], np.int64)
    owners = np.searchsorted(starts, marks, side="right") - 1
    inside = marks + len(mark) <= starts[owners + 1]
    marks, owners = marks[inside], owners[inside]
    if not len(marks):
        return text, starts
    lengths = np.diff(starts) - np.bincount(owners, minlength=len(starts) - 1) * (len(mark) - 1)
    text = text.copy()
    text[marks] = ord(" ")
    rest = marks[:, None] + np.arange(1, len(mark))
    return np.frombuffer(np.delete(text, rest.ravel()).tobytes(), np.uint8), _starts(lengths)


def _starts(lengths: np.ndarray) -> np.ndarray:
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts
