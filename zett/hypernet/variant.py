"""Rows for a variant of the model that a hypernetwork was trained for, where both are at hand: three ways (zett.choices).

A fine-tuned model's rows have moved a little from the base's. The hypernetwork knows how the base's rows become those of other
tokens; how the move carries over to them is what the ways differ in. Special tokens always have the variant's own rows.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from zett.belongs import AnotherModel
from zett.hypernet.base_rows import ALIKE, SAME, BaseRows, Fit, how_alike, same_ids
from zett.hypernet.trained import TrainedHypernet
from zett.lms.base import BaseModel
from zett.methods.fvt import FVT
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary


def fit_of(model: BaseModel, base: BaseModel) -> Fit:
    """Whether `model` is `base` or a variant of it; AnotherModel (a UserError) if it is neither."""
    cosine = look_alike(model, base)
    return Fit(cosine >= SAME and model.fingerprint == base.fingerprint, cosine)


def look_alike(model: BaseModel, base: BaseModel) -> float:
    """Median cosine of some of their rows. AnotherModel if they are not alike, or for another shape or tokenizer."""
    what, shapes = f"{model.name} is no variant of {base.name}", [_shape(one.table) for one in (model, base)]
    if shapes[0] != shapes[1]:
        raise AnotherModel(what, f"it has {shapes[0]}, not {shapes[1]}")
    cosine = BaseRows.of(base.table).cosine(model.table)
    same, ids = same_ids(base.vocab.tokens, model.vocab.tokens)
    if not cosine >= ALIKE or same < ids:
        raise AnotherModel(what, how_alike(cosine, model.table.input.shape[1], same, ids))
    return cosine


def _shape(table: EmbeddingTable) -> str:
    return f"rows of width {table.input.shape[1]}, {'tied' if table.output is None else 'not tied'}"


def variant_table(
    trained: TrainedHypernet, model: BaseModel, base: BaseModel, target: Vocabulary, way: str, *,
    language: str | int | None = None, dtype=jnp.float32,
) -> EmbeddingTable:  # fmt: skip
    """The table of `target` for `model`, a variant of `base`; both have been checked. way: one of VARIANTS."""
    if way == "variant":
        return trained.table(model, target, language=language, dtype=dtype)
    mapped = dataclasses.replace(model, table=_under_ids_of(model, base))
    predicted = trained.table(mapped, target, language=language, dtype=dtype)
    # A token that both have moves as it did; another, as its pieces did on average.
    moves = FVT()(dataclasses.replace(model, table=_combined(np.subtract, model.table, mapped.table)), target)
    if predicted.output is not None:  # of a tied base it may be predicted apart: both move alike
        moves = dataclasses.replace(moves, output=moves.output_rows)
    if way == "base":
        text = np.asarray([bool(token) for token in target.tokens])
        moves = _by_side(lambda rows: np.where(text.reshape(-1, *[1] * (rows.ndim - 1)), 0, rows), moves)
    return _combined(np.add, predicted, moves)


def _under_ids_of(model: BaseModel, base: BaseModel) -> EmbeddingTable:
    """The base's rows by the variant's ids; ids that only the variant has, which are special tokens, have its own."""
    size = int(model.table.num_valid)
    shared = min(size, int(base.table.num_valid))
    return _by_side(lambda mine, theirs: np.concatenate([theirs[:shared], mine[shared:size]]), model.table, base.table)


def _combined(operation, one: EmbeddingTable, other: EmbeddingTable) -> EmbeddingTable:
    size = int(one.num_valid)
    return _by_side(lambda a, b: operation(a[:size], b[:size]), one, other)


def _by_side(function, *tables: EmbeddingTable) -> EmbeddingTable:
    """`function` of the tables' input rows, output rows and biases, in float32."""
    sides = zip(*((table.input, table.output, table.bias) for table in tables))
    made = (None if s[0] is None else function(*(np.asarray(x, np.float32) for x in s)) for s in sides)
    return EmbeddingTable.of(*made)
