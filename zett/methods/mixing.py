"""Methods whose new rows are weighted sums of source rows: what they say of a token, and what becomes of it."""

import dataclasses
from collections.abc import Callable

import numpy as np

from zett import progress
from zett.lms.base import BaseModel
from zett.methods.common import CHUNK, MAX_PIECES
from zett.methods.fvt import FVT
from zett.table import EmbeddingTable
from zett.vocab import SurfaceForms, Vocabulary, surface_forms

WEIGHTS = 2**25  # the most weights that are made at a time, where each new token has one for every shared token
COLUMNS = 512  # of many source rows, what is made float32 at a time


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Weighted sums of source rows, one for each of some new tokens.

    weights: `[n, m]` float32; all 0 for a token of which the method knows nothing. ids: of the source rows, `[n, m]`, or `[m]`
    if all sums are of the same rows.
    """

    ids: np.ndarray
    weights: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """`[n]`, whether a token has a weight at all."""
        return np.any(self.weights != 0, axis=1)

    def of(self, rows: np.ndarray) -> np.ndarray:
        """The sums `[n, D]` of `rows [V0, D]`, in float32."""
        if self.ids.ndim == 1:
            parts = (rows[self.ids, start : start + COLUMNS] for start in range(0, rows.shape[1], COLUMNS))
            return np.concatenate([self.weights @ part.astype(np.float32) for part in parts], 1)
        total = np.zeros((len(self.ids), rows.shape[1]), np.float32)
        for ids, weights in zip(self.ids.T, self.weights.T):  # one at a time, since [n, m, D] may not fit in memory
            total += weights[:, None] * rows[ids].astype(np.float32)
        return total


Weigh = Callable[[np.ndarray], Mixture]  # the sums for some target ids


def mixed_table(
    base: BaseModel, target: Vocabulary, weigh: Weigh, weigh_output: Weigh | None = None, *, chunk: int = CHUNK,
    summed: EmbeddingTable | None = None, untie: bool = False,
) -> EmbeddingTable:  # fmt: skip
    """The target's table, in the dtype of the base's: shared tokens keep their rows, new ones get those that `weigh` says.

    New tokens of which it knows nothing get FVT's rows, so that no method is worse than FVT for want of help. weigh_output: of
    output rows and bias, if it is not the same; a tied model's rows are those of `weigh`. chunk: new tokens at a time.
    summed: the rows that sums are made of, if not the base's own. untie: give a tied model output rows of their own, which are
    sums of its input rows.
    """
    table, size, summed = FVT()(base, target), len(base.vocab), summed or base.table
    new = new_tokens(base, target)
    if untie and table.output is None:
        table = EmbeddingTable.of(table.input, np.array(table.input), table.bias)

    def put(made, source, ids: np.ndarray, mixture: Mixture) -> None:
        if made is not None:
            source, known = np.asarray(source)[:size], mixture.known
            rows = mixture.of(source.reshape(size, -1))[known]
            made[ids[known]] = rows.reshape(-1, *source.shape[1:])

    with progress.bar(len(new), "rows", "row") as advance:
        for start in range(0, len(new), chunk):
            ids = new[start : start + chunk]
            mixture = weigh(ids)
            put(table.input, summed.input, ids, mixture)
            if weigh_output is not None and not (table.output is None and table.bias is None):
                mixture = weigh_output(ids)
            put(table.output, summed.output_rows, ids, mixture)
            put(table.bias, summed.bias, ids, mixture)
            advance(len(ids))
    return table


def usable_pieces(forms: SurfaceForms, size: int) -> np.ndarray:
    """`[V, S]`, which pieces there are that have a row: ids from the source's `size` on are bytes that it lacks."""
    return (np.arange(forms.pieces.shape[1]) < forms.lengths[:, None]) & (forms.pieces < size)


def piece_mixture(forms: SurfaceForms, weights: np.ndarray) -> Mixture:
    """Of the pieces of `forms` by `weights [V, S]`, which are scaled to sum up to 1."""
    weights = weights.astype(np.float64)
    total = weights.sum(1, keepdims=True)
    scaled = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    most = max(int(forms.lengths.max(initial=1)), 1)
    return Mixture(np.where(scaled > 0, forms.pieces, 0)[:, :most], scaled[:, :most].astype(np.float32))


def new_tokens(base: BaseModel, target: Vocabulary) -> np.ndarray:
    """Ids of the target tokens that are not the source's, and have no partner among its special tokens."""
    return np.flatnonzero(surface_forms(target, base.vocab, MAX_PIECES).same < 0)


def shared_tokens(base: BaseModel, target: Vocabulary) -> tuple[np.ndarray, np.ndarray]:
    """Tokens with the same bytes in both: their ids in the target and in the source, each source token once.

    Special tokens are left out: they stand for no text, and share a row for what they do.
    """
    same = surface_forms(target, base.vocab, MAX_PIECES).same
    ids = np.flatnonzero((same >= 0) & (target.byte_lengths > 0))
    source, first = np.unique(same[ids], return_index=True)
    return ids[first], source


def part_of(weights_each: int) -> int:
    """How many new tokens to take at a time where each has so many weights."""
    return max(min(WEIGHTS // max(weights_each, 1), CHUNK), 16)
