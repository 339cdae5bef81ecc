"""Masked bits per byte: what a masked language model needs for words that are hidden from it, the same for every tokenizer.

Words are chosen by their place in the text. All tokens that touch a hidden word are masked, each by a mask token of its own,
and predicted in one pass; their nats count against the bytes of the words. What it does not see: tokens of one word are
predicted independently of each other, and their number is given away, so that tokenizers which cut more finely are judged
differently; a token that reaches beyond its word is predicted whole.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import regex
from flax import nnx

from zett.data.masked import MASK, embed, frame_of, text_room
from zett.errors import UserError
from zett.evaluate.tasks.encoded import batches, encode_items, nats_of, padded_table, rounded_up
from zett.evaluate.tasks.items import Items
from zett.lms.base import BaseModel
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary

SHARE = 0.15  # of the words of a window

# Scripts that put no spaces between words: there a word is two characters.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"[{_UNSPACED}]\p{{M}}*(?:[{_UNSPACED}]\p{{M}}*)?|[[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]{{1,16}}|"
    r"[^\s\p{L}\p{M}\p{N}_]{1,16}",
    regex.VERSION1,
)


class MaskedBitsPerByte:
    """Score: the bits that an encoder needs for the hidden words of a text; weight: the bytes of these words."""

    name, unit, lower_is_better = "masked_bits_per_byte", "masked bits per byte", True

    def __init__(self, *, dtype: Any = jnp.float32, batch_size: int = 32):
        self.dtype, self.batch_size = jnp.dtype(dtype), batch_size

    def items(self, base: BaseModel, texts: Sequence[str]) -> Items:
        frame_of(base)
        sizes = [sum(len(text[a:b].encode()) for a, b in hidden_words(text, _rng(row))) for row, text in enumerate(texts)]
        return Items(tuple(texts), np.asarray(sizes, np.float64))

    def score(self, model: BaseModel, items: Items) -> np.ndarray:
        """UserError if the model has fewer positions than a text has tokens."""
        original = model.original or model
        frame = frame_of(original)
        encoded, hidden = encode_items(items, model.vocab), hidden_tokens(items, model.vocab)
        room, longest = text_room(original, frame), int(encoded.lengths.max(initial=0))
        if longest > room:
            raise UserError(
                f"a window of text takes {longest} tokens of this tokenizer, and {model.name} has positions for {room}; "
                "give smaller windows (--window)"
            )
        table, frame_rows = padded_table(model.table), frame.rows(original.table.input)
        most = -(-max(int(hidden.sum(1).max()), 1) // 16) * 16
        nats = np.empty(len(items))
        for rows in batches(encoded.lengths, self.batch_size):
            width = min(rounded_up(encoded.lengths[rows] + len(frame)), room + len(frame)) - len(frame)
            inputs = self._batch(frame, encoded, hidden, rows, width, most)
            nats[rows] = np.asarray(_nats(model.graphdef, model.params, table, frame_rows, *inputs, self.dtype))[: len(rows)]
        return nats / math.log(2)

    def _batch(self, frame, encoded, hidden_NL, rows, width: int, most: int) -> tuple:
        """Texts in their frame and which positions are in use `[B, W]`, columns, ids and weights of hidden tokens `[B, M]`."""
        short = ((0, self.batch_size - len(rows)), (0, 0))
        ids, hidden = (np.pad(x[rows][:, :width], short) for x in (encoded.ids, hidden_NL))
        ids, hidden = (np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (ids, hidden))
        framed, mask = frame.around(np.where(hidden, MASK, ids), np.pad(encoded.lengths[rows], short[0]))
        columns = np.argsort(~hidden, axis=1, kind="stable")[:, :most]
        columns = np.pad(columns, ((0, 0), (0, most - columns.shape[1])))
        weights = (np.arange(most) < hidden.sum(1)[:, None]).astype(np.float32)
        return framed, mask, columns + len(frame.before), np.take_along_axis(ids, columns, 1), weights


def _rng(row: int) -> np.random.Generator:
    """Of a text: which words are hidden depends on the text and on its number."""
    return np.random.default_rng([0, row])


def hidden_words(text: str, rng: np.random.Generator) -> np.ndarray:
    """`[number, 2]` where some of a text's words begin and end, in characters and in order: SHARE of them, at least one."""
    spans = np.asarray([match.span() for match in _WORD.finditer(text)]).reshape(-1, 2)
    number = min(max(round(SHARE * len(spans)), 1), len(spans))
    return spans[np.sort(rng.permutation(len(spans))[:number])]


def token_spans(text: str, tokenizer) -> np.ndarray:
    """`[number, 2]` where each token begins and ends in the text, in characters."""
    spans = np.asarray(tokenizer.encode(text, add_special_tokens=False).offsets).reshape(-1, 2)
    # A Unigram model gives all bytes that stand for unknown characters the span of all of these.
    first = np.flatnonzero(np.diff(spans, axis=0, prepend=-1).any(1))
    for start, number in zip(first, np.diff(first, append=len(spans))):
        begin, end = spans[start]
        sizes = [len(char.encode()) for char in text[begin:end]]
        if len(sizes) > 1 and sum(sizes) == number:
            begins = np.repeat(np.arange(begin, end), sizes)
            spans[start : start + number] = np.stack([begins, begins + 1], 1)
    return spans


@functools.lru_cache(maxsize=32)
def hidden_tokens(items: Items, vocab: Vocabulary) -> np.ndarray:
    """`[N, L]`, whether a token of the texts touches a hidden word."""
    hidden = np.zeros(encode_items(items, vocab).ids.shape, np.bool_)
    for row, text in enumerate(items.texts):
        offsets = token_spans(text, vocab.tokenizer)
        for begin, end in hidden_words(text, _rng(row)):
            hidden[row, : len(offsets)] |= (offsets[:, 0] < end) & (offsets[:, 1] > begin)
    return hidden


@functools.partial(jax.jit, static_argnames=("graphdef", "dtype"))
def _nats(graphdef, params, table: EmbeddingTable, frame_KD, ids_BW, mask_BW, columns_BM, targets_BM, weights_BM, dtype):
    """Of each text `[B]`."""
    body = nnx.merge(graphdef, params)
    h_BWD = body(embed(table.input, frame_KD, ids_BW).astype(jnp.float32), mask_BL=mask_BW)
    h_BMD = jnp.take_along_axis(h_BWD, columns_BM[..., None], 1)
    nats_BM = nats_of(h_BMD, table, targets_BM, softcap=body.config.logit_softcap, dtype=dtype)
    return (nats_BM * weights_BM).sum(-1)
