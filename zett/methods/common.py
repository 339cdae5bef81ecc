"""What the training-free methods share."""

from collections.abc import Callable

import numpy as np

from zett.lms.base import BaseModel, added_output
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, Vocabulary, surface_forms

MAX_PIECES = 64  # enough for whole tokens
# Rows that are made at a time, since a float32 copy of a large model's whole table may not fit beside the table.
CHUNK = 4096


def build_table(
    base: BaseModel, target: Vocabulary, new_rows: Callable[[np.ndarray], Callable[[SurfaceForms], np.ndarray]]
) -> EmbeddingTable:
    """The target's table, in the dtype of the base's; shared tokens keep their own rows.

    `new_rows` gets the source rows `[V0, D]` and returns a function that makes the rows `[n, D]`, float32, of some of the
    target's forms; it is called with one part of the forms after another. Source rows beyond the source tokenizer's ids are
    padding, and `new_rows` does not get them. It is called for input rows, for output rows, and for a bias as `[V0, 1]`.
    """
    forms = surface_forms(target, base.vocab, MAX_PIECES)

    def build(rows):
        if rows is None:
            return None
        rows = np.asarray(rows)[: len(base.vocab)]
        columns = rows.reshape(len(rows), -1)
        rows_of = new_rows(columns)
        table = np.empty((len(forms), columns.shape[1]), rows.dtype)
        for start in range(0, len(forms), CHUNK):
            some = forms.take(np.arange(start, min(start + CHUNK, len(forms))))
            new = rows_of(some)
            shared = some.same >= 0
            new[shared] = columns[some.same[shared]]
            table[start : start + CHUNK] = new
        return table.reshape(-1, *rows.shape[1:])

    return EmbeddingTable.of(build(base.table.input), build(base.table.output), build(base.table.bias))


def check_untie(base: BaseModel, untie: bool) -> None:
    """UserError if a method is to give output rows to a tied model that cannot get any."""
    if untie and base.table.output is None:
        added_output(base)


def column_means(rows: np.ndarray, around: np.ndarray | None = None) -> np.ndarray:
    """Mean of each column of `rows [V, D]`, or of its squared distance to `around [D]`: `[D]` float32."""
    total = np.zeros(rows.shape[1])
    for start in range(0, len(rows), CHUNK):
        some = rows[start : start + CHUNK].astype(np.float32)
        total += (some if around is None else np.square(some - around)).sum(0, dtype=np.float64)
    return (total / len(rows)).astype(np.float32)
