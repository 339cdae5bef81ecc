"""Rows beyond a tokenizer.

Clients compute logits of them like those of any others. Zeros would have the logit 0, which is a large one where most are below
it. The logit of the mean row, with the mean bias, is the mean of all logits, so that (exp being convex) it has at most the
chance of an average token, 1 in the size of the vocabulary, after any text; unless the model caps its logits.
"""

import dataclasses

import numpy as np

from zett.table import EmbeddingTable


def padding_row(rows: np.ndarray) -> np.ndarray:
    """The mean of all `rows [V, ...]`."""
    total = sum(rows[i : i + 4096].sum(0, dtype=np.float32).astype(np.float64) for i in range(0, len(rows), 4096))
    return np.asarray(total / len(rows))


def with_padding(table: EmbeddingTable, rows: int) -> EmbeddingTable:
    """The table, on the host, with padding up to `rows`."""
    size = int(table.num_valid)

    def grow(values):
        if values is None:
            return None
        own = np.asarray(values[:size])
        return np.concatenate([own, np.broadcast_to(padding_row(own).astype(own.dtype), (rows - size, *own.shape[1:]))])

    if rows == size:
        return table
    return dataclasses.replace(table, input=grow(table.input), output=grow(table.output), bias=grow(table.bias))
