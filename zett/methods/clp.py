"""CLP-Transfer (Ostendorff and Rehm, arXiv 2301.09626): a helper model in the target language says which tokens are alike."""

import dataclasses
from typing import ClassVar

import numpy as np

from zett.lms.base import BaseModel
from zett.methods.donor import DonorMethod, check_finite, check_knows, donor_ids, shared_by_all
from zett.methods.mixing import Mixture, Weigh, mixed_table, new_tokens, part_of
from zett.methods.similarity import unit
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary

LEAST = 32  # shared tokens
CANCELLED = 0.01  # of the similarities' sizes: if their sum is less, they say nothing


@dataclasses.dataclass(frozen=True)
class CLP(DonorMethod):
    """The mean of all shared tokens' rows, by the cosine similarity of a donor's rows. arXiv 2301.09626.

    donor: a model that was trained with the target tokenizer: a folder, a GGUF file or a Hub name. It may be smaller than the
    base model. Output rows are made by the similarities of the donor's output rows.
    """

    name: ClassVar[str] = "clp"

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        """`seed` is not used."""
        donor, ids = self._donor, donor_ids(self._donor, target)
        check_knows(donor, ids, new_tokens(base, target))
        theirs, ours = shared_by_all(base, target, donor, ids, self.name, least=LEAST)
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
