"""The batches of the recipe "hypernet": texts in the tokenizer of the step, and the forms of the rows that are predicted."""

import math
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from zett.config import Config
from zett.data.documents import Documents
from zett.data.rows import RowTexts
from zett.hypernet.packing import pack_forms, renumbered
from zett.hypernet.scaling import bias_residual
from zett.lms.base import BaseModel
from zett.objectives import WeightedSum
from zett.objectives.setting import Encoded
from zett.table import bucket
from zett.vocab.sampling.draw import Draw
from zett.vocab.sampling.sampler import Sampler


class Batches:
    """`batches(step, rows)`, a pure function of the config's seed, the step and the rows.

    texts: of each source of text what each row of a batch reads. length: tokens of a text.
    """

    def __init__(
        self, config: Config, base: BaseModel, mesh: Mesh, objective: WeightedSum, sampler: Sampler, texts: Sequence[RowTexts],
        length: int,
    ):  # fmt: skip
        self.config, self.sampler, self.texts = config, sampler, texts
        self._objective, self._length, self._groups = objective, length, mesh.size
        self._source_size = len(base.vocab)
        self._bias = None if base.table.bias is None else np.asarray(base.table.bias)

    def __call__(self, step: int, rows: np.ndarray | None = None) -> dict:
        """The texts `rows` of the step (None: all), in its tokenizer. Ids count within the R predicted rows.

        These are the tokens of the batch, then random others; with config.sampler.rows = 0 all tokens in their own order. What
        an encoder's tokenizer puts around a text counts among the config.data.length tokens of a row.
        """
        c, draw = self.config, self.sampler.draw(step)
        rows = np.arange(c.data.batch_size) if rows is None else rows
        ids, lengths = self._encode(draw, step, rows)
        predicted, targets, room, log_weight = self._choose(ids, draw, step)
        forms = draw.forms.take(np.pad(predicted, (0, room - len(predicted)), mode="edge"))
        language = draw.text_number if c.hypernet.languages else None
        packed = pack_forms(forms, multiple=max(256, room // 32), language=language, groups=self._groups)
        sources, packed = renumbered(packed, self._source_size, multiple=self._groups)
        ordinary = np.flatnonzero(forms.lengths[: len(predicted)])
        texts = Encoded(targets.reshape(ids.shape).astype(np.int32), lengths, draw.tokens.lengths[ids], ordinary, forms.same)
        rngs = [np.random.default_rng([c.seed, step, 8, b]) for b in map(int, rows)]
        return {
            **self._objective.batch(texts, rngs),
            **({} if self._bias is None else {"bias": bias_residual(c.hypernet, self._bias, forms)}),
            "sources": sources,
            "forms": packed,
            "log_weight": log_weight,
            "num_valid": np.int32(len(predicted)),
        }

    def _encode(self, draw: Draw, step: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids `[B, L]` in the tokenizer of the step, and how many of them each text has."""
        texts, seed = self.texts[draw.text_number or 0], [self.config.seed, step, 0]
        excerpts = [_excerpt(texts[b], np.random.default_rng([*seed, b]), self._length) for b in map(int, rows)]
        ids, lengths = draw.encode(excerpts, self._length)
        inside = np.arange(self._length) < np.maximum(lengths, 1)[:, None]
        return np.where(inside, ids, ids[:, :1]), lengths  # filled with a token that is used anyway; its weight is 0

    def _choose(self, ids: np.ndarray, draw: Draw, step: int) -> tuple[np.ndarray, np.ndarray, int, np.ndarray]:
        """The tokens whose rows are predicted, the texts in numbers among them, R, and the rows' log weights `[R]`."""
        size, wanted = len(draw.forms), self.config.sampler.rows
        if not wanted:
            room = bucket(size, 1024)
            return np.arange(size), ids, room, np.zeros(room, np.float32)
        used, targets = np.unique(ids, return_inverse=True)
        others = np.setdiff1d(np.flatnonzero(draw.forms.lengths), used, assume_unique=True)
        room = bucket(max(wanted, len(used) + 256), 1024)
        chosen = np.random.default_rng([self.config.seed, step, 4]).permutation(others)[: room - len(used)]
        # The others stand for all tokens that are not in the batch: each counts as many times as it has unseen siblings.
        log_weight = np.zeros(room, np.float32)
        log_weight[len(used) : len(used) + len(chosen)] = math.log(len(others) / len(chosen)) if len(chosen) else 0.0
        return np.concatenate([used, chosen]), targets, room, log_weight


def _excerpt(documents: Documents, rng: np.random.Generator, length: int) -> str:
    """Text for `length` tokens from a random place, at a line's beginning, in a random document."""
    text = documents[int(rng.integers(len(documents)))]
    start = int(rng.integers(max(len(text) - 4 * length, 1)))
    start = text.find("\n", start) + 1 if start else 0
    # Twelve characters a token are more than any tokenizer packs into one on average.
    return text[start : start + 12 * length]
