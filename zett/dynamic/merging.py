"""A batch of texts in fewer tokens: its most frequent neighbours merged, as dynamic tokenization does (arXiv 2411.18553).

Merging begins from the tokens that the base model's tokenizer makes, and joins the pair that is most frequent in the batch,
again and again, as training a BPE does. So the texts are spelled by the same bytes, and nothing but the batch decides on the
tokens. Shapes: B texts, L tokens of a text, L' after merging.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from zett.errors import UserError
from zett.vocab import Vocabulary

LEAST = 2  # how often a pair has to stand in the batch
MOST_PIECES = 8  # tokens in one that is merged: no more are read by the hypernetworks in the package


@dataclasses.dataclass(frozen=True, eq=False)
class TokenBatch:
    """Texts in tokens of the vocabulary.

    ids: `[B, L]` int32, of which `lengths [B]` count. words: `[B, L]`, a number for each token; it can be merged with a
    neighbour of the same number, and with none if it is -1.
    """

    vocab: Vocabulary
    ids: np.ndarray
    lengths: np.ndarray
    words: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def counts(self) -> np.ndarray:
        """`[B, L]`, whether there is a token."""
        return np.arange(self.ids.shape[1]) < self.lengths[:, None]


@dataclasses.dataclass(frozen=True, eq=False)
class Merged:
    """Texts after merging.

    ids: `[B, L']` int32, of which `lengths [B]` count: ids of the vocabulary, and from its size on numbers of `tokens`, the
    bytes of the new ones. begins: `[B, L']`, which token of `batch` each begins with. merges: pairs that were joined.
    """

    batch: TokenBatch
    ids: np.ndarray
    lengths: np.ndarray
    begins: np.ndarray
    tokens: tuple[bytes, ...]
    merges: int

    def __repr__(self) -> str:
        return f"Merged({self.merges:,} merges, {len(self.tokens):,} new tokens, {self.reduction:.1%} shorter)"

    @property
    def reduction(self) -> float:
        """By which share of their tokens the texts are shorter."""
        return 1 - float(self.lengths.sum()) / max(float(self.batch.lengths.sum()), 1)

    def token_bytes(self, row: int) -> list[bytes]:
        """What each token of a text stands for; b"" for special tokens."""
        known = self.batch.vocab.tokens
        ids = self.ids[row, : self.lengths[row]].tolist()
        return [known[i] if i < len(known) else self.tokens[i - len(known)] for i in ids]


def read_texts(
    vocab: Vocabulary, texts: Sequence[str], *, before: Sequence[int] = (), after: Sequence[int] = (), across: bool = False
) -> TokenBatch:
    """Texts as the tokenizer reads them. before, after: ids that are put around each, and never merged.

    A word is what the tokenizer itself takes apart alone; if it takes texts as a whole, a word begins at each token that begins
    with white space. across: tokens of neighbouring words can be merged, too. Special tokens in a text are never merged.
    """
    encoded = [vocab.tokenizer.encode(text, add_special_tokens=False) for text in texts]
    lengths = np.asarray([len(one.ids) for one in encoded], np.int32) + len(before) + len(after)
    ids = np.zeros((len(encoded), int(lengths.max(initial=1))), np.int32)
    words = np.full(ids.shape, -1, np.int32)
    for row, one in enumerate(encoded):
        inside = slice(len(before), int(lengths[row]) - len(after))
        ids[row, : lengths[row]] = [*before, *one.ids, *after]
        words[row, inside] = _words(vocab, one, across)
    return TokenBatch(vocab, ids, lengths, words)


def _words(vocab: Vocabulary, encoding, across: bool) -> np.ndarray:
    numbers = np.asarray([-1 if word is None else word for word in encoding.word_ids], np.int32)
    tokens = [vocab.tokens[i] for i in encoding.ids]
    spelled = np.asarray([bool(token) for token in tokens], np.bool_)
    # Between two special tokens there are other texts.
    parts = np.cumsum(~spelled)
    if across:
        return np.where(spelled, parts, -1)
    if not numbers.any():
        numbers = np.cumsum([token[:1].isspace() for token in tokens])
    begins = (np.diff(numbers, prepend=-1) != 0) | (np.diff(parts, prepend=0) != 0)
    return np.where(spelled, np.cumsum(begins), -1)


def merge(
    batch: TokenBatch, number: int | None = None, *, reduction: float | None = None, least: int = LEAST,
    most_pieces: int = MOST_PIECES,
) -> Merged:  # fmt: skip
    """The batch after `number` merges, or fewer where texts are shorter by the share `reduction` before, or no pair is left.

    Each time all occurrences of the pair that is most frequent become one token; of equally frequent ones it is the one with
    the lowest ids. A token that spells one of the vocabulary's is that one. least: how often a pair has to stand in the batch;
    most_pieces: how many of the batch's tokens become one at most. UserError for values that make no sense.
    """
    _check(number, reduction, least, most_pieces)
    counts = batch.counts
    row, column = np.nonzero(counts)
    state = _State(batch, counts)
    target = 0.0 if reduction is None else (1 - reduction) * len(row)
    merges = 0
    while (number is None or merges < number) and len(state.ids) > target and state.join(least, most_pieces):
        merges += 1
    rows = row[state.at]
    lengths = np.bincount(rows, minlength=len(batch)).astype(np.int32)
    ids = np.zeros((len(batch), max(int(lengths.max(initial=0)), 1)), np.int32)
    begins = np.zeros_like(ids)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ids[rows, place], begins[rows, place] = state.ids, column[state.at]
    return Merged(batch, ids, lengths, begins, tuple(state.new), merges)


def _check(number, reduction, least, most_pieces) -> None:
    if number is None and reduction is None:
        raise UserError("nothing says how much to merge; give a number of merges, or a reduction of length")
    for name, value, low in (("number", number, 0), ("least", least, 1), ("most_pieces", most_pieces, 1)):
        if value is not None and (not isinstance(value, int | np.integer) or isinstance(value, bool) or value < low):
            raise UserError(f"{name} is {value!r}; it has to be a whole number, at least {low}")
    if reduction is not None and not 0 <= reduction < 1:
        raise UserError(f"reduction is {reduction!r}; it has to be from 0 to less than 1, a share of the tokens")


class _State:
    """All tokens of a batch in one row. at: the number of the first of the batch's tokens that each is made of."""

    def __init__(self, batch: TokenBatch, counts: np.ndarray):
        self.vocab, self.ids = batch.vocab, batch.ids[counts].astype(np.int64)
        self.at = np.arange(len(self.ids))
        self.pieces = np.ones(len(self.ids), np.int32)
        words = np.where(batch.words < 0, -1, batch.words + np.arange(len(batch))[:, None] * (batch.words.max(initial=0) + 1))
        self.words = words[counts]
        self.new: list[bytes] = []
        self._number: dict[bytes, int] = {}

    def join(self, least: int, most_pieces: int) -> bool:
        """Join the most frequent pair; False if there is none."""
        near = (self.words[1:] == self.words[:-1]) & (self.words[1:] >= 0)
        near &= self.pieces[1:] + self.pieces[:-1] <= most_pieces
        first = np.flatnonzero(near)
        size = len(self.vocab) + len(self.new)
        keys = self.ids[first] * size + self.ids[first + 1]
        pairs, often = np.unique(keys, return_counts=True)
        if not len(pairs) or often.max() < least:
            return False
        pair = pairs[often.argmax()]
        left, right = divmod(int(pair), size)
        first = first[keys == pair]
        if left == right:
            first = _apart(first)
        self.ids[first] = self._number_of(self._bytes(left) + self._bytes(right))
        self.pieces[first] += self.pieces[first + 1]
        for name in ("ids", "at", "pieces", "words"):
            setattr(self, name, np.delete(getattr(self, name), first + 1))
        return True

    def _bytes(self, number: int) -> bytes:
        size = len(self.vocab)
        return self.vocab.tokens[number] if number < size else self.new[number - size]

    def _number_of(self, token: bytes) -> int:
        known = self.vocab.id_of.get(token)
        if known is not None:
            return known
        if token not in self._number:
            self._number[token] = len(self.vocab) + len(self.new)
            self.new.append(token)
        return self._number[token]


def _apart(first: np.ndarray) -> np.ndarray:
    """Of the places of a token that is followed by the same one, those of pairs that do not overlap, from the left."""
    begins = np.diff(first, prepend=-2) != 1
    run = np.maximum.accumulate(np.where(begins, np.arange(len(first)), 0))
    return first[(np.arange(len(first)) - run) % 2 == 0]
