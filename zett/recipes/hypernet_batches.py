"""The batches of the recipe "hypernet": texts in the tokenizer of the step, and the forms of the rows that are predicted."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from zett.config import Config
from zett.data.chats import open_chats
from zett.data.documents import Documents
from zett.data.rows import RowTexts
from zett.hypernet.packing import PackedForms, pack_forms, packed_rows, renumbered, sources_in_use, with_rows
from zett.hypernet.scaling import bias_residual
from zett.lms.base import BaseModel
from zett.objectives import WeightedSum
from zett.objectives.setting import Encoded
from zett.recipes.hypernet_turns import TurnedTexts
from zett.table import bucket
from zett.vocab import SurfaceForms
from zett.vocab.alignment import Spelling
from zett.vocab.forms import with_distance
from zett.vocab.sampling.draw import Draw
from zett.vocab.sampling.sampler import Sampler

ROWS_STEP = 1024  # sizes of R are multiples of it
SPARE = 256  # others at least, beside the tokens of a batch
PROBES = 32  # draws by which the usual size of a step is found
MARGIN = 1.05  # and how much more than they need there is room for


@dataclasses.dataclass(frozen=True)
class StepSize:
    """What a step has room for: R predicted rows, N packed rows of pieces, U source rows.

    Every other size is a program of its own, and an accelerator takes 10 to 30 seconds to compile one. So a run has two: one
    for what its draws usually need, and one that holds all that can come.
    """

    rows: int
    packed: int
    sources: int


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
        self._turns = None
        if config.data.turns:
            spec = config.data.chats
            chats = None if spec is None else open_chats(spec, stream_bytes=config.data.stream_bytes)
            self._turns = TurnedTexts(base, length, chats)
        self._special = 0 if self._turns is None else len(self._turns.sources)

    def __call__(self, step: int, rows: np.ndarray | None = None) -> dict:
        """The texts `rows` of the step (None: all), in its tokenizer. Ids count within the R predicted rows.

        These are the tokens of the batch, then random others; with config.sampler.rows = 0 all tokens in their own order. What
        an encoder's tokenizer puts around a text counts among the config.data.length tokens of a row.
        """
        c, draw = self.config, self._draw(step)
        rows = np.arange(c.data.batch_size) if rows is None else rows
        ids, lengths = self._encode(draw, step, rows)
        chosen = next(filter(None, (self._fit(ids, draw, step, size) for size in self.sizes)))
        forms = chosen.forms
        sources, packed = renumbered(chosen.packed, self._source_size, multiple=self._groups, room=chosen.size.sources)
        ordinary = np.flatnonzero(forms.lengths[: chosen.number])
        texts = Encoded(
            chosen.ids.reshape(ids.shape).astype(np.int32), lengths, draw.tokens.lengths[ids], ordinary, forms.same,
            spelled=ids, spelling=functools.partial(_spelling if self._turns is None else self._turns.spelling, draw),
        )  # fmt: skip
        rngs = [np.random.default_rng([c.seed, step, 8, b]) for b in map(int, rows)]
        return {
            **self._objective.batch(texts, rngs),
            **({} if self._bias is None else {"bias": bias_residual(c.hypernet, self._bias, forms)}),
            "sources": sources,
            "forms": with_rows(packed, chosen.size.packed),
            "log_weight": chosen.log_weight,
            "num_valid": np.int32(chosen.number),
            **({} if self._turns is None else {"special": chosen.special, "special_sources": self._turns.sources}),
        }

    def _draw(self, step: int) -> Draw:
        """The tokenizer of the step; where texts are in turns, with the special tokens of these as its last ids."""
        draw = self.sampler.draw(step)
        draw = draw if self._turns is None else self._turns.extended(draw)
        return dataclasses.replace(draw, forms=with_distance(draw.forms)) if self.config.hypernet.distance else draw

    def _encode(self, draw: Draw, step: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids `[B, L]` in the tokenizer of the step, and how many of them each text has."""
        texts, seed = self.texts[draw.text_number or 0], [self.config.seed, step, 0]
        excerpts = [_excerpt(texts[b], np.random.default_rng([*seed, b]), self._length) for b in map(int, rows)]
        ids, lengths = draw.encode(excerpts, self._length)
        for row, b in enumerate(map(int, rows)):
            if self._turns is None:
                break
            rng = np.random.default_rng([*seed[:2], 9, b])
            if rng.random() < self.config.data.turns:
                turned = self._turns.encode(draw, excerpts[row], rng)
                if len(turned):
                    ids[row, : len(turned)], lengths[row] = turned, len(turned)
        inside = np.arange(self._length) < np.maximum(lengths, 1)[:, None]
        return np.where(inside, ids, ids[:, :1]), lengths  # filled with a token that is used anyway; its weight is 0

    # ---------------------------------------------------------------------------------------------- which rows, what size

    @functools.cached_property
    def sizes(self) -> tuple[StepSize, StepSize]:
        """The usual size, of which the first draws are a sample, and the largest. The same on all hosts."""
        c, groups = self.config, self._groups
        wanted, all_rows = c.sampler.rows, np.arange(c.data.batch_size)
        most = bucket(max(c.sampler.max_size, 512) + self._special, ROWS_STEP)
        needs = []
        for step in range(PROBES):
            draw = self._draw(step)
            # Rows are the tokens of the batch only where there is one process, which has the texts of all rows.
            ids = self._encode(draw, step, all_rows)[0] if wanted else np.zeros((1, 1), np.int64)
            room = bucket(max(wanted, len(self._used(ids, draw)) + SPARE), ROWS_STEP) if wanted else most
            found = self._fit(ids, draw, step, StepSize(room, room * groups, self._source_size))
            assert found is not None
            needs.append((room, packed_rows(found.packed), len(sources_in_use(found.packed, self._source_size))))
        rows, packed, sources = map(max, zip(*needs))
        usual = StepSize(
            rows,
            bucket(math.ceil(MARGIN * packed), 64 * groups),
            min(bucket(math.ceil(MARGIN * sources), 256), self._source_size),
        )
        if wanted:  # as many as the texts of a batch can have, if each token were another
            most = max(rows, bucket(min(c.data.batch_size * self._length, most) + SPARE, ROWS_STEP))
        return usual, StepSize(most, bucket(most, groups), self._source_size)

    def _used(self, ids: np.ndarray, draw: Draw) -> np.ndarray:
        """The tokens that have to be there: those of the batch, in order, and all special ones, which are the last."""
        return np.union1d(ids, np.arange(len(draw.forms) - self._special, len(draw.forms)))

    def _fit(self, ids: np.ndarray, draw: Draw, step: int, size: StepSize) -> "_Chosen | None":
        """What is predicted in a step of this size; None if the tokens of its texts, or its vocabulary, do not fit.

        Of the others as many are predicted as there is room for.
        """
        number, others = len(draw.forms), np.zeros(0, np.int64)
        if self.config.sampler.rows:
            used = self._used(ids, draw)
            number = len(used)
            others = np.setdiff1d(np.flatnonzero(draw.forms.lengths), used, assume_unique=True)
            others = np.random.default_rng([self.config.seed, step, 4]).permutation(others)
        if number > size.rows:
            return None
        taken = min(len(others), size.rows - number)
        while True:
            chosen = self._chosen(ids, draw, others, taken, size)
            used_sources = len(sources_in_use(chosen.packed, self._source_size))
            if packed_rows(chosen.packed) <= size.packed and used_sources <= size.sources:
                return chosen
            if not taken:
                return None
            taken = taken * 7 // 8

    def _chosen(self, ids: np.ndarray, draw: Draw, others: np.ndarray, taken: int, size: StepSize) -> "_Chosen":
        log_weight = np.zeros(size.rows, np.float32)
        if self.config.sampler.rows:
            used = self._used(ids, draw)
            targets = np.searchsorted(used, ids)
            predicted = np.concatenate([used, others[:taken]])
            special = np.arange(len(used) - self._special, len(used), dtype=np.int32)
            # The others stand for all tokens that are not in the batch: each counts as many times as it has unseen siblings.
            log_weight[len(used) : len(predicted)] = math.log(len(others) / taken) if taken else 0.0
        else:
            predicted, targets = np.arange(len(draw.forms)), ids
            special = np.arange(len(draw.forms) - self._special, len(draw.forms), dtype=np.int32)
        missing = size.rows - len(predicted)
        forms = draw.forms.take(np.pad(predicted, (0, missing), mode="edge"))
        # Rows that only fill up have no pieces, so that nothing is computed for them.
        forms = dataclasses.replace(forms, lengths=np.where(np.arange(size.rows) < len(predicted), forms.lengths, 0))
        language = draw.text_number if self.config.hypernet.languages else None
        packed = pack_forms(forms, multiple=1, language=language, groups=self._groups)
        return _Chosen(size, forms, packed, targets, len(predicted), log_weight, special)


@dataclasses.dataclass(frozen=True)
class _Chosen:
    """The rows of a step: their `forms`, of which `number` are valid, packed; the texts in numbers among them; log weights.

    special: numbers of the rows of special tokens.
    """

    size: StepSize
    forms: SurfaceForms
    packed: PackedForms
    ids: np.ndarray
    number: int
    log_weight: np.ndarray
    special: np.ndarray


def _spelling(draw: Draw) -> Spelling:
    """Drawn tokenizers have no special tokens in their texts."""
    return Spelling(draw.tokens.data.astype(np.int32), draw.tokens.starts, {})


def _excerpt(documents: Documents, rng: np.random.Generator, length: int) -> str:
    """Text for `length` tokens from a random place, at a line's beginning, in a random document."""
    text = documents[int(rng.integers(len(documents)))]
    start = int(rng.integers(max(len(text) - 4 * length, 1)))
    start = text.find("\n", start) + 1 if start else 0
    # Twelve characters a token are more than any tokenizer packs into one on average.
    return text[start : start + 12 * length]
