"""Masked bits per byte: what a masked language model needs for words that are hidden from it, the same for every tokenizer.

Words are chosen by their place in the text. All tokens that touch a hidden word are masked, each by a mask token of its own,
and predicted in one pass; their nats count against the bytes of the words. What it does not see: tokens of one word are
predicted independently of each other, and their number is given away, so that tokenizers which cut more finely are judged
differently; a token that reaches beyond its word is predicted whole.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import regex
from flax import nnx

from zett.data.masked import MASK, Frame, embed, text_room
from zett.errors import UserError
from zett.evaluate.bpb import EncodedWindows, encode_windows, row_nats
from zett.table import EmbeddingTable

SHARE = 0.15  # of the words of a window

# Scripts that put no spaces between words: there a word is two characters.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_WORD = regex.compile(
    rf"[{_UNSPACED}]\p{{M}}*(?:[{_UNSPACED}]\p{{M}}*)?|[[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]{{1,16}}|"
    r"[^\s\p{L}\p{M}\p{N}_]{1,16}",
    regex.VERSION1,
)


@dataclasses.dataclass(frozen=True)
class MaskedWindows(EncodedWindows):
    """Windows with hidden words: `[N, L]` whether a token touches one, and the bytes of these words."""

    hidden: np.ndarray
    hidden_bytes: int

    @property
    def scored_bytes(self) -> int:
        return self.hidden_bytes


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


def encode_masked(windows: list[str], tokenizer, seed: int = 0) -> MaskedWindows:
    """Encode as `encode_windows` does, with words hidden that depend on the texts and the seed alone."""
    encoded = encode_windows(windows, tokenizer)
    hidden, hidden_bytes = np.zeros(encoded.ids.shape, np.bool_), 0
    for row, text in enumerate(windows):
        offsets = token_spans(text, tokenizer)
        for begin, end in hidden_words(text, np.random.default_rng([seed, row])):
            hidden[row, : len(offsets)] |= (offsets[:, 0] < end) & (offsets[:, 1] > begin)
            hidden_bytes += len(text[begin:end].encode())
    return MaskedWindows(**vars(encoded), hidden=hidden, hidden_bytes=hidden_bytes)


@functools.partial(jax.jit, static_argnames=("graphdef", "dtype"))
def _nll(graphdef, params, table: EmbeddingTable, frame_KD, ids_BW, mask_BW, columns_BM, targets_BM, weights_BM, dtype):
    """Nats of each window `[B]`."""
    body = nnx.merge(graphdef, params)
    h_BWD = body(embed(table.input, frame_KD, ids_BW).astype(jnp.float32), mask_BL=mask_BW)
    h_BMD = jnp.take_along_axis(h_BWD, columns_BM[..., None], 1)
    return row_nats(h_BMD, table, targets_BM, weights_BM, softcap=body.config.logit_softcap, dtype=dtype)


def masked_nats(
    base, frame: Frame, params, table: EmbeddingTable, encoded: MaskedWindows, *, batch_size=32, dtype=jnp.float32, multiple=64
) -> np.ndarray:
    """Nats that the model (body of `base` with `params`, `table`) needs for the hidden words of each window: `[N]` float64.

    UserError if the model has fewer positions than a window has tokens.
    """
    room, longest = text_room(base, frame), int(encoded.lengths.max(initial=0))
    if longest > room:
        raise UserError(
            f"a window of text takes {longest} tokens of this tokenizer, and {base.name} has positions for {room}; "
            "give smaller windows (--window)"
        )
    frame_rows = frame.rows((base.original or base).table.input)
    most = -(-max(int(encoded.hidden.sum(1).max()), 1) // 16) * 16
    order = np.argsort(encoded.lengths, kind="stable")
    nats = np.empty(len(order))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        # As in `window_nats`: similar lengths together, and few shapes.
        width = min(-(-(int(encoded.lengths[rows].max()) + len(frame)) // multiple) * multiple, room + len(frame)) - len(frame)
        short = ((0, batch_size - len(rows)), (0, 0))
        ids, hidden = (np.pad(x[rows][:, :width], short) for x in (encoded.ids, encoded.hidden))
        ids, hidden = (np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in (ids, hidden))
        framed, mask = frame.around(np.where(hidden, MASK, ids), np.pad(encoded.lengths[rows], short[0]))
        columns = np.argsort(~hidden, axis=1, kind="stable")[:, :most]
        columns = np.pad(columns, ((0, 0), (0, most - columns.shape[1])))
        weights = (np.arange(most) < hidden.sum(1)[:, None]).astype(np.float32)
        targets = np.take_along_axis(ids, columns, 1)
        inputs = (framed, mask, columns + len(frame.before), targets, weights)
        nats[rows] = np.asarray(_nll(base.graphdef, params, table, frame_rows, *inputs, dtype))[: len(rows)]
    return nats
