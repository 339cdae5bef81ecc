"""Counted arithmetic of models and training steps.

Only FLOPs that the result needs are counted: a product of `[m, k]` and `[k, n]` counts 2mkn; recomputation (rematerialisation),
padding, norms, activation functions and the optimizer count nothing. So the share of a device's peak that a run reaches is
useful work. Shapes of parameters are given by dotted path; layers may be stacked or not.
"""

import dataclasses
import math
import re
from collections.abc import Mapping

from zett.config import LossConfig
from zett.lms.config import BodyConfig


@dataclasses.dataclass(frozen=True)
class StepFlops:
    """FLOPs of a training step, by part."""

    body_forward: float
    body_backward: float
    head: float  # logits and both of their gradients
    hypernet: float = 0.0  # forward and backward
    teacher: float = 0.0  # what the original model makes of the texts

    @property
    def total(self) -> float:
        return self.body_forward + self.body_backward + self.head + self.hypernet + self.teacher

    def taught(self, loss: LossConfig, config: BodyConfig, *, positions: int, rows: int) -> "StepFlops":
        """This step, where the same body reads the texts with `rows` rows of its own, if an objective in `loss` wants that."""
        if not loss.hidden and not loss.chunk:
            return self
        head = 2.0 * positions * rows * config.hidden_size if loss.chunk else 0.0
        return dataclasses.replace(self, teacher=self.body_forward + head)


Shapes = Mapping[str, tuple]


def kernels(shapes: Shapes, pattern: str = ".*") -> int:
    """How many numbers the matrices whose paths match `pattern` hold. Each position is multiplied with each of them once."""
    return sum(math.prod(shape) for path, shape in shapes.items() if path.endswith("kernel") and re.fullmatch(pattern, path))


def keys_seen(length: int, window: int | None, *, causal: bool) -> float:
    """How many keys a query sees, on average, in a text of `length`. window: as in `attention.attention`."""
    if causal:
        w = min(window or length, length)
        return w - w * (w - 1) / (2 * length)
    w = min(length - 1 if window is None else window, length - 1)
    return 1 + 2 * w - w * (w + 1) / length


def attention_forward(config: BodyConfig, batch: int, length: int) -> float:
    """FLOPs of the attention scores and of the weighted sums, in all layers of a body."""
    keys = sum(keys_seen(length, window, causal=config.causal) for window in config.layer_windows)
    return 4.0 * batch * length * config.num_heads * config.head_dim * keys


PIECE = r"piece\..*"  # the input projection


def hypernet_forward(shapes: Shapes, *, tokens: int, positions: int, distinct: int | None = None) -> float:
    """FLOPs of a hypernetwork that predicts rows for `tokens` tokens, which have `positions` pieces together.

    Without `distinct`, every product of a layer is computed at every position (for padded forms, positions is tokens x S). With
    `distinct`, the number of different source rows among the pieces, it is what zett computes: the input projection once for
    each of these rows, and the output and feed-forward products of the last layer once a token. Attention, among a few pieces,
    is left out.
    """
    last = max(int(found[1]) for path in shapes if (found := re.match(r"layers\.(\d+)\.", path)))
    token_wise = r"(heads\.|features\.|bias\.).*"
    if distinct is None:
        return 2.0 * ((kernels(shapes) - kernels(shapes, token_wise)) * positions + kernels(shapes, token_wise) * tokens)
    token_wise += rf"|layers\.{last}\.(out|up|down)\..*"
    rest = kernels(shapes) - kernels(shapes, token_wise) - kernels(shapes, PIECE)
    return 2.0 * (kernels(shapes, token_wise) * tokens + kernels(shapes, PIECE) * distinct + rest * positions)


def body_step(
    shapes: Shapes, config: BodyConfig, *, batch: int, length: int, rows: int, trained: bool, targets: int | None = None
) -> StepFlops:
    """A body on `[batch, length]` positions, forward and backward, with logits of `rows` rows at `targets` of them (None: all).

    trained: whether its own parameters get a gradient, or only its inputs and the rows.
    """
    products = 2.0 * kernels(shapes) * batch * length
    attention = attention_forward(config, batch, length)
    head = 3 * 2.0 * (batch * length if targets is None else targets) * rows * config.hidden_size
    return StepFlops(products + attention, (2 if trained else 1) * products + 2 * attention, head)


def hypernet_step(
    body_shapes: Shapes, body_config: BodyConfig, hypernet_shapes: Shapes,
    *, batch: int, length: int, rows: int, pieces: int, distinct: int | None = None, targets: int | None = None,
    trained: bool = False,
) -> StepFlops:  # fmt: skip
    """A training step of a hypernetwork that predicts `rows` rows for a body; see `hypernet_forward`, `body_step`."""
    step = body_step(body_shapes, body_config, batch=batch, length=length, rows=rows, trained=trained, targets=targets)
    hypernet = 3 * hypernet_forward(hypernet_shapes, tokens=rows, positions=pieces, distinct=distinct)
    if distinct is not None:  # source rows are not trained: their projection has one gradient instead of two
        hypernet -= 2.0 * kernels(hypernet_shapes, PIECE) * distinct
    return dataclasses.replace(step, hypernet=hypernet)
