"""Bits per byte of text, with equal context in bytes for every tokenizer."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.evaluate.tasks.encoded import batches, encode_items, padded_table, rounded_up, row_nats
from zett.evaluate.tasks.items import Items
from zett.lms.base import BaseModel, check_causal
from zett.table import EmbeddingTable


class BitsPerByte:
    """Score: the bits that a causal model needs for a text; weight: the bytes of the text."""

    name, unit, lower_is_better = "bits_per_byte", "bits per byte", True

    def __init__(self, *, dtype: Any = jnp.float32, batch_size: int = 32):
        self.dtype, self.batch_size = jnp.dtype(dtype), batch_size

    def items(self, base: BaseModel, texts: Sequence[str]) -> Items:
        check_causal(base)
        return Items(tuple(texts), np.asarray([len(text.encode()) for text in texts], np.float64))

    def score(self, model: BaseModel, items: Items) -> np.ndarray:
        encoded, table = encode_items(items, model.vocab), padded_table(model.table)
        nats = np.empty(len(items))
        for rows in batches(encoded.lengths, self.batch_size):
            short = self.batch_size - len(rows)
            ids = np.pad(encoded.ids[rows, : rounded_up(encoded.lengths[rows])], ((0, short), (0, 0)))
            lengths = np.pad(encoded.lengths[rows], (0, short))
            found = _nats(model.graphdef, model.params, table, model.bos_row, ids, lengths, self.dtype)
            nats[rows] = np.asarray(found)[: len(rows)]
        return nats / math.log(2)


@functools.partial(jax.jit, static_argnames=("graphdef", "dtype"))
def _nats(graphdef, params, table: EmbeddingTable, bos_row, ids_BL, lengths_B, dtype):
    """Of each text `[B]`."""
    body = nnx.merge(graphdef, params)
    # The base model's own bos row opens every text, whether or not the target tokenizer has a bos token.
    first = jnp.broadcast_to(bos_row, (ids_BL.shape[0], 1, bos_row.shape[-1]))
    h_BLD = body(jnp.concatenate([first, table.embed(ids_BL[:, :-1])], 1).astype(jnp.float32))
    weights_BL = (jnp.arange(ids_BL.shape[1]) < lengths_B[:, None]).astype(jnp.float32)
    return row_nats(h_BLD, table, ids_BL, weights_BL, softcap=body.config.logit_softcap, dtype=dtype)
