"""What it costs to read texts in merged tokens: bits per byte of the rest of a text after a merged beginning.

Beginnings are merged batch by batch, and the rest is in the model's own tokens, so that whatever is merged, the same tokens are
predicted. For an encoder they are the tokens of hidden words, and what is merged is the text around them.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.data.masked import MASK, embed, frame_of
from zett.dynamic.merging import Merged, TokenBatch, merge, read_texts
from zett.dynamic.reading import Rows, reading_merged
from zett.errors import UserError
from zett.evaluate.tasks.encoded import nats_of, padded_table, rounded_up
from zett.evaluate.tasks.items import Items
from zett.evaluate.tasks.masked_bits_per_byte import hidden_tokens
from zett.lms.base import BaseModel
from zett.vocab import Vocabulary

PROMPT = 0.75  # of a text's tokens: its beginning, which is merged


@dataclasses.dataclass(frozen=True, eq=False)
class DynamicItems(Items):
    """Texts, and of each what is predicted. weights: bytes of these tokens.

    read: what is merged; of a causal model beginnings alone, of an encoder texts with -1 in place of what is hidden.
    targets: `[N, M]` ids, of which `counts [N]` count.
    """

    read: TokenBatch
    targets: np.ndarray
    counts: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Cost:
    """bits: `[N]` of what is predicted. before, after: `[N]` tokens that are read, and those left of them. new: tokens made."""

    bits: np.ndarray
    before: np.ndarray
    after: np.ndarray
    new: int


class Dynamic:
    """Score: the bits that a model needs for what is predicted; weight: its bytes.

    across: tokens of neighbouring words are merged, too. batch_size: texts that are merged together.
    """

    name, unit, lower_is_better = "dynamic", "bits per byte of what follows merged text, or is hidden in it", True

    def __init__(self, *, dtype: Any = jnp.float32, batch_size: int = 32, across: bool = False):
        self.dtype, self.batch_size, self.across = jnp.dtype(dtype), batch_size, across

    def items(self, base: BaseModel, texts: Sequence[str]) -> DynamicItems:
        """Texts of which something is predicted; UserError if there is none, or the model has too few positions."""
        batch = read_texts(base.vocab, texts, across=self.across)
        if base.causal:
            chosen, frame = _ends(batch), 1
        else:
            frame = len(frame_of(base))
            found = hidden_tokens(Items(tuple(texts), np.ones(len(texts))), base.vocab)
            width = batch.ids.shape[1]
            chosen = np.pad(found, ((0, 0), (0, max(width - found.shape[1], 0))))[:, :width]
        longest = int(batch.lengths.max(initial=0)) + frame
        if longest > base.config.room:
            raise UserError(
                f"a window of text takes {longest} tokens, and {base.name} has positions for {base.config.room}; give "
                "smaller windows (--window)"
            )
        kept = np.flatnonzero(chosen.any(1))
        if not len(kept):
            raise UserError("no text is long enough to predict a part of it; give longer texts (--window)")
        batch, chosen = TokenBatch(batch.vocab, batch.ids[kept], batch.lengths[kept], batch.words[kept]), chosen[kept]
        counts = chosen.sum(1)
        most = -(-int(counts.max()) // 16) * 16
        targets = np.zeros((len(kept), most), np.int32)
        targets[np.arange(most) < counts[:, None]] = batch.ids[chosen]
        weights = np.where(chosen, base.vocab.byte_lengths[batch.ids], 0).sum(1).astype(np.float64)
        words = np.where(chosen, -1, batch.words)
        lengths = batch.lengths - counts if base.causal else batch.lengths
        read = TokenBatch(batch.vocab, np.where(chosen, MASK, batch.ids), lengths.astype(np.int32), words)
        return DynamicItems(tuple(texts[i] for i in kept.tolist()), weights, read, targets, counts)

    def score(self, model: BaseModel, items: Items) -> np.ndarray:
        """Without merges. UserError if the model has another vocabulary than the one whose tokens the items are."""
        assert isinstance(items, DynamicItems)
        return self.cost(model, items, None, 0).bits

    def cost(self, model: BaseModel, items: DynamicItems, rows: Rows | None, merges: int) -> Cost:
        """With so many merges in each batch of texts. rows: what makes the new tokens' rows; not needed for 0 merges."""
        if model.vocab is not items.read.vocab:
            raise UserError(f"{model.name} has another vocabulary than the model whose texts are merged")
        bits, after, new = np.zeros(len(items)), np.zeros(len(items), np.int64), 0
        for start in range(0, len(items), self.batch_size):
            some = slice(start, start + self.batch_size)
            read = items.read
            merged = merge(TokenBatch(read.vocab, read.ids[some], read.lengths[some], read.words[some]), merges)
            reader = model if rows is None else reading_merged(model, merged.tokens, rows)
            bits[some] = self._bits(reader, model, merged, items.targets[some], items.counts[some])
            after[some], new = merged.lengths, new + len(merged.tokens)
        return Cost(bits, items.read.lengths.astype(np.int64), after, new)

    def _bits(self, reader: BaseModel, model: BaseModel, merged: Merged, targets, counts) -> np.ndarray:
        """`[B]`; the last batch is filled up to the size of the others."""
        short = ((0, self.batch_size - len(targets)), (0, 0))
        made = _causal(model, merged, targets, counts) if model.causal else _framed(model, merged, targets.shape[1])
        ids, mask, columns, frame = made
        weights = np.arange(targets.shape[1]) < counts[:, None]
        room = min(rounded_up(np.asarray([ids.shape[1]])), model.config.room)
        wide = (short[0], (0, room - ids.shape[1]))
        arrays = (np.pad(ids, wide), np.pad(mask, wide), *(np.pad(x, short) for x in (columns, targets, weights)))
        table = padded_table(reader.table)
        nats = _nats(model.graphdef, model.params, table, frame, *arrays, causal=model.causal, dtype=self.dtype)
        return np.asarray(nats)[: len(counts)] / math.log(2)


def _ends(batch: TokenBatch) -> np.ndarray:
    """`[N, L]`, whether a token is of the end of a text: from the first word on that begins after PROMPT of the tokens."""
    ends = np.zeros(batch.ids.shape, np.bool_)
    for row, length in enumerate(batch.lengths):
        at = int(PROMPT * length)
        later = np.flatnonzero(np.diff(_word_of(batch.vocab, batch.ids[row, max(at - 1, 0) : length])))
        if at and len(later):
            ends[row, at + later[0] : length] = True
    return ends


def _word_of(vocab: Vocabulary, ids: np.ndarray) -> np.ndarray:
    """A number for each token, another one where a word begins: at white space, and at a special token."""
    return np.cumsum([not vocab.tokens[i] or vocab.tokens[i][:1].isspace() for i in ids.tolist()])


def _causal(model: BaseModel, merged: Merged, targets, counts) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ids `[B, W]`, of which -1 opens each text, mask, the columns `[B, M]` before those that are predicted, and its row."""
    lengths = merged.lengths + counts  # with what opens the text, and without the last token, which is predicted alone
    ids = np.zeros((len(targets), int(lengths.max())), np.int32)
    for row, (read, count) in enumerate(zip(merged.lengths, counts)):
        ids[row, : lengths[row]] = [MASK, *merged.ids[row, :read], *targets[row, : count - 1]]
    columns = np.minimum(merged.lengths[:, None] + np.arange(targets.shape[1]), lengths[:, None] - 1)
    return ids, np.arange(ids.shape[1]) < lengths[:, None], columns, model.bos_row[None]


def _framed(model: BaseModel, merged: Merged, most: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ids `[B, W]` with the tokens around a text, mask, and the columns `[B, M]` of hidden ones; the frame's rows."""
    frame = frame_of(model)
    hidden = (merged.ids == MASK) & (np.arange(merged.ids.shape[1]) < merged.lengths[:, None])
    columns = np.argsort(~hidden, axis=1, kind="stable")[:, :most]
    columns = np.pad(columns, ((0, 0), (0, most - columns.shape[1])))
    ids, mask = frame.around(merged.ids, merged.lengths)
    return ids, mask, columns + len(frame.before), frame.rows(model.table.input)


@functools.partial(jax.jit, static_argnames=("graphdef", "causal", "dtype"))
def _nats(graphdef, params, table, frame_KD, ids_BW, mask_BW, columns_BM, targets_BM, weights_BM, *, causal: bool, dtype):
    """Of each text `[B]`."""
    body = nnx.merge(graphdef, params)
    h_BWD = body(embed(table.input, frame_KD, ids_BW).astype(jnp.float32), mask_BL=None if causal else mask_BW)
    h_BMD = jnp.take_along_axis(h_BWD, columns_BM[..., None], 1)
    return (nats_of(h_BMD, table, targets_BM, softcap=body.config.logit_softcap, dtype=dtype) * weights_BM).sum(-1)
