"""New tokens get the mean of all source rows."""

import dataclasses
from typing import ClassVar

import numpy as np

from zett.lms.base import BaseModel
from zett.methods.common import build_table, column_means
from zett.methods.method import Method
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary


@dataclasses.dataclass(frozen=True)
class Mean(Method):
    """The mean of all source rows, the same for every new token."""

    baseline: ClassVar[bool] = True
    per_layer: ClassVar[bool] = True

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used."""

        def new_rows(rows):
            mean = column_means(rows)
            return lambda some: np.tile(mean, (len(some), 1))

        return build_table(base, target, new_rows)
