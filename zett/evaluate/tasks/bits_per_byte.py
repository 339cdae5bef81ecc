"""Bits per byte of text, with equal context in bytes for every tokenizer."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.evaluate.tasks.encoded import batches, encode_items, nats_of, padded_table, rounded_up
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
        return self.token_bits(model, items).sum(1)

    def token_bits(self, model: BaseModel, items: Items) -> np.ndarray:
        """What each token of the texts costs: `[N, L]` float64, 0 where a text has no token; tokens as of `encode_items`."""
        encoded, table = encode_items(items, model.vocab), padded_table(model.table)
        nats = np.zeros_like(encoded.ids, np.float64)
        for rows in batches(encoded.lengths, self.batch_size):
            short, width = self.batch_size - len(rows), rounded_up(encoded.lengths[rows])
            ids = np.pad(encoded.ids[rows, :width], ((0, short), (0, 0)))
            found = _nats(model.graphdef, model.params, table, model.bos_row, ids, self.dtype)
            nats[rows, :width] = np.asarray(found)[: len(rows)]
        return np.where(np.arange(encoded.ids.shape[1]) < encoded.lengths[:, None], nats, 0) / math.log(2)


@functools.partial(jax.jit, static_argnames=("graphdef", "dtype"))
def _nats(graphdef, params, table: EmbeddingTable, bos_row, ids_BL, dtype):
    """Of each token `[B, L]`."""
    body = nnx.merge(graphdef, params)
    # The base model's own bos row opens every text, whether or not the target tokenizer has a bos token.
    first = jnp.broadcast_to(bos_row, (ids_BL.shape[0], 1, bos_row.shape[-1]))
    h_BLD = body(jnp.concatenate([first, table.embed(ids_BL[:, :-1])], 1).astype(jnp.float32))
    return nats_of(h_BLD, table, ids_BL, softcap=body.config.logit_softcap, dtype=dtype)
