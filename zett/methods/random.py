"""New tokens get random rows."""

import numpy as np

from zett.methods.common import build_table, column_means
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, Vocabulary


def random(
    source_table: EmbeddingTable, source: Vocabulary, target: Vocabulary, forms: SurfaceForms, *, seed: int = 0
) -> EmbeddingTable:
    """Normal rows with the source rows' mean and standard deviation, column by column."""
    rng = np.random.default_rng(seed)

    def new_rows(rows):
        mean = column_means(rows)
        deviation = np.sqrt(column_means(rows, around=mean))
        return lambda some: mean + deviation * rng.standard_normal((len(some), rows.shape[1]), dtype=np.float32)

    return build_table(source_table, source, forms, new_rows)
