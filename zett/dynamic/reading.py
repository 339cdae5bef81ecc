"""A model that reads merged tokens: their input rows come beside its own, and what it writes stays its own vocabulary."""

import dataclasses
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from zett.dynamic.merging import LEAST, MOST_PIECES, Merged, merge, read_texts
from zett.generate import Stop, check_stop, encode_prompt, generate_ids, until
from zett.lms.base import BaseModel, check_causal
from zett.methods.hypernet import HypernetMethod
from zett.methods.method import Method
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary
from zett.vocab.priors import rank_prior
from zett.vocab.prompts import around

# Rows of new tokens, such as the method `embed` of a hypernetwork makes.
Rows = Callable[[Sequence[bytes]], EmbeddingTable]


def rows_by(method: Method, base: BaseModel) -> Rows:
    """What makes the rows of new tokens by a method, for `base`."""
    if isinstance(method, HypernetMethod):
        return method.embedder(base)

    def rows(tokens: Sequence[bytes]) -> EmbeddingTable:
        vocab = Vocabulary(tuple(tokens), {}, {}, rank_prior(tokens), "merged tokens", (), None)
        return method(base, vocab)

    return rows


def merge_texts(
    model: BaseModel, texts: str | Sequence[str], number: int | None = None, *, reduction: float | None = None,
    across: bool = False, least: int = LEAST, most_pieces: int = MOST_PIECES,
) -> Merged:  # fmt: skip
    """Texts as `model` reads them, in fewer tokens: see `merge`, and for `across` `read_texts`.

    A causal model gets what its tokenizer puts before a text, an encoder also what it puts after it. UserError.
    """
    before, after = around(model.vocab)
    batch = read_texts(
        model.vocab,
        [texts] if isinstance(texts, str) else texts,
        before=before,
        after=() if model.causal else after,
        across=across,
    )
    return merge(batch, number, reduction=reduction, least=least, most_pieces=most_pieces)


def reading_merged(model: BaseModel, tokens: Sequence[bytes], rows: Rows) -> BaseModel:
    """The model with input rows for `tokens` after its own, `[V + N, D]`. What it writes are the V tokens of its vocabulary."""
    table, number = model.table, len(tokens)
    if not number:
        return model

    def longer(own):
        return None if own is None else jnp.pad(jnp.asarray(own), ((0, number),) + ((0, 0),) * (np.ndim(own) - 1))

    own = jnp.asarray(table.input)
    both = jnp.concatenate([own, jnp.asarray(rows(tokens).input, own.dtype)])
    new = EmbeddingTable(both, longer(table.output_rows), longer(table.bias), np.int32(len(model.vocab)))
    return dataclasses.replace(model, table=new)


def merged_inputs(model: BaseModel, merged: Merged, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """What the body reads for merged texts: `x [B, L', D]` float32, and which positions are in use, `[B, L']` bool."""
    size, own = len(model.vocab), np.asarray(model.table.input)
    x_BLD = own[np.minimum(merged.ids, size - 1)].astype(np.float32)
    if merged.tokens:
        new = merged.ids >= size
        x_BLD[new] = np.asarray(rows(merged.tokens).input)[merged.ids[new] - size]
    mask_BL = np.arange(merged.ids.shape[1]) < merged.lengths[:, None]
    return np.where(mask_BL[..., None], x_BLD, 0), mask_BL


def generate_merged(
    model: BaseModel, prompt: str, rows: Rows, number: int | None = None, *, reduction: float | None = None,
    across: bool = False, least: int = LEAST, max_tokens: int = 128, temperature: float = 0.0, seed: int = 0,
    stop: Stop | None = None,
) -> str:  # fmt: skip
    """What the model writes after `prompt`, as `zett.generate` does; it reads the prompt in merged tokens, see `merge_texts`.

    rows: what makes the new tokens' rows, such as the `embed` of a hypernetwork. UserError.
    """
    check_causal(model)
    check_stop(stop)
    before = encode_prompt(model.vocab, prompt)
    merged = merge_texts(model, prompt, number, reduction=reduction, across=across, least=least)
    ids = merged.ids[0, : merged.lengths[0]].tolist() if merged.merges else before
    reader = reading_merged(model, merged.tokens, rows)
    tokens = generate_ids(reader, ids, max_tokens=max_tokens, temperature=temperature, seed=seed)
    return until(model, before, tokens, stop)
