"""What the step of a run holds in the memory of each device, counted from shapes alone.

What a backward pass keeps is what JAX says that it would save of the real functions, traced without data; the rest of a step
is a few terms. Sums were 0.99 to 1.34 times the compiler's own account of whole steps, on one CPU and on eight simulated ones,
with most of it in activations or most in parameters; tests/test_plan.py repeats this on one. Not measured: other backends,
which save the same but may hold more beside it (collectives) or less (flash attention).
"""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from zett.config import Config
from zett.flops import kernels
from zett.hypernet import PackedForms, hypernet_graph, hypernet_shapes, partition_rules
from zett.lms.base import body_shapes
from zett.lms.config import BodyConfig
from zett.lms.family import Family, is_tied, read_family
from zett.lms.weights import body_shardings, partition_specs
from zett.mesh import AXES, match, sharding, state_shardings
from zett.optim import make_optimizer
from zett.table import bucket
from zett.vocab.vocabulary import FEATURES

PIECES = 2.3  # source tokens of a token: sampled vocabularies have 1.7 to 2.3 on average
FRAME = 2  # tokens that an encoder has around a text


@dataclasses.dataclass(frozen=True)
class Base:
    """A base model without its weights. table: shapes of its vocabulary's arrays."""

    name: str
    family: Family
    config: BodyConfig
    table: dict[str, tuple]

    @property
    def causal(self) -> bool:
        return self.config.causal

    @property
    def body(self) -> dict[str, tuple]:
        return body_shapes(self.family, self.config)

    @property
    def columns(self) -> int:
        """Columns of the rows that a hypernetwork reads and predicts, E."""
        return self.config.hidden_size * (2 if "output" in self.table else 1)


def base_of(name: str, hf: dict) -> Base:
    """UserError if `hf`, its config.json, is of no known family."""
    family, config = read_family(hf, Path(name) / "config.json")
    rows = (hf["vocab_size"], config.hidden_size)
    table: dict[str, tuple] = {"input": rows} | ({} if is_tied(hf) else {"output": rows})
    if family.bias is not None and config.head and config.output_bias:
        table["bias"] = rows[:1]
    return Base(name, family, config, table)


@dataclasses.dataclass(frozen=True)
class Kept:
    """What a backward pass keeps of the forward pass, and the bytes that it makes again of one layer at a time."""

    arrays: list[jax.ShapeDtypeStruct]
    layer: float = 0.0


@dataclasses.dataclass(frozen=True)
class Run:
    """Shapes of a run. body, trained: abstract parameters. rows: of the vocabulary in a step at most; typical: on average.

    products: their dtype. kept: of the body, for a microbatch; hypernet_kept: of the hypernetwork, which "lm" does not have.
    """

    config: Config
    base: Base
    body: dict
    trained: dict
    specs: dict[str, PartitionSpec]
    rows: int
    typical: int
    products: Any
    kept: Kept
    hypernet_kept: Kept = Kept([])

    @property
    def hypernet(self) -> dict[str, tuple]:
        return hypernet_shapes(self.config.hypernet, self.base.config.hidden_size, "output" not in self.base.table)

    @property
    def sources(self) -> int:
        """Source rows that a step's tokens can have as pieces."""
        return min(self.base.table["input"][0], self.rows * self.config.hypernet.max_pieces)

    @property
    def targets(self) -> int:
        """Positions of a batch that logits are computed at: all, or the hidden tokens of a masked language model."""
        data, share = self.config.data, self.config.loss.mask_share
        return data.batch_size * (data.length if self.base.causal else math.ceil(share * (data.length - FRAME)))


def run_of(config: Config, base: Base) -> Run:
    """The shapes of a run of `config`, "auto" being what it is on an accelerator."""
    products = jnp.dtype("bfloat16" if config.train.dtype == "auto" else config.train.dtype)
    activations = products if config.train.activations == "auto" else jnp.dtype(config.train.activations)
    body_is_trained = config.task == "lm" and config.train.trained == "all"
    # As in the tasks, the matrices of a frozen body are in the dtype of their products.
    stored = jnp.dtype("float32") if body_is_trained else products
    body = unflatten_dict({p: _array(s, stored if len(s) > 2 else jnp.float32) for p, s in base.body.items()}, sep=".")
    kept = _body_kept(config, base, body, products, activations, body_is_trained)
    if config.task == "lm":
        trained: dict = {name: _array(shape) for name, shape in base.table.items()}
        specs = {name: PartitionSpec(*("tensor", "fsdp")[: len(shape)]) for name, shape in base.table.items()}
        if body_is_trained:
            trained["body"] = body
            specs |= {f"body.{p}": PartitionSpec(*spec) for p, spec in partition_specs(base.family, base.config).items()}
        size = base.table["input"][0]
        return Run(config, base, body, trained, specs, size, size, products, kept)
    s = config.sampler
    mean = (s.max_size - s.min_size) / math.log(s.max_size / s.min_size) if s.max_size > s.min_size else s.max_size
    typical = s.rows or (s.max_size if s.sizes == "fixed" else round(mean))
    run = Run(config, base, body, {}, {}, bucket(s.rows or s.max_size, 1024), typical, products, kept)
    trained = unflatten_dict({path: _array(shape) for path, shape in run.hypernet.items()}, sep=".")
    specs = match(run.hypernet, partition_rules(config.hypernet))
    return dataclasses.replace(run, trained=trained, specs=specs, hypernet_kept=_hypernet_kept(run, products, activations))


def _array(shape: Sequence[int], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))


def _nbytes(arrays) -> float:
    return float(sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(arrays)))


def kept(f: Callable, x, *others) -> list[jax.ShapeDtypeStruct]:
    """What a backward pass of `f(x, *others)` with respect to `x` needs of the forward pass, beside the arguments."""
    arrays = jax.tree.leaves(jax.eval_shape(lambda x, *others: jax.vjp(lambda x: f(x, *others), x)[1], x, *others))
    given = Counter((a.shape, a.dtype) for a in jax.tree.leaves((x, others)))
    return [_array(*a) for a in (Counter((a.shape, a.dtype) for a in arrays) - given).elements()]


def _body_kept(config: Config, base: Base, body: dict, products, activations, body_is_trained: bool) -> Kept:
    rows = config.data.batch_size // config.train.microbatches
    x = _array((rows, config.data.length, base.config.hidden_size), activations)

    def of(remat: str) -> list:
        make = functools.partial(base.family.Body, base.config, dtype=products, remat=remat)
        graphdef = nnx.split(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0))))[0]
        if body_is_trained:
            return kept(lambda both: nnx.merge(graphdef, both[1])(both[0]), (x, body))
        return kept(lambda x, body: nnx.merge(graphdef, body)(x), x, body)

    remat = config.train.remat
    return Kept(of(remat), 0.0 if remat == "none" else _nbytes(of("none")) / base.config.num_layers)


def _hypernet_kept(run: Run, products, activations) -> Kept:
    c, hidden_size, columns_E = run.config.hypernet, run.base.config.hidden_size, run.base.columns
    language = len(c.languages) > 0
    p = c.max_pieces + language
    # As many rows as pack_forms makes of that many pieces.
    n = bucket(math.ceil(run.rows * (PIECES + language) / p), max(256, run.rows // 32))
    ids = functools.partial(_array, dtype=jnp.int32)
    forms: dict[str, Any] = {name: ids((n, p)) for name in ("packed", "owner", "position")}
    forms |= {name: ids((run.rows,)) for name in ("first", "lengths")} | {"pieces": ids((run.rows, c.max_pieces))}
    forms |= {"features": _array((run.rows, len(FEATURES))), "language": ids(()) if language else None}
    stats = _array((columns_E,)), _array((columns_E,))
    others = _array((run.sources, columns_E)), PackedForms(**forms), stats

    def of(remat: str) -> list:
        tied = "output" not in run.base.table
        graphdef = hypernet_graph(c, hidden_size, tied, products, activations=activations, remat=remat)
        return kept(lambda params, *others: nnx.merge(graphdef, params)(*others), trained, *others)

    trained = unflatten_dict({path: _array(shape) for path, shape in run.hypernet.items()}, sep=".")
    remat = run.config.train.remat_hypernet
    return Kept(of(remat), 0.0 if remat == "none" else _nbytes(of("none")) / (c.layers + 1))


# -------------------------------------------------------------------------------------------------------------- memory

PHASES = BODY, HYPERNET, UPDATE = "body", "hypernetwork", "update"


@dataclasses.dataclass(frozen=True)
class Part:
    """Bytes on each device, in some phases of a step; the fullest phase decides."""

    name: str
    bytes: float
    phases: Sequence[str] = PHASES


def fullest(parts: Sequence[Part]) -> tuple[str, float]:
    """The phase with the most bytes, and how many they are."""
    sums = {phase: sum(part.bytes for part in parts if phase in part.phases) for phase in PHASES}
    phase = max(sums, key=sums.__getitem__)
    return phase, sums[phase]


def abstract_mesh(sizes: tuple[int, int, int]) -> Any:
    """In place of a Mesh, of devices that need not exist."""
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3)


def memory(run: Run, sizes: tuple[int, int, int], microbatches: int) -> list[Part]:
    """The parts of what each device of a mesh holds."""
    mesh, (data, fsdp, tensor), train = abstract_mesh(sizes), sizes, run.config.train
    optimizer = jax.eval_shape(make_optimizer(run.config.optim, train.steps).init, run.trained)
    parameters = _sharded(run.trained, state_shardings(mesh, run.trained, run.specs))
    moments = _sharded(optimizer, state_shardings(mesh, optimizer, run.specs))
    body = _sharded(run.body, unflatten_dict(body_shardings(run.base.family, run.base.config, run.base.body, mesh), sep="."))
    # Of activations, each device has those of its rows of the batch; "tensor" cuts them but for those of the model's width.
    share, d = train.microbatches / microbatches / (data * fsdp), run.base.config.hidden_size
    activations = share * sum(_nbytes(a) / (1 if a.shape[-1:] == (d,) else tensor) for a in run.kept.arrays)
    gathered = 2 * _nbytes(run.body) / run.base.config.num_layers / tensor if fsdp > 1 else 0.0
    positions = min(1024, run.targets // microbatches // (data * fsdp))
    update = Part("gradient and updates", 2 * parameters, (UPDATE,))
    in_body = [
        Part("activations of the body", activations, (BODY,)),
        Part("one of its layers, made again", share * run.kept.layer, (BODY,)),
        Part("two of its layers, gathered", gathered, (BODY,)),
        Part("logits of a chunk", 3 * 4.0 * positions * run.rows, (BODY,)),
    ]
    if run.config.task == "lm":
        frozen = [Part("frozen body", body)] if train.trained == "table" else []
        gradient = Part("gradient", parameters * (2 if microbatches > 1 else 1), (BODY,))
        return [*frozen, Part("parameters", parameters), Part("moments of the optimizer", moments), *in_body, gradient, update]
    source = _array((run.base.table["input"][0], run.base.columns))
    source_rows = _sharded(source, sharding(mesh, PartitionSpec(None, ("fsdp", "tensor")), source.shape))
    # Each device makes the rows of its own tokens, from the same projected source rows.
    whole, devices = {run.sources, run.sources + run.config.hypernet.fallback_rows}, data * fsdp * tensor
    activations = sum(_nbytes(a) / (1 if whole & set(a.shape[:1]) else devices) for a in run.hypernet_kept.arrays)
    both = (BODY, HYPERNET)
    copies = run.products.itemsize + (4 if fsdp * tensor > 1 else 0)  # bytes of a number; those that are cut are gathered first
    return [
        Part("frozen body", body),
        Part("source rows", source_rows),
        Part("hypernetwork", parameters),
        Part("moments of the optimizer", moments),
        # Its products are with whole kernels and give whole gradients, which are summed and cut afterwards.
        Part("its kernels, whole and in the dtype of products", kernels(run.hypernet) * copies, both),
        Part("activations of the hypernetwork", activations, both),
        Part("one of its layers, made again", run.hypernet_kept.layer / devices, (HYPERNET,)),
        Part("predicted rows and their gradient", 4.0 * run.rows * (2 * run.base.columns + 1.5 * d), both),
        *in_body,
        Part("gradient of the hypernetwork", _nbytes(run.trained), (HYPERNET,)),
        update,
    ]


def _sharded(tree, shardings) -> float:
    """Bytes of one device's part."""
    both = zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True)
    return float(sum(math.prod(to.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf, to in both))
