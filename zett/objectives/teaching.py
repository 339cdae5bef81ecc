"""The texts of a step as the original model, the teacher, reads them, in arrays of fixed shapes.

The teacher gets as many tokens of a text as the student (L). What it does not reach in these is not compared, nor is the end of
a text, which may be cut anywhere. Of K = L places, those in use come first.
"""

from collections.abc import Mapping

import numpy as np
from jax.sharding import PartitionSpec

from zett.mesh import BATCH
from zett.objectives.setting import Encoded
from zett.vocab.alignment import Aligned, Spelling, Teacher

PLACES: Mapping[str, PartitionSpec] = dict.fromkeys(("teacher_ids", "places", "place_weights"), BATCH)
CHUNKS: Mapping[str, PartitionSpec] = dict.fromkeys(
    ("teacher_ids", "chunk_of", "teacher_chunk_of", "chunk_weights"), BATCH
)  # fmt: skip


class TaughtTexts:
    """What a batch gets for objectives with a teacher; see `places` and `chunks`."""

    def __init__(self, teacher: Teacher, texts: Encoded):
        assert texts.spelled is not None and texts.spelling is not None  # given wherever there is a teacher
        self._spelling: Spelling = texts.spelling()
        self._own = Spelled(texts.spelled, texts.lengths, self._spelling)
        self._length = texts.ids.shape[1]
        self._found: Aligned = teacher.align(texts.spelled, texts.lengths, self._spelling)
        short = min(self._found.ids.shape[1], self._length)
        self.ids = np.zeros((len(texts.ids), self._length), np.int32)
        self.ids[:, :short] = self._found.ids[:, :short]
        self._theirs = Spelled(self.ids, np.minimum(self._found.lengths, self._length), teacher.spelling)
        pairs, room = self._found.places, np.arange(self._found.places.shape[1])
        reached = (pairs[..., 0] < texts.lengths[:, None]) & (pairs[..., 1] < self._length)
        self._used = (room < self._found.counts[:, None]) & reached

    def places(self) -> dict[str, np.ndarray]:
        """ "places" `[B, K, 2]`, how many tokens of the student and of the teacher come before each shared boundary."""
        places, weights = self._packed(self._found.places, self._used)
        return {"teacher_ids": self.ids, "places": places, "place_weights": weights}

    def chunks(self, ends: str) -> dict[str, np.ndarray]:
        """Which chunk each token of both belongs to, `[B, L]`; K for none. ends: config.loss.chunk_ends.

        "chunk_weights" `[B, K]` is 0 for what is no chunk, and for those in which the two do not spell the same bytes or that
        hold a token which stands for nothing, such as an unknown one.
        """
        used = self._used & ~self._found.inner if ends == "words" else self._used
        places, weights = self._packed(self._found.places, used)
        number = weights.sum(1).astype(np.int64) - 1
        chunks = [_chunk_of(places[..., side], weights, number) for side in (0, 1)]
        (ours, our_gap), (theirs, their_gap) = (
            text.by_chunk(chunk) for text, chunk in zip((self._own, self._theirs), chunks)
        )  # fmt: skip
        good = (np.arange(self._length) < number[:, None]) & (ours == theirs) & ~our_gap & ~their_gap
        return {
            "teacher_ids": self.ids,
            "chunk_of": chunks[0],
            "teacher_chunk_of": chunks[1],
            "chunk_weights": good.astype(np.float32),
        }

    def _packed(self, places: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The places that are used, first in their row; and their weights, 1 and 0."""
        order = np.argsort(~used, axis=1, kind="stable")
        packed = np.zeros((len(places), self._length, 2), np.int32)
        weights = np.zeros((len(places), self._length), np.float32)
        room = min(places.shape[1], self._length)  # the end of a text, which is never used, is one more place than L
        weights[:, :room] = np.take_along_axis(used, order, 1)[:, :room]
        packed[:, :room] = np.take_along_axis(places, order[..., None], 1)[:, :room]
        return np.where(weights[..., None] > 0, packed, 0).astype(np.int32), weights


class Spelled:
    """How much each token of some texts spells."""

    def __init__(self, ids: np.ndarray, lengths: np.ndarray, spelling: Spelling):
        inside = np.arange(ids.shape[1]) < lengths[:, None]
        self._symbols = np.where(inside, np.diff(spelling.starts)[ids], 0)
        self._empty = inside & (self._symbols == 0)

    def by_chunk(self, chunk_of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[B, K]`: how many symbols the tokens of each chunk spell together, and whether one of them spells nothing."""
        rows, length = chunk_of.shape
        where = (np.arange(rows)[:, None] * (length + 1) + chunk_of).ravel()

        def added(values) -> np.ndarray:
            return np.bincount(where, values.ravel(), rows * (length + 1)).reshape(rows, -1)[:, :length]

        return added(self._symbols), added(self._empty) > 0


def _chunk_of(starts: np.ndarray, weights: np.ndarray, number: np.ndarray) -> np.ndarray:
    """`[B, L]`, the chunk of each token; chunk k goes from `starts[:, k]` to the next one."""
    rows, length = starts.shape
    begun = np.zeros((rows, length), np.int64)
    np.add.at(begun, (np.repeat(np.arange(rows), length), starts.ravel()), weights.ravel().astype(np.int64))
    chunk = begun.cumsum(1) - 1
    return np.where((chunk >= 0) & (chunk < number[:, None]), chunk, length).astype(np.int32)
