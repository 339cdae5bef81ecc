"""Pieces with weights: the earlier a piece, the more it decides whether the token is predicted."""

import dataclasses
from typing import ClassVar, Literal

import numpy as np

from zett.errors import UserError
from zett.lms.base import BaseModel
from zett.methods.common import MAX_PIECES, check_untie
from zett.methods.method import Method
from zett.methods.mixing import mixed_table, piece_mixture, usable_pieces
from zett.table import EmbeddingTable
from zett.values import Within
from zett.vocab import Vocabulary, surface_forms

DECAY = Within(0, 1, above=True)


@dataclasses.dataclass(frozen=True)
class Weighted(Method):
    """Output rows: the pieces' mean with weights 1, 1/2, 1/4, ...; input rows: their mean, or the last's.

    input: "mean" or "last". decay: the weight of a piece over that of the one before it; 1 is the mean. Where both are one
    table (tied), rows are the input rows; untie: two tables are made of it. Used for draft models of speculative decoding.
    """

    input: Literal["mean", "last"] = "mean"
    decay: float = 0.5
    untie: bool = False

    baseline: ClassVar[bool] = True
    per_layer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.decay not in DECAY:
            raise UserError(f"method weighted: decay is {self.decay}; it has to be {DECAY}")

    def check(self, base: BaseModel) -> None:
        check_untie(base, self.untie)

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used."""
        forms, size = surface_forms(target, base.vocab, MAX_PIECES), len(base.vocab)

        def weigh_input(ids: np.ndarray):
            some = forms.take(ids)
            usable = usable_pieces(some, size)
            left = usable[:, ::-1].cumsum(1)[:, ::-1]  # usable pieces from here on
            return piece_mixture(some, usable if self.input == "mean" else usable & (left == 1))

        def weigh_output(ids: np.ndarray):
            some = forms.take(ids)
            usable = usable_pieces(some, size)
            before = usable.cumsum(1) - 1
            return piece_mixture(some, np.where(usable, self.decay ** np.maximum(before, 0), 0.0))

        return mixed_table(base, target, weigh_input, weigh_output, untie=self.untie)
