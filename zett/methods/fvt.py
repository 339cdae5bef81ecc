"""Fast vocabulary transfer (Gee et al., 2022): new tokens get the mean of their pieces' rows."""

import numpy as np

from zett.methods.common import build_table
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, Vocabulary


def fvt(
    source_table: EmbeddingTable, source: Vocabulary, target: Vocabulary, forms: SurfaceForms, *, seed: int = 0
) -> EmbeddingTable:
    """The mean of the rows of a token's source pieces; of all source rows if none is a source token. `seed` is not used."""

    def new_rows(rows):
        total = np.zeros((len(target), rows.shape[1]), np.float32)
        count = np.zeros(len(target), np.float32)
        for s in range(forms.pieces.shape[1]):  # one piece at a time: [V, S, D] would not fit for large vocabularies
            # Ids from the source's size on are bytes that the source lacks, and have no rows.
            usable = np.flatnonzero((forms.lengths > s) & (forms.pieces[:, s] < len(source)))
            total[usable] += rows[forms.pieces[usable, s]]
            count[usable] += 1
        return np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], rows.mean(0))

    return build_table(source_table, source, forms, new_rows)
