"""Bits per byte on held-out text, with equal context in bytes for every tokenizer."""

import dataclasses
import functools
import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.losses import chunked_cross_entropy
from zett.table import EmbeddingTable


def byte_windows(documents, *, window: int = 512, count: int = 256, seed: int = 0) -> list[str]:
    """`count` pieces of text of at most `window` bytes, whole lines where they fit, spread evenly over `documents`.

    Each piece is scored alone, so that every tokenizer sees the same context in bytes, however many tokens it needs for it.
    """
    order = np.random.default_rng(seed).permutation(len(documents))
    per_document = max(1, -(-count // max(len(order), 1)))
    windows: list[str] = []
    while len(windows) < count:
        before = len(windows)
        for index in order:
            pieces = _cut(documents[int(index)], window)
            if not pieces:
                continue
            rng = np.random.default_rng([seed, int(index)])
            chosen = sorted(rng.permutation(len(pieces))[:per_document])
            windows += [pieces[i] for i in chosen if pieces[i] not in windows]
            if len(windows) >= count:
                break
        if len(windows) == before:
            break  # the text is shorter than asked for
        per_document *= 2
    return windows[:count]


def whole_windows(documents: Iterable[str], *, window: int = 512, limit: int | None = None, seed: int = 0) -> list[str]:
    """`documents` in pieces of at most `window` bytes, whole lines where they fit, with nothing left out, however short.

    limit: the most bytes that the pieces may have together; drawn from all over the text if it has more.
    """
    pieces: list[str] = []
    for text in documents:
        full, rest = _pieces(text, window)
        pieces += filter(None, [*full, rest])
    sizes = np.asarray([len(piece.encode()) for piece in pieces])
    if limit is None or sizes.sum() <= limit:
        return pieces
    order = np.random.default_rng(seed).permutation(len(pieces))
    return [pieces[i] for i in np.sort(order[np.cumsum(sizes[order]) <= limit])]


def _cut(text: str, window: int) -> list[str]:
    # Windows much shorter than asked for would measure little but the first tokens.
    pieces, _ = _pieces(text, window)
    return [p for p in pieces if len(p.encode()) >= window // 2]


def _pieces(text: str, window: int) -> tuple[list[str], str]:
    """A text in pieces of at most `window` bytes, and what is left at its end."""
    text = text.encode("utf-8", "replace").decode()  # JSON can hold half a character
    pieces: list[str] = []
    current: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        length = len(line.encode())
        if size + length > window and current:
            pieces.append("".join(current))
            current, size = [], 0
        while length > window:  # a line longer than the window: cut between characters
            head = line.encode()[:window].decode("utf-8", "ignore")
            pieces.append(head)
            line = line[len(head) :]
            length = len(line.encode())
        current.append(line)
        size += length
    return pieces, "".join(current)


@dataclasses.dataclass(frozen=True)
class EncodedWindows:
    """Windows as token ids `[N, L]` with lengths `[N]`; `total_bytes` is that of the text."""

    ids: np.ndarray
    lengths: np.ndarray
    total_bytes: int

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())

    @property
    def scored_bytes(self) -> int:
        """Bytes that the nats of the windows count against."""
        return self.total_bytes


def encode_windows(windows: list[str], tokenizer, multiple: int = 64) -> EncodedWindows:
    """Encode without special tokens; L is rounded up to a multiple of `multiple` so that few shapes are compiled."""
    encoded = [tokenizer.encode(w, add_special_tokens=False).ids for w in windows]
    lengths = np.asarray([len(ids) for ids in encoded], np.int32)
    longest = -(-max(int(lengths.max()), 1) // multiple) * multiple
    ids = np.zeros((len(windows), longest), np.int32)
    for row, tokens in zip(ids, encoded):
        row[: len(tokens)] = tokens
    return EncodedWindows(ids, lengths, sum(len(w.encode()) for w in windows))


@functools.partial(jax.jit, static_argnames=("graphdef", "dtype"))
def _nll(graphdef, params, table: EmbeddingTable, bos_row, ids_BL, lengths_B, dtype):
    """Nats of each window `[B]`."""
    body = nnx.merge(graphdef, params)
    # The base model's own bos row opens every window, whether or not the target tokenizer has a bos token.
    first = jnp.broadcast_to(bos_row, (ids_BL.shape[0], 1, bos_row.shape[-1]))
    h_BLD = body(jnp.concatenate([first, table.embed(ids_BL[:, :-1])], 1).astype(jnp.float32))
    weights_BL = (jnp.arange(ids_BL.shape[1]) < lengths_B[:, None]).astype(jnp.float32)
    return row_nats(h_BLD, table, ids_BL, weights_BL, softcap=body.config.logit_softcap, dtype=dtype)


def row_nats(h_BLD, table: EmbeddingTable, ids_BL, weights_BL, *, softcap, dtype):
    """Weighted sum over each row `[B]` of what `ids_BL` cost in nats after the hidden states `h_BLD`."""
    bias = jnp.zeros(table.input.shape[0]) if table.bias is None else table.bias

    def row(xs):
        h_LD, ids_L, weights_L = xs
        return chunked_cross_entropy(
            h_LD, table.output_rows, bias, ids_L, weights_L,
            num_valid=table.num_valid, softcap=softcap, chunk=min(len(ids_L), 1024), dtype=dtype,
        )  # fmt: skip

    return jax.lax.map(row, (h_BLD, ids_BL, weights_BL))


def window_nats(
    graphdef, params, table: EmbeddingTable, bos_row, encoded: EncodedWindows, *, batch_size=32, dtype=jnp.float32, multiple=64
) -> np.ndarray:
    """Nats that the model (body `graphdef`, `params` with `table`) needs for each window: `[N]` float64."""
    # Windows of similar length share a batch, cut to the longest of them in multiples of `multiple`: padding costs time.
    order = np.argsort(encoded.lengths, kind="stable")
    nats = np.empty(len(order))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        longest = -(-max(int(encoded.lengths[rows].max()), 1) // multiple) * multiple
        short = batch_size - len(rows)
        ids = np.pad(encoded.ids[rows, :longest], ((0, short), (0, 0)))
        lengths = np.pad(encoded.lengths[rows], (0, short))
        nats[rows] = np.asarray(_nll(graphdef, params, table, bos_row, ids, lengths, dtype))[: len(rows)]
    return nats


def bits_per_byte(
    graphdef, params, table: EmbeddingTable, bos_row, encoded: EncodedWindows, *, batch_size=32, dtype=jnp.float32
) -> float:
    """Bits that the model (body `graphdef`, `params` with `table`) needs per byte of the windows."""
    nats = window_nats(graphdef, params, table, bos_row, encoded, batch_size=batch_size, dtype=dtype)
    return float(nats.sum()) / math.log(2) / encoded.total_bytes
