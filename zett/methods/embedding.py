"""Texts embedded by a language model: the mean of its last hidden states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from zett import progress
from zett.errors import UserError
from zett.lms.base import BaseModel, load_base_model
from zett.lms.body import Body
from zett.lms.pooling import pool

BATCH = 256
LONGEST = 64  # tokens of a text; the rest is cut off
WIDTHS = (4, 8, 16, 32, LONGEST)  # of a batch, so that few shapes are compiled


def load_embedder(embedder: str, method: str) -> BaseModel:
    """UserError for a model whose body is not computed here."""
    try:
        with progress.phase(f"reading the embedder {embedder}"):
            return load_base_model(embedder)
    except UserError as error:
        raise UserError(f"method {method}: embedder: {error}") from None


def embed_texts(model: BaseModel, texts: list[str], what: str) -> np.ndarray:
    """`[n, D]` float32, with what the model's tokenizer puts around a text. Equal texts are computed once."""
    distinct = sorted(set(texts))
    encoded = [x.ids[:LONGEST] for x in model.vocab.tokenizer.encode_batch_fast(distinct, add_special_tokens=True)]
    order = np.argsort([len(ids) for ids in encoded], kind="stable")
    body, table = Body(model.graphdef, model.params), jnp.asarray(model.table.input, jnp.float32)
    out = np.zeros((len(distinct), table.shape[1]), np.float32)
    with progress.bar(len(distinct), what, "text") as advance:
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            width = next(w for w in WIDTHS if w >= max(len(encoded[i]) for i in rows))
            ids, mask = np.zeros((BATCH, width), np.int32), np.zeros((BATCH, width), np.bool_)
            for line, i in enumerate(rows):
                ids[line, : len(encoded[i])], mask[line, : len(encoded[i])] = encoded[i], True
            out[rows] = np.asarray(_embedded(body, table, ids, mask))[: len(rows)]
            advance(len(rows))
    place = {text: i for i, text in enumerate(distinct)}
    return out[[place[text] for text in texts]]


@functools.partial(jax.jit)
def _embedded(body: Body, table_VD, ids_BL, mask_BL):
    _, hidden = body(table_VD[ids_BL], mask_BL=mask_BL, keep_hidden=True)  # before an encoder's head, if it has one
    return pool(hidden[-1], mask_BL, "mean")
