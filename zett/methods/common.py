"""What the training-free methods share."""

from collections.abc import Callable

import numpy as np

from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, Vocabulary


def build_table(
    source_table: EmbeddingTable, source: Vocabulary, forms: SurfaceForms, new_rows: Callable[[np.ndarray], np.ndarray]
) -> EmbeddingTable:
    """The target's table: `new_rows` of the source rows `[V0, D]` gives `[V, D]`, in which shared tokens keep their own rows.

    Rows beyond the source tokenizer are padding; `new_rows` does not see them. A bias is passed as `[V0, 1]`.
    """
    shared = forms.same >= 0

    def build(rows):
        if rows is None:
            return None
        rows = np.asarray(rows).astype(np.float32)[: len(source)]
        columns = rows.reshape(len(rows), -1)
        new = new_rows(columns).astype(np.float32)
        new[shared] = columns[forms.same[shared]]
        return new.reshape(-1, *rows.shape[1:])

    return EmbeddingTable.of(build(source_table.input), build(source_table.output), build(source_table.bias))
