"""What the step of a run holds in the memory of each device, counted from shapes alone.

What a backward pass keeps is what JAX says that it would save of the real functions, traced without data; the rest of a step
is a few terms. Sums were 0.99 to 1.34 times the compiler's own account of whole steps, on one CPU and on eight simulated ones,
with most of it in activations or most in parameters; tests/plan/test_memory.py repeats this on one. Not measured: other
backends, which save the same but may hold more beside it (collectives) or less (flash attention).
"""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from zett.config import Config
from zett.lms.attention import attention_by
from zett.lms.layers import UNROLLED
from zett.lms.weights import body_shardings
from zett.losses import chunk_of
from zett.mesh import AXES, sharding, state_shardings
from zett.optim import make_optimizer
from zett.plan.flops import StepFlops
from zett.plan.shapes import BODY, PHASES, BaseShapes, How, Part
from zett.plan.time import A_LAYER, FORWARD, KEPT, WEIGHTS, Cost, head_cost, widths
from zett.plan.time import BODY as BODY_PASSES

# The most that results of products and all between them take, over the results alone: compilers make the rest part of kernels.
BETWEEN = 1.5
FRAME = 2  # tokens that an encoder has around a text


def array(shape: Sequence[int], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))


def nbytes(arrays) -> float:
    return float(sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(arrays)))


def sharded_bytes(tree, shardings) -> float:
    """How many bytes of the arrays in `tree` are on one device."""
    both = zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True)
    return float(sum(math.prod(to.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf, to in both))


Sizes = tuple[int, int, int]  # of a mesh


def abstract_mesh(sizes: Sizes) -> Any:
    """A mesh of devices that need not exist, for shardings."""
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3)


def fullest(parts: Sequence[Part]) -> tuple[str, float]:
    """The phase with the most bytes, and how many they are."""
    sums = {phase: sum(part.bytes for part in parts if phase in part.phases) for phase in PHASES}
    phase = max(sums, key=sums.__getitem__)
    return phase, sums[phase]


# --------------------------------------------------------------------------------------------------- the backward pass


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a backward pass keeps from the forward pass, and the bytes that it computes again for one layer at a time."""

    arrays: list[jax.ShapeDtypeStruct]
    layer: float = 0.0


def kept(f: Callable, x, *others) -> list[jax.ShapeDtypeStruct]:
    """What the backward pass of `f(x, *others)`, with respect to `x`, needs from the forward pass beside the arguments."""
    arrays = jax.tree.leaves(jax.eval_shape(lambda x, *others: jax.vjp(lambda x: f(x, *others), x)[1], x, *others))
    given = Counter((a.shape, a.dtype) for a in jax.tree.leaves((x, others)))
    return [array(*a) for a in (Counter((a.shape, a.dtype) for a in arrays) - given).elements()]


def attention_planned(config: Config, capability: float):
    """Within this, traced attention is that of a run on a GPU of this compute capability, or on another device (0)."""
    return attention_by("xla" if config.train.attention == "xla" or not capability else "auto", capability)


def dtypes(config: Config) -> tuple[Any, Any]:
    """The dtypes of matrix products and of activations; "auto" is taken as on an accelerator."""
    products = jnp.dtype("bfloat16" if config.train.dtype == "auto" else config.train.dtype)
    return products, products if config.train.activations == "auto" else jnp.dtype(config.train.activations)


@dataclasses.dataclass(frozen=True)
class BodyStep:
    """What the body of the base model takes in a step. trains: whether its own parameters get a gradient."""

    config: Config
    base: BaseShapes
    trains: bool

    @functools.cached_property
    def params(self) -> dict:
        """Abstract parameters; the matrices of a frozen body are in the dtype of their products, as in the recipes."""
        stored = jnp.dtype("float32") if self.trains else dtypes(self.config)[0]
        shapes = self.base.body.items()
        return unflatten_dict({path: array(s, stored if len(s) > 2 else jnp.float32) for path, s in shapes}, sep=".")

    @property
    def targets(self) -> int:
        """Positions of a batch that logits are computed at: all, or the hidden tokens of a masked language model."""
        data, share = self.config.data, self.config.loss.mask_share
        return data.batch_size * (data.length if self.base.config.causal else math.ceil(share * (data.length - FRAME)))

    @functools.cached_property
    def kept(self) -> Callable[[str, float], Kept]:
        """(remat, compute capability) -> what its backward pass keeps for a batch."""
        return functools.cache(self._kept)

    def _kept(self, remat: str, capability: float) -> Kept:
        of = functools.partial(self._arrays, capability)
        return Kept(of(remat), made_again(remat, of, self.base.config.num_layers))

    @functools.cached_property
    def _arrays(self) -> Callable[[float, str], list]:
        return functools.cache(self._traced)

    def _traced(self, capability: float, remat: str) -> list:
        config, (products, activations) = self.config, dtypes(self.config)
        x = array((config.data.batch_size, config.data.length, self.base.config.hidden_size), activations)
        make = functools.partial(self.base.family.Body, self.base.config, dtype=products, remat=remat)
        graphdef = nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))[0]
        with attention_planned(config, capability):
            if self.trains:
                return kept(lambda both: nnx.merge(graphdef, both[1])(both[0]), (x, self.params))
            return kept(lambda x, body: nnx.merge(graphdef, body)(x), x, self.params)

    def bytes(self, mesh) -> float:
        """Bytes of its parameters on each device."""
        shardings = body_shardings(self.base.family, self.base.config, self.base.body, mesh)
        return sharded_bytes(self.params, unflatten_dict(shardings, sep="."))

    def parts(self, sizes: tuple[int, int, int], how: How, rows: int) -> list[Part]:
        """What it takes while it runs. rows: the most rows of the vocabulary that a step has."""
        data, fsdp, tensor = sizes
        kept = self.kept(how.remat, how.capability)
        # A device has activations of its own rows of the batch. The axis "tensor" cuts those that are not of the model's width.
        share, d = 1 / how.microbatches / (data * fsdp), self.base.config.hidden_size
        activations = share * sum(nbytes(a) / (1 if a.shape[-1:] == (d,) else tensor) for a in kept.arrays)
        gathered = 2 * nbytes(self.params) / self.base.config.num_layers / tensor if fsdp > 1 else 0.0
        positions = min(self._chunk(rows), self.targets // how.microbatches // (data * fsdp))
        return [
            Part("activations of the body", activations, (BODY,)),
            Part("one of its layers, made again", share * kept.layer, (BODY,)),
            Part("two of its layers, gathered", gathered, (BODY,)),
            Part("logits of a chunk", 3 * 4.0 * positions * rows, (BODY,)),
        ]

    def taught(self, sizes: tuple[int, int, int]) -> list[Part]:
        """States of the teacher of a whole batch, which are compared: those of each layer in config.loss.hidden_layers."""
        loss, data = self.config.loss, self.config.data
        number = len(loss.hidden_layers) if loss.hidden else 0
        states = number * data.batch_size * data.length * self.base.config.hidden_size / (sizes[0] * sizes[1])
        return [Part("states of the teacher", states * dtypes(self.config)[1].itemsize, (BODY,))] if number else []

    def _chunk(self, rows: int) -> int:
        return chunk_of(self.config.train.loss_chunk, rows, cpu=False)

    def costs(self, sizes: tuple[int, int, int], how: How, rows: int, work: StepFlops) -> list[Cost]:
        """What it has to do. rows: how many rows of the vocabulary a step has; work: of all devices."""
        data, fsdp, tensor = sizes
        c, train, number = self.base.config, self.config.data, data * fsdp * tensor
        again = work.body_forward if how.remat == "full" else 0.0
        passes = BODY_PASSES + (FORWARD if how.remat == "full" else 0.0)
        moved = passes * train.batch_size * train.length * widths(self.base.body.items()) * dtypes(self.config)[1].itemsize
        moved += KEPT * sum(map(nbytes, self.kept(how.remat, how.capability).arrays))
        stacked = WEIGHTS * how.microbatches * nbytes(self.params) / tensor if c.num_layers > UNROLLED else 0.0
        chunks = how.microbatches * math.ceil(self.targets / how.microbatches / (data * fsdp) / self._chunk(rows))
        flops = work.body_forward + work.body_backward + again
        return [
            Cost(
                "body",
                flops / number,
                moved / number + stacked,
                passes / BODY_PASSES * A_LAYER * c.num_layers * how.microbatches,
            ),
            head_cost(work.head / number, self.targets / (data * fsdp) / tensor, rows, c.hidden_size, chunks),
        ]


def made_again(remat: str, of: Callable[[str], list], layers: int) -> float:
    """Bytes of what is computed again of one of `layers` for its backward pass. of: remat -> what the backward pass keeps."""
    return 0.0 if remat == "none" else min(nbytes(of("none")), BETWEEN * nbytes(of("dots"))) / layers


def trained_bytes(config: Config, trained: dict, specs: dict[str, PartitionSpec]) -> Callable[[Sizes], tuple[float, float]]:
    """Sizes of a mesh -> bytes of the trained parameters, and of the optimizer's moments, on each device."""
    optimizer = jax.eval_shape(make_optimizer(config.optim, config.train.steps).init, trained)

    @functools.cache
    def of(sizes: Sizes) -> tuple[float, float]:
        mesh = abstract_mesh(sizes)
        parameters = sharded_bytes(trained, state_shardings(mesh, trained, specs))
        return parameters, sharded_bytes(optimizer, state_shardings(mesh, optimizer, specs))

    return of


def averaged(config: Config, parameters: float) -> list[Part]:
    """The running mean of trained parameters that take so many bytes on each device, if there is one."""
    return [Part("average of the parameters", parameters)] if config.train.average else []


def sharded_rows(shape: tuple, mesh) -> float:
    """Bytes on each device of source rows `[V0, E]`, which are cut along their columns."""
    return sharded_bytes(array(shape), sharding(mesh, PartitionSpec(None, ("fsdp", "tensor")), shape))
