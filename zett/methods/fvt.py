"""Fast vocabulary transfer (Gee et al., 2022): new tokens get the mean of their pieces' rows."""

import numpy as np

from zett.methods.common import build_table, column_means
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, Vocabulary


def fvt(
    source_table: EmbeddingTable, source: Vocabulary, target: Vocabulary, forms: SurfaceForms, *, seed: int = 0
) -> EmbeddingTable:
    """The mean of the rows of a token's source pieces; of all source rows if none is a source token. `seed` is not used."""

    def new_rows(rows):
        mean = column_means(rows)

        def rows_of(some: SurfaceForms):
            total = np.zeros((len(some), rows.shape[1]), np.float32)
            count = np.zeros(len(some), np.float32)
            lengths = np.where(some.same < 0, some.lengths, 0)  # shared tokens keep their rows
            for s in range(lengths.max(initial=0)):  # one piece at a time: [V, S, D] would not fit
                # Ids from the source's size on are bytes that the source lacks, and have no rows.
                usable = np.flatnonzero((lengths > s) & (some.pieces[:, s] < len(source)))
                total[usable] += rows[some.pieces[usable, s]]
                count[usable] += 1
            total /= np.maximum(count, 1)[:, None]
            total[count == 0] = mean
            return total

        return rows_of

    return build_table(source_table, source, forms, new_rows)
