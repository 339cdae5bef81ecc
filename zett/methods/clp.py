"""CLP-Transfer (Ostendorff and Rehm, arXiv 2301.09626): a helper model in the target language says which tokens are alike."""

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar

import numpy as np

from zett.lms.base import BaseModel
from zett.methods.donor import check_finite, check_given, check_knows, donor_ids, load_donor, shared_by_all
from zett.methods.method import Method
from zett.methods.mixing import Mixture, Weigh, mixed_table, new_tokens, part_of
from zett.methods.similarity import unit
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary

LEAST = 32  # shared tokens
CANCELLED = 0.01  # of the similarities' sizes: if their sum is less, they say nothing


@dataclasses.dataclass(frozen=True)
class CLP(Method):
    """The mean of all shared tokens' rows, by the cosine similarity of a donor's rows. arXiv 2301.09626.

    donor: a model that was trained with the target tokenizer: a folder, a GGUF file or a Hub name. It may be smaller than the
    base model. Output rows are made by the similarities of the donor's output rows.
    """

    donor: str | None = None

    needs: ClassVar[str] = "a model that was trained with the target tokenizer"
    first: ClassVar[str] = "donor"

    def precheck(self, model: str | Path) -> None:
        check_given(self.donor, "clp")

    def check(self, base: BaseModel) -> None:
        """UserError if the donor cannot be read."""
        self._donor  # noqa: B018

    def inputs(self) -> tuple[str, ...]:
        return (self.donor,) if self.donor else ()

    @functools.cached_property
    def _donor(self) -> BaseModel:
        return load_donor(self.donor, "clp")

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used."""
        donor, ids = self._donor, donor_ids(self._donor, target)
        check_knows(donor, ids, new_tokens(base, target))
        theirs, ours = shared_by_all(base, target, donor, ids, "clp", least=LEAST)
        output = donor.table.output if base.table.output is not None else None
        weigh = _weigher(donor, donor.table.input, theirs, ours, ids)
        weigh_output = None if output is None else _weigher(donor, output, theirs, ours, ids)
        return mixed_table(base, target, weigh, weigh_output, chunk=part_of(len(ours)))


def _weigher(donor: BaseModel, rows, theirs: np.ndarray, ours: np.ndarray, ids: np.ndarray) -> Weigh:
    """The sums for target ids. rows: the donor's; theirs, ours: shared tokens in donor and base; ids: the donor's by target."""
    rows = np.asarray(rows)
    shared = unit(rows[theirs])
    check_finite(donor, shared)

    def weigh(some: np.ndarray) -> Mixture:
        similar = unit(rows[np.maximum(ids[some], 0)]) @ shared.T
        check_finite(donor, similar)
        total, size = similar.sum(1), np.abs(similar).sum(1)
        known = (ids[some] >= 0) & (np.abs(total) > CANCELLED * size)
        return Mixture(ours, np.divide(similar, total[:, None], out=np.zeros_like(similar), where=known[:, None]))

    return weigh
