"""The recipe "hypernet": train a hypernetwork for a base model on tokenizers drawn anew at every step.

The base model is frozen, or with config.train.body its body is changed, too: by changes that serve all tokenizers.
"""

import dataclasses
import functools
import math
import re
from pathlib import Path
from typing import ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zett.config import Config
from zett.data.documents import Documents
from zett.data.masked import frame_of, text_room
from zett.data.rows import RowTexts
from zett.data.sources import open_text
from zett.errors import UserError
from zett.evaluate.cutting import byte_windows
from zett.evaluate.targets import load_target
from zett.evaluate.tasks import reading_task
from zett.evaluate.windows import text_to_measure
from zett.hypernet.base_rows import BaseRows
from zett.hypernet.network import (
    hypernet_graph,
    hypernet_shapes,
    kinds_of_rows,
    make_hypernet,
    partition_rules,
    predict,
    untied_params,
)
from zett.hypernet.release import CHANGES, load_hypernet
from zett.hypernet.scaling import column_stats, fit_scales, source_rows
from zett.hypernet.trained import TrainedHypernet
from zett.lms.attention import attention_by
from zett.lms.base import BaseModel, added, body_shapes, load_base_model
from zett.lms.body import Body
from zett.lms.family import family_of
from zett.lms.layers import activation_dtype, product_dtype
from zett.lms.weights import partition_specs
from zett.mesh import EVERYWHERE, REPLICATED, Rules, local_rows, paths, place, same_everywhere, sharding
from zett.objectives import OBJECTIVES, WeightedSum
from zett.objectives.setting import Setting, loss_positions
from zett.plan.flops import hypernet_step
from zett.progress import phase, say
from zett.recipes.hypernet_batches import Batches
from zett.recipes.hypernet_plan import check_config, check_init, most_rows, shapes_of
from zett.recipes.hypernet_release import release
from zett.table import EmbeddingTable
from zett.vocab.forms import DISTANCE
from zett.vocab.sampling.sampler import Sampler

OWN = "own tokenizer"  # what an evaluation calls that of the base model


class HypernetStep:
    """What a step computes. It needs no texts and no tokenizers: `HypernetRecipe` brings the batches, benchmarks others.

    Parameters: those of the hypernetwork, and with config.train.body beside them CHANGES, those of the body.
    """

    def __init__(self, config: Config, base: BaseModel, mesh: Mesh):
        self.config, self.base, self.mesh = config, base, mesh
        self.tokens_per_step = config.data.batch_size * config.data.length
        self.dtype = product_dtype(config.train.dtype)
        table = base.table
        self.hidden_size, self.tied = table.input.shape[1], table.output is None
        activations = activation_dtype(config.train.activations, self.dtype)
        self.graphdef = hypernet_graph(
            config.hypernet, self.hidden_size, self.tied, self.dtype,
            activations=activations, remat=config.train.remat_hypernet,
        )  # fmt: skip
        rows = source_rows(table)
        stats = column_stats([np.asarray(rows)], len(rows))
        rows = place(rows, sharding(mesh, PartitionSpec(None, ("fsdp", "tensor")), rows.shape))
        setting = Setting(
            base, mesh, self.dtype, activations, config.train.microbatches or 1, trains_body=config.train.body,
            loss=config.loss, source_rows=rows, positions=loss_positions(config, most_rows(config)),
            teacher=base if config.train.body else None,
        )  # fmt: skip
        self.objective = WeightedSum.of(OBJECTIVES, config.loss, setting)
        self.batch_specs = {"forms": EVERYWHERE, **self.objective.specs}
        self.frozen = {
            "body": base.params,
            "rows": rows,
            "stats": place(stats, jax.tree.map(lambda x: sharding(mesh, REPLICATED, x.shape), stats)),
            **self.objective.frozen(),
        }
        self.rules = rules_of(config, base)

    def init(self) -> dict:
        return fresh_params(self.config, self.base)

    def start(self) -> dict | None:
        c = self.config
        if c.start is None:
            # Fitting runs the fresh network on source rows, which `init`, being traced by jit without arguments, does not have.
            if c.hypernet.rescale != "fitted":
                return None
            params, changes = parts_of(self.init())
            fitted = fit_scales(self.graphdef, params, self.frozen["rows"], c.seed)
            return fitted if changes is None else fitted | {CHANGES: changes}
        trained = load_hypernet(c.start)
        check_init(c, trained)
        trained.check(self.base)
        params = trained.params
        if c.hypernet.languages and not trained.config.languages:
            params = params | {"languages": self.init()["languages"]}
        if kinds_of_rows(c.hypernet, self.tied) > trained.kinds:
            params = untied_params(params, c.hypernet)
        if c.hypernet.distance and not trained.config.distance:
            # What it has not read yet changes nothing at first.
            kernel = np.pad(params["features"]["kernel"], ((0, len(DISTANCE)), (0, 0)))
            params = params | {"features": params["features"] | {"kernel": kernel}}
        if not c.train.body:
            return params
        return params | {CHANGES: trained.changes or no_changes(self.base)}

    def loss(self, params, frozen, batch):
        params, changes = parts_of(params)
        body = frozen["body"] if changes is None else added(frozen["body"], changes)
        with attention_by(self.config.train.attention):
            table = self.table(params, frozen, batch)
            return self.objective(table, Body(self.base.graphdef, body), frozen, batch)

    def table(self, params, frozen, batch) -> EmbeddingTable:
        """The rows of the step: predicted ones, and the base's own of special tokens where texts are in turns."""
        # All parameters are gathered here. Without this, the compiler may gather activations, which are many times larger.
        params = jax.lax.with_sharding_constraint(params, NamedSharding(self.mesh, REPLICATED))
        hypernet = nnx.merge(self.graphdef, params)
        rows = predict(hypernet, frozen["rows"][batch["sources"]], batch["forms"], frozen["stats"], self.mesh)
        if "special" in batch:  # as in a transfer
            own = frozen["rows"][batch["special_sources"]]
            rows = rows.at[batch["special"], : own.shape[1]].set(own.astype(rows.dtype))
        return self._table(rows, batch)

    def _table(self, rows_RE, batch) -> EmbeddingTable:
        """The predicted rows as a table. Rows that also stand for others get the batch's log weights added to their logits."""
        d, bias = self.hidden_size, batch["log_weight"] + batch.get("bias", 0.0)
        if self.config.hypernet.bias:
            rows_RE, bias = rows_RE[:, :-1], bias + rows_RE[:, -1]
        both = kinds_of_rows(self.config.hypernet, self.tied) == 2
        return EmbeddingTable(rows_RE[:, :d], rows_RE[:, d:] if both else None, bias, batch["num_valid"])

    def flops(self, batch) -> float:
        """Counted FLOPs of a step: padding is left out, and each token counts with as many pieces as it has."""
        valid, forms, data = int(batch["num_valid"]), batch["forms"], self.config.data
        # `pack_forms` puts token i into group i % G, at place i // G.
        lengths = np.asarray(forms.lengths).T.reshape(-1)[:valid] + (forms.language is not None)
        # With config.loss.token at 0 no text goes through the body.
        read, targets = (data.batch_size, batch["targets"].shape[1]) if "targets" in batch else (0, 0)
        step = hypernet_step(
            *self._shapes, batch=read, length=data.length, rows=valid, pieces=int(lengths.sum()),
            distinct=len(np.unique(batch["sources"])), targets=read * targets, trained=self.config.train.body,
        )  # fmt: skip
        rows = len(self.base.table.input)
        return step.taught(self.config.loss, self.base.config, positions=read * data.length, rows=rows).total

    @functools.cached_property
    def _shapes(self) -> tuple:
        """Shapes of the body, config of the body, shapes of the hypernetwork."""
        hypernet = hypernet_shapes(self.config.hypernet, self.hidden_size, self.tied)
        return {path: x.shape for path, x in paths(self.frozen["body"]).items()}, self.base.config, hypernet


class HypernetRecipe(HypernetStep):
    """The step with its base model, texts and tokenizers. All of them are read when it is made, and nothing later."""

    sections: ClassVar[frozenset[str]] = frozenset({"base", "hypernet", "sampler", "loss"})
    check = staticmethod(check_config)
    shapes = staticmethod(shapes_of)

    def __init__(self, config: Config, workdir: Path, mesh: Mesh):
        self.workdir = workdir
        if jax.process_count() > 1 and config.sampler.rows:
            raise UserError(
                f"config.sampler.rows is {config.sampler.rows}; with several processes, none of which knows the others' texts, "
                "it has to be 0: all rows are predicted"
            )
        dtype = product_dtype(config.train.dtype).name
        # A frozen body is kept in the dtype of its matrix products, which gives the same numbers in half the memory.
        with phase(f"reading the base model {config.base}"):
            base = load_base_model(config.base, dtype=dtype, param_dtype=dtype, remat=config.train.remat, mesh=mesh)
        # The source table is only needed for evaluation. On every device it would take gigabytes, so it stays on the host.
        base = dataclasses.replace(base, table=jax.tree.map(np.asarray, base.table))
        if config.start is not None:  # checked first, since everything after this is slow
            fit = load_hypernet(config.start).fit(base)
            say(f"starting from {config.start}: {base.name} is {fit.words('its base model')}")
        length = _text_length(config, base)
        super().__init__(config, base, mesh)
        self._open_texts(length)
        self.task = reading_task(base, dtype=self.dtype)
        self.items = self.task.items(base, self.windows)

    def _open_texts(self, length: int) -> None:
        # Every host reads the same text for drawing tokenizers and for evaluation. The text to train on is opened in parts, and
        # each host reads only the parts that its rows of the batch need.
        config, data = self.config, self.config.data
        opened = functools.partial(
            open_text, text_column=data.text_column, package_bytes=data.package_bytes,
            stream_bytes=min(data.stream_bytes, config.sampler.stream_bytes),
        )  # fmt: skip
        with phase("opening the texts"):
            self.documents: Documents = opened(data.text, split="train")
            training = [data.text, *config.sampler.texts]
            held_out = text_to_measure(data.valid_text or data.text, training, opened, data.text_column)
            sources = [opened(spec, split="train") for spec in config.sampler.texts] or [self.documents]
        sampler = Sampler(config.sampler, sources, self.base.vocab, config.hypernet.max_pieces, config.seed)
        rows = local_rows(self.mesh, data.batch_size)
        with phase("reading the texts of the batches, and held-out text"):
            texts = [RowTexts(s, rows, data) for s in (sources if config.sampler.one_text else [self.documents])]
            # A tokenizer makes at most one token a byte, and perhaps a mark or two in front.
            room = 512 if self.base.config.causal else min(512, text_room(self.base, frame_of(self.base)) - 8)
            self.windows = byte_windows(held_out, window=room, count=config.train.eval_windows)
        self.batch = Batches(config, self.base, self.mesh, self.objective, sampler, texts, length)
        if jax.process_count() > 1 and not same_everywhere([*self.windows, *sampler.draw(0).tokens]):
            raise UserError(
                "the processes of this run have read different text for their tokenizers or for evaluation: give them the same "
                "files, and of data sets on the Hub the same revision (hf:NAME?revision=...)"
            )

    def evaluate(self, params) -> dict[str, float]:
        """Zero-shot bits per byte (masked ones of an encoder) with unseen tokenizers, divided by the original model's.

        Where the body is trained, also (OWN) what the model has become with the tokenizer that it had; the score leaves it out.
        """
        trained = trained_for(self.base, self.config, params)
        adapted = trained.adapted(self.base)
        language = 0 if self.config.hypernet.languages else None  # that of the first text
        results = {}
        for spec, target in self._targets.items():
            table = trained(self.base, target, language=language, dtype=self.dtype)
            results[spec] = self._score(adapted.with_vocabulary(table, target)) / self._original
        own = {} if adapted is self.base else {OWN: self._score(adapted) / self._original}
        return results | own | {"score": math.exp(sum(map(math.log, results.values())) / len(results))}

    @functools.cached_property
    def _targets(self) -> dict:
        return {spec: load_target(spec, self.documents) for spec in self.config.train.eval_targets}

    @functools.cached_property
    def _original(self) -> float:
        return self._score(self.base)

    def _score(self, model: BaseModel) -> float:
        return self.items.mean(self.task.score(model, self.items))

    def export(self, params, folder: Path, record: dict) -> None:
        release(folder, trained_for(self.base, self.config, params), self.base, self.config, record, self.workdir)

    @classmethod
    def to_export(cls, config: Config, workdir: Path, mesh: Mesh) -> Self:
        recipe = cls.__new__(cls)
        recipe.config, recipe.base, recipe.workdir = config, load_base_model(config.base, body=False), workdir
        recipe.rules = rules_of(config, recipe.base)
        return recipe


def _text_length(config: Config, base: BaseModel) -> int:
    """Tokens of a text in a row of the batch; UserError if the base model cannot be trained with this config."""
    length = config.data.length
    if config.hypernet.bias and base.table.bias is None:
        raise UserError(f"config.hypernet.bias is True, but {base.name} has no output bias that could be predicted")
    if base.config.causal:
        return length
    frame = frame_of(base)
    most = text_room(base, frame) + len(frame)
    if not len(frame) < length <= most:
        raise UserError(
            f"config.data.length is {length}; of {base.name} it has to be above {len(frame)}, the tokens that stand "
            f"around a text, and at most {most}, the positions that it has"
        )
    return length - len(frame)


def fresh_params(config: Config, base: BaseModel) -> dict:
    """Fresh parameters of the hypernetwork, float32, and where the body is trained, changes of it that change nothing yet."""
    tied, dtype = base.table.output is None, product_dtype(config.train.dtype)
    network = make_hypernet(config.hypernet, base.table.input.shape[1], tied, dtype, config.seed)
    params = nnx.to_pure_dict(nnx.split(network)[1])
    return params | {CHANGES: no_changes(base)} if config.train.body else params


def no_changes(base: BaseModel) -> dict:
    """Zeros in the shapes of its body."""
    shapes = body_shapes(family_of(base.hf_config), base.config)
    return unflatten_dict({path: jnp.zeros(shape) for path, shape in shapes.items()}, sep=".")


def parts_of(params: dict) -> tuple[dict, dict | None]:
    """The hypernetwork's parameters, and the changes of the body, if there are any."""
    return {name: part for name, part in params.items() if name != CHANGES}, params.get(CHANGES)


def rules_of(config: Config, base: BaseModel) -> Rules:
    """How all that is trained lies on a mesh."""
    rules = partition_rules(config.hypernet)
    if not config.train.body:
        return rules
    specs = partition_specs(family_of(base.hf_config), base.config)
    body = [(rf"{CHANGES}\.{re.escape(path)}", PartitionSpec(*spec)) for path, spec in specs.items()]
    return [*((rf"(?!{CHANGES}\.)(?:{rule})", spec) for rule, spec in rules), *body]


def trained_for(base: BaseModel, config: Config, params) -> TrainedHypernet:
    """The hypernetwork of a run, for its base model."""
    params, changes = parts_of(params)
    name = {"name": base.name, "fingerprint": base.fingerprint}
    width, tied = base.table.input.shape[1], base.table.output is None
    return TrainedHypernet(config.hypernet, params, width, tied, name, base_rows=BaseRows.of(base.table), changes=changes)
