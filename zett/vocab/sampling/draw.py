"""A drawn tokenizer, and the compiled models that it encodes with."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zett.vocab.compiled import models, table
from zett.vocab.compiled.cutting import distinct_words, packed_texts
from zett.vocab.compiled.ranges import gather, starts_of
from zett.vocab.decompose import UNKNOWN_PENALTY
from zett.vocab.forms import SurfaceForms
from zett.vocab.regexes import PIECES, STYLES
from zett.vocab.sampling.packed import PackedTokens

Model = Callable[
    [np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]
]  # packed words -> the ids of all words, how many each word has


@dataclasses.dataclass(frozen=True)
class Draw:
    """A drawn tokenizer: encodes text to ids `[0, V)`; `tokens[id]` are its bytes; `forms` the tokens in source pieces.

    lowercase: whether it reads text in lower case; otherwise the tokens of a text spell that text. text_number: with
    config.one_text, which of the texts it was drawn from.
    """

    kind: str
    tokens: PackedTokens
    forms: SurfaceForms
    style: int  # how it cuts words: an index into zett.vocab.regexes.STYLES
    model: Model
    build: Callable[[], Any]
    lowercase: bool = False
    text_number: int | None = None

    @functools.cached_property
    def tokenizer(self):
        """The same tokenizer as a `tokenizers.Tokenizer`, which encodes to the same ids."""
        return self.build()

    def encode(self, texts: Sequence[str], limit: int) -> tuple[np.ndarray, np.ndarray]:
        """The first `limit` ids of each text, `[B, limit]` int64 padded with 0, and how many there are, `[B]`."""
        if self.lowercase:
            # Python writes a sigma at the end of a word in another way; the `tokenizers` library does not.
            texts = [text.replace("Σ", "σ").lower() for text in texts]
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


def bpe_model(tokens: PackedTokens, left: np.ndarray, right: np.ndarray, merged: np.ndarray) -> Model:
    """Byte-level BPE with these merges."""
    byte_ids = ids_of_bytes(tokens)
    merges = table.merge_table(left, right, merged)
    whole = _trie(tokens, np.zeros(0, np.int64), 0)
    chars, spelled = np.tile(byte_ids, (4, 1)), np.full(256, table.NONE, np.int32)
    usable = np.ones(len(tokens), np.bool_)

    def model(text, starts):
        roots = np.zeros(len(starts) - 1, np.uint8)
        return models.bpe(text, starts, roots, True, chars, spelled, merges, *whole, usable, byte_ids)

    return model


def wordpiece_model(tokens: PackedTokens) -> Model:
    """Always the longest match. Words begin with their space, so pieces need no mark of it, and each may stand anywhere."""
    byte_ids = ids_of_bytes(tokens)
    edges, ends = _trie(tokens, np.flatnonzero(tokens.lengths), 1)
    return lambda text, starts: models.wordpiece(text, starts, np.ones(len(starts) - 1, np.uint8), edges, ends, byte_ids)


def unigram_model(
    tokens: PackedTokens, pieces: np.ndarray, scores: np.ndarray, byte_ids: np.ndarray, *, by_byte: bool
) -> Model:
    """The most probable pieces. pieces: `[V]` bool, False for tokens that stand for nothing or for a byte of last resort."""
    edges, ends = _trie(tokens, np.flatnonzero(pieces), 0)
    unknown = scores.min() - UNKNOWN_PENALTY
    return lambda text, starts: models.unigram(text, starts, by_byte, edges, ends, scores, unknown, byte_ids)


def ids_of_bytes(tokens: PackedTokens) -> np.ndarray:
    """`[256]` the id of each byte."""
    single = np.flatnonzero(tokens.lengths == 1)
    ids = np.zeros(256, np.int32)
    ids[tokens.data[tokens.starts[single]]] = single
    return ids


def _trie(tokens: PackedTokens, ids: np.ndarray, root: int) -> tuple[np.ndarray, np.ndarray]:
    """A trie of the tokens `ids [N]`, all from one root."""
    packed = tokens.take(ids)
    return table.trie(packed.data, packed.starts, ids.astype(np.int32), np.full(len(ids), root, np.uint8))


def byte_words(style: int):
    """The library's pre-tokeniser that cuts words in this style and writes their bytes as characters."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(STYLES[style]), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
