"""How long a step takes: products, memory traffic and the start of kernels, at rates that were measured.

XLA compiles for an H100 without one at hand, and so what it makes of a step can be counted: products, bytes that are read and
written by kernels which are no products, kernels. The factors below are of such counts for SmolLM2's and Mistral-7B's shapes.
Three rates then turn counts into seconds. They are fitted to two steps that were measured on an H100 (80 GB, HBM3) in November
2026, and within 6 % of a third, with padded rows: SmolLM2-135M, 64 x 256 tokens and 8,192 rows, 71 ms; Mistral-7B's shape,
128 x 128 tokens and 32,768 rows, 1.52 s (padded: 2.53 s). Other devices: the same shares of their peak and bandwidth. What
devices send to one another is not counted.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from zett.config import OptimConfig
from zett.plan.devices import Device

# The three rates.
PRODUCTS = 0.71  # share of the peak that products reach
BANDWIDTH = 0.776  # share of the memory's bandwidth
KERNEL_SECONDS = 3.9e-6  # of each kernel, beside its work

# Counted by the compiler. Traffic, in units of what it is of:
BODY = 8.4  # passes over the results of the body's products, forward and backward together
FORWARD = 3.2  # of these, the forward passes, which come again where layers are computed again
KEPT = 3.0  # passes over what is kept for the backward pass: room for all layers is cleared, filled and read
WEIGHTS = 4.0  # passes over the weights of stacked layers, of which each is copied before it is used, forward and backward
HYPERNET = 15.5  # passes over the results of the hypernetwork's products
LOGIT_BYTES = 35.0  # for each position and row: logits, softmax and gradient in float32
ROW_SUMS = 1.25  # passes over the gradient of the rows for each chunk of the loss
ADAMW, MUON = 12.0, 44.0  # passes over trained parameters, float32
AVERAGE = 2.0  # passes that their running mean adds: read and written with the update; not counted by the compiler
# Kernels:
A_LAYER, A_CHUNK, A_HYPERNET_LAYER, A_MATRIX = 62, 16, 150, 28
NEWTON_SCHULZ = 5  # steps of Muon


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a part of a step takes on each device. flops: of products, those of things made again included. bytes: moved by
    kernels that are no products."""

    name: str
    flops: float
    bytes: float
    kernels: float


def seconds(costs: Iterable[Cost], device: Device) -> float:
    """Of a step on one of such devices, whose bandwidth is known."""
    peak, bandwidth = PRODUCTS * device.peak, BANDWIDTH * device.bandwidth
    return sum(c.flops / peak + c.bytes / bandwidth + c.kernels * KERNEL_SECONDS for c in costs)


def widths(shapes: Iterable[tuple[str, Sequence[int]]]) -> float:
    """How many numbers the products of a network give for each position: the output widths of its kernels, layer by layer."""
    return float(sum(math.prod(shape[:-2]) * shape[-1] for path, shape in shapes if path.endswith("kernel")))


def head_cost(flops: float, positions: float, rows: int, width: int, chunks: float) -> Cost:
    """Logits and loss. positions: of this device; chunks: how often their gradients are added up."""
    traffic = LOGIT_BYTES * positions * rows + ROW_SUMS * chunks * rows * width * 4
    return Cost("head", flops, traffic, A_CHUNK * chunks)


def optimizer_cost(config: OptimConfig, parameters: float, matrices: Sequence[Sequence[int]], average: float = 0.0) -> Cost:
    """The optimizer's update. parameters: bytes on this device; matrices: shapes of the kernels, stacked ones or not; average:
    that of the run, config.train.average."""
    more = AVERAGE * parameters if average else 0.0
    if config.name != "muon":
        return Cost("optimizer", 0.0, ADAMW * parameters + more, 2.0 * len(matrices))
    flops = 0.0
    for *stack, a, b in matrices:
        small, large = min(a, b), max(a, b)
        flops += math.prod(stack) * NEWTON_SCHULZ * (4.0 * small**2 * large + 2.0 * small**3)
    return Cost("optimizer", flops, MUON * parameters + more, A_MATRIX * len(matrices))
