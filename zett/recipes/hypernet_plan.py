"""The recipe "hypernet" in shapes: whether a config is right, and what a step holds and computes."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

from flax import nnx
from flax.traverse_util import unflatten_dict
from jax import numpy as jnp
from jax.sharding import PartitionSpec

from zett.belongs import check_belongs
from zett.config import Config
from zett.errors import UserError
from zett.evaluate.targets import parse_target
from zett.hypernet.network import hypernet_graph, hypernet_shapes, kinds_of_rows, num_features, partition_rules
from zett.hypernet.packing import PackedForms
from zett.hypernet.release import CHANGES, load_hypernet
from zett.hypernet.trained import TrainedHypernet
from zett.lms.known import hf_config_of
from zett.lms.weights import partition_specs
from zett.mesh import match
from zett.objectives.distillation import check_taught
from zett.plan.flops import StepFlops, hypernet_step, kernels
from zett.plan.memory import (
    BETWEEN,
    BodyStep,
    Kept,
    abstract_mesh,
    array,
    attention_planned,
    averaged,
    dtypes,
    kept,
    made_again,
    nbytes,
    sharded_rows,
    trained_bytes,
)
from zett.plan.shapes import BODY, TRAINED, UPDATE, BaseShapes, Checks, How, Part, Shapes, base_of
from zett.plan.time import A_HYPERNET_LAYER, HYPERNET, Cost, optimizer_cost, widths
from zett.table import bucket

PIECES = 2.3  # source tokens that a token is made of; in sampled vocabularies 1.7 to 2.3 on average


# --------------------------------------------------------------------------------------------------------------- checks


def check_config(config: Config, checks: Checks) -> None:
    """Note what is wrong with the texts, tokenizers and hypernetworks that the run reads."""
    if not config.train.eval_targets:
        checks.faults.append("config.train.eval_targets is empty; name a tokenizer to evaluate on, such as bpe-8k")
    for spec in config.train.eval_targets:
        checks(_check_target, checks, spec)
    if config.start is not None:
        checks(_check_init, checks, config)
    checks.texts(config.data.text, config.data.valid_text, *config.sampler.texts)
    checks.chats(config.data.chats)


def _check_target(checks: Checks, spec: str) -> None:
    if parse_target(spec) is None:
        checks.tokenizer(spec, "config.train.eval_targets")


def _check_init(checks: Checks, config: Config) -> None:
    trained = checks.folder("hypernetwork", str(config.start), "config.start", load_hypernet)
    if trained is not None:
        check_init(config, trained)
        check_belongs(config.base, str(config.start))


def check_init(config: Config, trained: TrainedHypernet) -> None:
    """UserError unless training can start from `trained`, which `config.start` names. Its base model is not checked here."""
    if trained.base["fingerprint"] is None:
        raise UserError(
            f"config.start, {config.start}, cannot be trained further: its source tokenizer is not the base model's"
        )
    if trained.changes is not None and not config.train.body:
        raise UserError(
            f"config.start, {config.start}, changes the body of its base model, and config.train.body is False; set it to "
            "True, so that both are trained further"
        )
    theirs, ours = dataclasses.asdict(trained.config), dataclasses.asdict(config.hypernet)
    for name in ours:
        # A network without languages or distances learns them now, one without a second head begins with a copy of the first.
        learnt = name in ("languages", "distance", "untie") and not theirs[name]
        if name == "untie" and not trained.tied:  # where rows are not tied, it says nothing
            continue
        if ours[name] != theirs[name] and not learnt:
            raise UserError(f"config.hypernet.{name} is {ours[name]!r}, and config.start, {config.start}, has {theirs[name]!r}")


def _checked_base(config: Config) -> BaseShapes:
    base = base_of(config.base, hf_config_of(config.base))
    if not base.config.causal and not base.config.head:
        raise UserError(f"{base.name} is an encoder without a masked-language-model head, for which no hypernetwork is trained")
    if config.hypernet.bias and "bias" not in base.table:
        raise UserError(f"config.hypernet.bias is True, but {base.name} has no output bias")
    if config.data.length > base.config.room:
        raise UserError(f"config.data.length is {config.data.length}; {base.name} has positions for {base.config.room} tokens")
    check_taught(config.loss, base.name, base.config)
    return base


# --------------------------------------------------------------------------------------------------------------- shapes


@dataclasses.dataclass(frozen=True)
class _Step:
    """The step of a config, in shapes. rows: the most rows of the vocabulary that it predicts."""

    config: Config
    base: BaseShapes
    rows: int

    @functools.cached_property
    def hypernet(self) -> dict[str, tuple]:
        return hypernet_shapes(self.config.hypernet, self.base.config.hidden_size, "output" not in self.base.table)

    @functools.cached_property
    def trained(self) -> dict:
        return unflatten_dict({path: array(shape) for path, shape in self.hypernet.items()}, sep=".")

    @functools.cached_property
    def kept(self) -> Callable[[str, float], Kept]:
        """(remat, compute capability) -> what the backward pass of the hypernetwork keeps."""
        return functools.cache(functools.partial(_kept, self))

    @functools.cached_property
    def arrays(self) -> Callable[[float, str], list]:
        return functools.cache(functools.partial(_traced, self))

    @property
    def positions(self) -> int:
        """Of a packed row, P."""
        return self.config.hypernet.max_pieces + bool(self.config.hypernet.languages)

    @property
    def sources(self) -> int:
        """The most source rows that the tokens of a step can have as pieces."""
        return min(self.base.table["input"][0], self.rows * self.config.hypernet.max_pieces)


def most_rows(config: Config) -> int:
    """The most rows of the vocabulary that a step predicts."""
    return bucket(config.sampler.rows or config.sampler.max_size, 1024)


def shapes_of(config: Config) -> Shapes:
    """UserError if no hypernetwork can be trained for the base model with this config."""
    base, s = _checked_base(config), config.sampler
    mean = (s.max_size - s.min_size) / math.log(s.max_size / s.min_size) if s.max_size > s.min_size else s.max_size
    typical = s.rows or (s.max_size if s.sizes == "fixed" else round(mean))
    step = _Step(config, base, most_rows(config))
    body = BodyStep(config, base, trains=config.train.body)
    pieces = round(typical * (PIECES + bool(config.hypernet.languages)))
    work = hypernet_step(
        base.body, base.config, step.hypernet, batch=config.data.batch_size, length=config.data.length, rows=typical,
        pieces=pieces, distinct=min(step.sources, pieces), targets=body.targets,
        trained=config.train.body,
    )  # fmt: skip
    positions, source = config.data.batch_size * config.data.length, base.table["input"][0]
    work = work.taught(config.loss, base.config, positions=positions, rows=source)
    trained, specs = step.trained, match(step.hypernet, partition_rules(config.hypernet))
    if config.train.body:
        trained = trained | {CHANGES: body.params}
        specs |= {f"{CHANGES}.{p}": PartitionSpec(*spec) for p, spec in partition_specs(base.family, base.config).items()}
    held = trained_bytes(config, trained, specs)
    parts = functools.partial(_parts, step, body, held)
    costs = functools.partial(_costs, dataclasses.replace(step, rows=typical), body, held, work)
    note = f"{typical:,} rows predicted in a typical step, of {PIECES} source tokens each"
    return Shapes(base, trained, specs, typical, work, parts, costs, (note,))


def _parts(step: _Step, body: BodyStep, held: Callable, sizes: tuple[int, int, int], how: How) -> list[Part]:
    """What each device holds. held: of `trained_bytes`."""
    network = step.kept(how.remat_hypernet, how.capability if math.prod(sizes) == 1 else 0.0)
    mesh, (data, fsdp, tensor), base = abstract_mesh(sizes), sizes, step.base
    parameters, moments = held(sizes)
    # Each device predicts the rows of its own tokens. All of them have the same projected source rows.
    whole, devices = {step.sources, step.sources + step.config.hypernet.fallback_rows}, data * fsdp * tensor
    activations = sum(nbytes(a) / (1 if whole & set(a.shape[:1]) else devices) for a in network.arrays)
    both, products = (BODY, TRAINED), dtypes(step.config)[0]
    copies = products.itemsize + (4 if fsdp * tensor > 1 else 0)  # bytes of a number; what is cut is gathered in float32
    columns = base.config.hidden_size * kinds_of_rows(step.config.hypernet, "output" not in base.table)
    predicted = 4.0 * step.rows * (2 * columns + 1.5 * base.config.hidden_size)
    return [
        Part("frozen body", dataclasses.replace(body, trains=False).bytes(mesh)),
        Part("source rows", sharded_rows((base.table["input"][0], base.columns), mesh)),
        Part("hypernetwork, and changes of the body" if body.trains else "hypernetwork", parameters),
        Part("moments of the optimizer", moments),
        *averaged(step.config, parameters),
        # Products use whole kernels and give whole gradients, which are summed and cut afterwards.
        Part("its kernels, whole and in the dtype of products", kernels(step.hypernet) * copies, both),
        Part("activations of the hypernetwork", activations, both),
        Part("one of its layers, made again", network.layer / devices, (TRAINED,)),
        Part("predicted rows and their gradient", predicted, both),
        *body.parts(sizes, how, step.rows),
        *body.taught(sizes),
        Part("gradient of the hypernetwork", nbytes(step.trained), (TRAINED,)),
        *([Part("changed body and its gradient", 2 * body.bytes(mesh), (BODY, TRAINED))] if body.trains else []),
        Part("gradient and updates", 2 * parameters, (UPDATE,)),
    ]


def _costs(step: _Step, body: BodyStep, held: Callable, work: StepFlops, sizes: tuple[int, int, int], how: How) -> list[Cost]:
    """What each device has to do. step: a typical one; held: of `trained_bytes`."""
    c, number = step.config.hypernet, math.prod(sizes)
    # The end of the last layer and all that follows are computed once a token, the rest at every position of the packed rows.
    token_wise = rf"(heads\.|layers\.{c.layers - 1}\.(out|up|down)\.).*"
    both: tuple[list, list] = [], []
    for path, shape in step.hypernet.items():
        both[bool(re.match(token_wise, path))].append((path, shape))
    numbers = _packed_rows(step) * step.positions * widths(both[0]) + step.rows * widths(both[1])
    again = work.hypernet / 3 if how.remat_hypernet == "full" else 0.0
    parameters, _ = held(sizes)
    traffic = HYPERNET * numbers * dtypes(step.config)[1].itemsize
    matrices = [shape for path, shape in step.hypernet.items() if path.endswith("kernel")]
    return [
        *body.costs(sizes, how, step.rows, work),
        Cost("hypernet", (work.hypernet + again) / number, traffic / number, A_HYPERNET_LAYER * (c.layers + 1)),
        optimizer_cost(step.config.optim, parameters, matrices, step.config.train.average),
    ]


def _packed_rows(step: _Step) -> int:
    """As many as `pack_forms` makes of the pieces of a step."""
    language = len(step.config.hypernet.languages) > 0
    return bucket(math.ceil(step.rows * (PIECES + language) / step.positions), max(256, step.rows // 32))


def _kept(step: _Step, remat: str, capability: float) -> Kept:
    """What the backward pass of the hypernetwork keeps."""
    of, (_, activations) = functools.partial(step.arrays, capability), dtypes(step.config)
    arrays, most = of(remat), int(BETWEEN * nbytes(of("dots")))
    # No loop stacks what is kept here. So float32 copies of narrower activations are made in the kernels that read them.
    if activations.itemsize < 4 and nbytes(arrays) > most:
        arrays = [*of("dots"), array((most - int(nbytes(of("dots"))),), jnp.int8)]
    return Kept(arrays, made_again(remat, of, step.config.hypernet.layers + 1))


def _traced(step: _Step, capability: float, remat: str) -> list:
    """What it keeps, as it is traced."""
    c, columns_E, language = step.config.hypernet, step.base.columns, len(step.config.hypernet.languages) > 0
    products, activations = dtypes(step.config)
    n, p = _packed_rows(step), step.positions
    ids = functools.partial(array, dtype=jnp.int32)
    forms: dict[str, Any] = {name: ids((n, p)) for name in ("packed", "owner", "position")}
    forms |= {name: ids((step.rows,)) for name in ("first", "lengths")} | {"pieces": ids((step.rows, c.max_pieces))}
    forms |= {"features": array((step.rows, num_features(c))), "language": ids(()) if language else None}
    stats = array((columns_E,)), array((columns_E,))
    others = array((step.sources, columns_E)), PackedForms(**forms), stats
    tied, width = "output" not in step.base.table, step.base.config.hidden_size
    graphdef = hypernet_graph(c, width, tied, products, activations=activations, remat=remat)
    with attention_planned(step.config, capability):
        return kept(lambda params, *others: nnx.merge(graphdef, params)(*others), step.trained, *others)
