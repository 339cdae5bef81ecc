"""Models with a second table that has a part for each layer (Gemma 3n, Gemma 4): its rows are made as the input rows are."""

import dataclasses

import numpy as np

from zett.errors import UserError
from zett.files.tensors import stored_tensors
from zett.lms.base import BaseModel
from zett.lms.unported import per_layer_rows
from zett.methods import Method, spec_of
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary


def check_method(method: Method, base: BaseModel) -> None:
    """UserError if the method cannot be used with `base`, or makes no rows of a table for each layer that `base` has."""
    method.check(base)
    if base.names.per_layer and not method.per_layer:
        raise UserError(
            f"{base.name} has a table for each layer ({base.names.per_layer[0]}), of which the method {spec_of(method)} makes "
            "no rows; take one that mixes rows, such as fvt"
        )


def rows_per_layer(method: Method, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> np.ndarray | None:
    """The target's rows `[V, L * P]` of the table for each layer; None if `base` has no such table."""
    if not base.names.per_layer:
        return None
    rows = per_layer_rows(stored_tensors(base.folder), base.names, len(base.vocab))
    return np.asarray(method(dataclasses.replace(base, table=EmbeddingTable.of(rows)), target, seed=seed).input)
