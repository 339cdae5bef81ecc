"""New tokens get random rows."""

import dataclasses
from typing import ClassVar

import numpy as np

from zett.lms.base import BaseModel
from zett.methods.common import build_table, column_means
from zett.methods.method import Method
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary


@dataclasses.dataclass(frozen=True)
class Random(Method):
    """Normal random rows with the source rows' mean and standard deviation, column by column."""

    baseline: ClassVar[bool] = True
    per_layer: ClassVar[bool] = True

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        rng = np.random.default_rng(seed)

        def new_rows(rows):
            mean = column_means(rows)
            deviation = np.sqrt(column_means(rows, around=mean))
            return lambda some: mean + deviation * rng.standard_normal((len(some), rows.shape[1]), dtype=np.float32)

        return build_table(base, target, new_rows)
