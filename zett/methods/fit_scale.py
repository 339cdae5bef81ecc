"""How far a hypernetwork's corrections are followed, chosen on a little text: rows = FVT + scale * (predicted - FVT).

For tokenizers close to the source corrections are often too long, for others too short. One number mends that, and a loss that
is nearly a parabola in it needs few evaluations. The text takes part in this choice and in nothing else.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zett import progress
from zett.data.masked import frame_of, text_room
from zett.errors import UserError
from zett.evaluate.cutting import whole_windows
from zett.evaluate.tasks import reading_task
from zett.evaluate.windows import files_in_windows
from zett.lms.base import BaseModel
from zett.methods.fvt import FVT
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary

TEXT_BYTES = 32768  # of the text that is read, from all over it
WINDOW = 512  # bytes
POINTS = (0.5, 1.0, 1.5)  # scales that are tried first
MOST = 2.0


@dataclasses.dataclass(frozen=True)
class ScaleFit:
    """scale: what was chosen. before, after: bits per byte of the text, `size` bytes of it, with scale 1 and with `scale`."""

    scale: float
    before: float
    after: float
    unit: str
    size: int
    text: str

    def words(self) -> str:
        numbers = f"{self.before:.4f} -> {self.after:.4f} {self.unit} on {self.size:,} bytes of {self.text}"
        return f"corrections times {self.scale:.2f} ({numbers})"


def texts_of(text: str | Path, window: int = WINDOW) -> list[str]:
    """Windows of at most TEXT_BYTES from all over a file or folder. UserError if there is no text."""
    return whole_windows(files_in_windows([text], window), window=window, limit=TEXT_BYTES)


def fit_scale(
    base: BaseModel, target: Vocabulary, predicted: EmbeddingTable, text: str | Path
) -> tuple[EmbeddingTable, ScaleFit]:
    """The table of `target` with the scale at which `base` reads `text` best, never worse than `predicted` itself does.

    predicted: the rows of a hypernetwork. UserError if the body of the model is not there, or there is no text.
    """
    if base.params is None:
        raise UserError(f"{base.name} was read without its body, by which fit_scale chooses; load it with its body")
    window = WINDOW if base.causal else min(WINDOW, text_room(base, frame_of(base)) - 8)
    task = reading_task(base)
    items = task.items(base, texts_of(text, window))
    residual = FVT()(base, target)

    def loss(scale: float) -> float:
        return items.mean(task.score(base.with_vocabulary(scaled(residual, predicted, scale), target), items))

    with progress.phase(f"choosing a scale on {len(items)} windows of {text}"):
        scale, before, after = lowest(loss)
    size = sum(len(one.encode()) for one in items.texts)
    fit = ScaleFit(scale, before, after, task.unit, size, str(text))
    progress.say(fit.words())
    return (predicted if scale == 1 else scaled(residual, predicted, scale)), fit


def scaled(residual: EmbeddingTable, predicted: EmbeddingTable, scale: float) -> EmbeddingTable:
    """The table between two others, float32: `residual` where scale is 0, `predicted` where it is 1."""

    def between(one, other):
        if one is None:
            return None
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        return one + np.float32(scale) * (other - one)

    # Output rows that are predicted for a tied model are corrections of its input rows.
    output = None if predicted.output is None else between(residual.output_rows, predicted.output)
    return EmbeddingTable.of(between(residual.input, predicted.input), output, between(residual.bias, predicted.bias))


def lowest(loss: Callable[[float], float]) -> tuple[float, float, float]:
    """A scale with about the lowest loss, the loss at 1, and the lowest; it is 1 if no other that was tried is better.

    Tried are the points of a parabola, and where that is lowest; so four evaluations are enough.
    """
    seen = {scale: loss(scale) for scale in POINTS}
    (a, left), (b, middle), (c, right) = seen.items()
    slope = (middle - left) / (b - a)
    curvature = ((right - middle) / (c - b) - slope) / (c - a)
    if curvature > 0:  # neither NaN nor a hill
        vertex = round(min(max((a + b) / 2 - slope / (2 * curvature), 0.0), MOST), 3)
        if vertex not in seen:
            seen[vertex] = loss(vertex)
    best = min((scale for scale in seen if seen[scale] < seen[1.0]), key=seen.__getitem__, default=1.0)
    return best, seen[1.0], seen[best]
