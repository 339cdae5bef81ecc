"""Bits per byte on held-out text, with equal context in bytes for every tokenizer."""

import dataclasses
import functools
import math

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
    windows = []
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


def _cut(text: str, window: int) -> list[str]:
    pieces, current, size = [], [], 0
    for line in text.splitlines(keepends=True):
        length = len(line.encode("utf-8", "replace"))
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
    # Windows much shorter than asked for would measure little but the first tokens.
    return [p for p in pieces if len(p.encode()) >= window // 2]


@dataclasses.dataclass(frozen=True)
class EncodedWindows:
    """Windows as token ids `[N, L]` with lengths `[N]`; `total_bytes` is that of the text."""

    ids: np.ndarray
    lengths: np.ndarray
    total_bytes: int

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())


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
    body = nnx.merge(graphdef, params)
    # The base model's own bos row opens every window, whether or not the target tokenizer has a bos token.
    first = jnp.broadcast_to(bos_row, (ids_BL.shape[0], 1, bos_row.shape[-1]))
    h = body(jnp.concatenate([first, table.embed(ids_BL[:, :-1])], 1).astype(jnp.float32))
    weights = (jnp.arange(ids_BL.shape[1]) < lengths_B[:, None]).astype(jnp.float32)
    bias = jnp.zeros(table.input.shape[0]) if table.bias is None else table.bias
    return chunked_cross_entropy(
        h.reshape(-1, h.shape[-1]), table.output_rows, bias, ids_BL.reshape(-1), weights.reshape(-1),
        num_valid=table.num_valid, dtype=dtype,
    )  # fmt: skip


def bits_per_byte(
    graphdef, params, table: EmbeddingTable, bos_row, encoded: EncodedWindows, *, batch_size=32, dtype=jnp.float32
) -> float:
    """Bits that the model (body `graphdef`, `params` with `table`) needs per byte of the windows."""
    total = 0.0
    n = len(encoded.ids)
    for start in range(0, n, batch_size):
        rows = slice(start, start + batch_size)
        ids, lengths = encoded.ids[rows], encoded.lengths[rows]
        short = batch_size - len(ids)
        ids, lengths = np.pad(ids, ((0, short), (0, 0))), np.pad(lengths, (0, short))
        total += float(_nll(graphdef, params, table, bos_row, ids, lengths, dtype))
    return total / math.log(2) / encoded.total_bytes
