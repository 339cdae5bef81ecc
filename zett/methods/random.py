"""New tokens get random rows."""

import numpy as np

from zett.methods.common import build_table
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, Vocabulary


def random(
    source_table: EmbeddingTable, source: Vocabulary, target: Vocabulary, forms: SurfaceForms, *, seed: int = 0
) -> EmbeddingTable:
    """Normal rows with the source rows' mean and standard deviation, column by column."""
    rng = np.random.default_rng(seed)

    def new_rows(rows):
        noise = rng.standard_normal((len(target), rows.shape[1]), dtype=np.float32)
        return rows.mean(0) + rows.std(0) * noise

    return build_table(source_table, source, forms, new_rows)
