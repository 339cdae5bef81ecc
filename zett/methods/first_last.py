"""First and last piece: what a model reads last is what it is about, and what it predicts first decides."""

import dataclasses
from typing import ClassVar

import numpy as np

from zett.lms.base import BaseModel
from zett.methods.common import MAX_PIECES, check_untie
from zett.methods.method import Method
from zett.methods.mixing import mixed_table, piece_mixture, usable_pieces
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary, surface_forms


@dataclasses.dataclass(frozen=True)
class FirstLast(Method):
    """The input row of a token's last source piece, the output row of its first.

    Where both are one table (tied), rows are those of the last piece; untie: two tables are made of it. Used for draft models
    of speculative decoding, and in mergekit's tokensurgeon.
    """

    untie: bool = False

    baseline: ClassVar[bool] = True
    per_layer: ClassVar[bool] = True

    def check(self, base: BaseModel) -> None:
        check_untie(base, self.untie)

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used."""
        forms, size = surface_forms(target, base.vocab, MAX_PIECES), len(base.vocab)

        def weigh_input(ids: np.ndarray):
            some = forms.take(ids)
            usable = usable_pieces(some, size)
            at = usable.shape[1] - 1 - usable[:, ::-1].argmax(1)
            return piece_mixture(some, usable & (np.arange(usable.shape[1]) == at[:, None]))

        def weigh_output(ids: np.ndarray):
            some = forms.take(ids)
            usable = usable_pieces(some, size)
            return piece_mixture(some, usable & (np.arange(usable.shape[1]) == usable.argmax(1)[:, None]))

        return mixed_table(base, target, weigh_input, weigh_output, untie=self.untie)
