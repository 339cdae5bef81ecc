"""Texts in the tokens of a vocabulary, padded to few shapes, and what they cost a model."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from zett.evaluate.tasks.items import Items
from zett.losses import token_nats
from zett.table import EmbeddingTable, few_sizes
from zett.vocab import Vocabulary

MULTIPLE = 64  # tokens: lengths are rounded up to it, so that few shapes are compiled


@dataclasses.dataclass(frozen=True)
class EncodedTexts:
    """Token ids `[N, L]`, of which `lengths [N]` count."""

    ids: np.ndarray
    lengths: np.ndarray

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())


@functools.lru_cache(maxsize=32)
def encode_items(items: Items, vocab: Vocabulary) -> EncodedTexts:
    """Without special tokens; kept for the methods that are measured with one vocabulary after another."""
    encoded = [vocab.tokenizer.encode(text, add_special_tokens=False).ids for text in items.texts]
    lengths = np.asarray([len(ids) for ids in encoded], np.int32)
    ids = np.zeros((len(encoded), rounded_up(lengths)), np.int32)
    for row, tokens in zip(ids, encoded):
        row[: len(tokens)] = tokens
    return EncodedTexts(ids, lengths)


def rounded_up(lengths: np.ndarray) -> int:
    """The longest, in multiples of MULTIPLE."""
    return -(-max(int(lengths.max(initial=0)), 1) // MULTIPLE) * MULTIPLE


def batches(lengths: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Numbers of texts, those of similar length together: a batch is cut to its longest text, and padding costs time."""
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def padded_table(table: EmbeddingTable) -> EmbeddingTable:
    """In float32, padded to few sizes, so that a handful of shapes is compiled for all vocabularies."""
    table = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) if jnp.ndim(x) else x, table)
    return table.pad(few_sizes(len(table.input)))


def nats_of(h_BLD, table: EmbeddingTable, ids_BL, *, softcap, dtype):
    """What each of `ids_BL` costs in nats after the hidden states `h_BLD`: `[B, L]`."""
    bias = jnp.zeros(table.input.shape[0]) if table.bias is None else table.bias

    def row(xs):
        h_LD, ids_L = xs
        return token_nats(
            h_LD[None], table.output_rows, bias, ids_L[None],
            num_valid=table.num_valid, softcap=softcap, chunk=min(len(ids_L), 1024), dtype=dtype,
        )[0]  # fmt: skip

    return jax.lax.map(row, (h_BLD, ids_BL))
