"""Fast vocabulary transfer (Gee et al., 2022): new tokens get the mean of their pieces' rows."""

import dataclasses
from typing import ClassVar

import numpy as np

from zett.lms.base import BaseModel
from zett.methods.common import build_table, column_means
from zett.methods.method import Method
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, Vocabulary


@dataclasses.dataclass(frozen=True)
class FVT(Method):
    """The mean of the rows of a token's source pieces, or of all source rows if no piece has a row."""

    baseline: ClassVar[bool] = True
    per_layer: ClassVar[bool] = True

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used."""
        size = len(base.vocab)

        def new_rows(rows):
            mean = column_means(rows)

            def rows_of(some: SurfaceForms):
                total = np.zeros((len(some), rows.shape[1]), np.float32)
                count = np.zeros(len(some), np.float32)
                lengths = np.where(some.same < 0, some.lengths, 0)  # shared tokens keep their rows
                for s in range(lengths.max(initial=0)):  # one piece at a time, since [V, S, D] may not fit in memory
                    # Ids from the source's size on are bytes that the source lacks, and have no rows.
                    usable = np.flatnonzero((lengths > s) & (some.pieces[:, s] < size))
                    total[usable] += rows[some.pieces[usable, s]]
                    count[usable] += 1
                total /= np.maximum(count, 1)[:, None]
                total[count == 0] = mean
                return total

            return rows_of

        return build_table(base, target, new_rows)
