"""Task "hypernet": train a hypernetwork for a frozen base model on tokenizers drawn at every step."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zett.cards import training_card
from zett.config import Config
from zett.data.documents import Documents
from zett.data.masked import embed, frame_of, masked_texts, text_room
from zett.data.rows import RowTexts
from zett.data.sources import open_text
from zett.errors import UserError
from zett.evaluate.bpb import byte_windows
from zett.evaluate.measure import measure_of
from zett.evaluate.windows import text_to_measure
from zett.flops import hypernet_step
from zett.hypernet import (
    TrainedHypernet,
    bias_residual,
    column_stats,
    fit_scales,
    hypernet_graph,
    hypernet_shapes,
    load_hypernet,
    make_hypernet,
    pack_forms,
    partition_rules,
    predict,
    renumbered,
    save_hypernet,
    source_rows,
)
from zett.lms import BaseModel, load_base_model
from zett.lms.layers import activation_dtype, product_dtype
from zett.losses import chunked_cross_entropy, summed
from zett.mesh import (
    BATCH,
    EVERYWHERE,
    REPLICATED,
    Rules,
    local_rows,
    make_mesh,
    paths,
    place,
    same_everywhere,
    sharding,
)
from zett.progress import phase
from zett.table import bucket
from zett.vocab import surface_forms
from zett.vocab.sampling.sampler import Sampler


class HypernetLoss:
    """What a step computes. It needs no texts and no tokenizers: `HypernetTask` brings the batches, benchmarks others."""

    batch_specs: ClassVar[Mapping[str, PartitionSpec]] = {
        **dict.fromkeys(("inputs", "mask", "columns", "targets", "weights", "bytes"), BATCH),
        "forms": EVERYWHERE,
    }

    def __init__(self, config: Config, base: BaseModel, mesh: Mesh):
        self.config, self.base, self.mesh = config, base, mesh
        self.tokens_per_step = config.data.batch_size * config.data.length
        self.dtype = product_dtype(config.train.dtype)
        table = base.table
        self.hidden_size, self.tied = table.input.shape[1], table.output is None
        self.activations = activation_dtype(config.train.activations, self.dtype)
        self.graphdef = hypernet_graph(
            config.hypernet, self.hidden_size, self.tied, self.dtype,
            activations=self.activations, remat=config.train.remat_hypernet,
        )  # fmt: skip
        rows = source_rows(table)
        stats = column_stats([np.asarray(rows)], len(rows))
        self.frozen = {
            "body": base.params,
            "rows": place(rows, sharding(mesh, PartitionSpec(None, ("fsdp", "tensor")), rows.shape)),
            "stats": place(stats, jax.tree.map(lambda x: sharding(mesh, REPLICATED, x.shape), stats)),
        }
        # The objective follows from the base: the next token, or of an encoder's texts those that are hidden.
        self.frame = None if base.causal else frame_of(base)
        own = {"bos": base.bos_row} if self.frame is None else {"frame": self.frame.rows(table.input)}
        self.frozen |= {name: place(x, sharding(mesh, REPLICATED, x.shape)) for name, x in own.items()}
        self.rules: Rules = partition_rules(config.hypernet)

    def init(self):
        c = self.config
        if c.init is None:
            fresh = fresh_params(c, self.base)
            fitted = c.hypernet.rescale == "fitted"
            return fit_scales(self.graphdef, fresh, self.frozen["rows"], c.seed) if fitted else fresh
        trained = load_hypernet(c.init)
        check_init(c, trained)
        trained.check_base(self.base.fingerprint)
        params = trained.params
        if c.hypernet.languages and not trained.config.languages:
            params = params | {"languages": fresh_params(c, self.base)["languages"]}
        return jax.tree.map(jnp.asarray, params)

    def loss(self, params, frozen, batch):
        # Left to itself the compiler may gather activations, which are many times larger than the parameters.
        params = jax.lax.with_sharding_constraint(params, NamedSharding(self.mesh, REPLICATED))
        hypernet = nnx.merge(self.graphdef, params)
        rows = predict(hypernet, frozen["rows"][batch["sources"]], batch["forms"], frozen["stats"], self.mesh)
        constants = {name: batch[name] for name in ("log_weight", "num_valid", "bias") if name in batch}
        constants |= {name: frozen[name] for name in ("body", "bos", "frame") if name in frozen}
        texts = {name: batch[name] for name in ("inputs", "mask", "columns", "targets", "weights") if name in batch}
        nats = summed(self._nats, rows, constants, texts, self.config.train.microbatches)
        lm = nats / jnp.maximum(batch["weights"].sum(), 1)
        lexical = self._lexical(rows, frozen["rows"], batch)
        metrics = {"lm": lm, "lexical": lexical, "bits_per_byte": nats / math.log(2) / batch["bytes"].sum()}
        return lm + self.config.loss.lexical * lexical, metrics

    def _nats(self, rows, constants, texts):
        """Negative log-likelihood of `texts`, or of what is hidden in them, with the predicted rows."""
        d, targets = self.hidden_size, texts["targets"]
        body = nnx.merge(self.base.graphdef, constants["body"])
        by_row = NamedSharding(self.mesh, BATCH)
        if self.frame is None:
            first = jnp.broadcast_to(constants["bos"], (targets.shape[0], 1, d))
            x = jnp.concatenate([first, rows[:, :d][targets[:, :-1]]], 1).astype(self.activations)
            h = body(jax.lax.with_sharding_constraint(x, by_row))
        else:
            x = embed(rows[:, :d], constants["frame"], texts["inputs"]).astype(self.activations)
            h = body(jax.lax.with_sharding_constraint(x, by_row), mask_BL=texts["mask"])
            h = jnp.take_along_axis(h, texts["columns"][..., None], 1)  # the others need no logits
        bias = constants["log_weight"] + constants.get("bias", 0.0)
        if self.config.hypernet.bias:
            rows, bias = rows[:, :-1], bias + rows[:, -1]
        return chunked_cross_entropy(
            h, rows[:, -d:], bias, targets, texts["weights"], num_valid=constants["num_valid"],
            softcap=self.base.config.logit_softcap, chunk=1024 * self.mesh.shape["data"] * self.mesh.shape["fsdp"],
            dtype=self.dtype,
        )  # fmt: skip

    def flops(self, batch) -> float:
        """Counted FLOPs of a step: those of the batch's tokens, with as many pieces as they have."""
        valid, forms, data = int(batch["num_valid"]), batch["forms"], self.config.data
        # Token i is in group i % G, at place i // G.
        lengths = np.asarray(forms.lengths).T.reshape(-1)[:valid] + (forms.language is not None)
        return hypernet_step(
            *self._shapes, batch=data.batch_size, length=data.length, rows=valid, pieces=int(lengths.sum()),
            distinct=len(batch["sources"]), targets=data.batch_size * batch["targets"].shape[1],
        ).total  # fmt: skip

    @functools.cached_property
    def _shapes(self) -> tuple:
        """Shapes of the body, its config, shapes of the hypernetwork."""
        hypernet = hypernet_shapes(self.config.hypernet, self.hidden_size, self.tied)
        return {path: x.shape for path, x in paths(self.frozen["body"]).items()}, self.base.config, hypernet

    def _lexical(self, rows, source, batch):
        """Tokens that the source has should keep their rows: distance over the mean row norm, input and output averaged."""
        d = self.hidden_size
        # Every device has all rows, and here looks at some.
        rows = jax.lax.with_sharding_constraint(rows, sharding(self.mesh, EVERYWHERE, rows.shape[:1]))
        shared = (batch["same"] >= 0) & (jnp.arange(rows.shape[0]) < batch["num_valid"])
        total = 0.0
        for side in range(rows.shape[1] // d):
            mine, theirs = rows[:, side * d : (side + 1) * d], source[:, side * d : (side + 1) * d]
            # The root of a sum has no gradient at zero, where training starts; the small term gives it one.
            distance = jnp.sqrt(jnp.square(mine - theirs[batch["same"]]).sum(-1) + 1e-8)
            scale = jnp.linalg.norm(theirs, axis=-1).mean()
            total += jnp.where(shared, distance, 0.0).sum() / jnp.maximum(shared.sum(), 1) / scale
        return total / (rows.shape[1] // d)


class HypernetTask(HypernetLoss):
    def __init__(self, config: Config, workdir: Path, mesh: Mesh | None = None):
        data = config.data
        mesh = make_mesh(config.mesh) if mesh is None else mesh
        self.workdir = workdir
        if jax.process_count() > 1 and config.sampler.rows:
            raise UserError(
                f"config.sampler.rows is {config.sampler.rows}; with several processes, none of which knows the others' texts, "
                "it has to be 0: all rows are predicted"
            )
        dtype = product_dtype(config.train.dtype).name
        # A frozen body is kept in the operand type of its products: half the memory, the same numbers.
        with phase(f"reading the base model {config.base}"):
            base = load_base_model(config.base, dtype=dtype, param_dtype=dtype, remat=config.train.remat, mesh=mesh)
        # The table as it is serves evaluation alone, and would fill gigabytes of every device.
        base = dataclasses.replace(base, table=jax.tree.map(np.asarray, base.table))
        if config.init is not None:  # now, since all that follows takes its time
            load_hypernet(config.init).check_base(base.fingerprint)
        super().__init__(config, base, mesh)
        self.measure = measure_of(base)
        self.text_length = self._checked_length()
        self.bias = None if base.table.bias is None else np.asarray(base.table.bias)
        # What tokenizers are drawn from and measured on is the same on every host; of texts, each reads what its rows need.
        sample_bytes = min(data.stream_bytes, config.sampler.stream_bytes)
        opened = functools.partial(
            open_text, text_column=data.text_column, package_bytes=data.package_bytes, stream_bytes=sample_bytes
        )
        with phase("opening the texts"):
            self.documents: Documents = opened(data.source, split="train")
            training = [data.source, *config.sampler.sources]
            held_out = text_to_measure(data.valid_source or data.source, training, opened, data.text_column)
            sources = [opened(spec, split="train") for spec in config.sampler.sources] or [self.documents]
        self.sampler = Sampler(config.sampler, sources, self.base.vocab, config.hypernet.max_pieces, config.seed)
        rows = local_rows(mesh, data.batch_size)
        with phase("reading the texts of the batches, and held-out text"):
            self.texts = [RowTexts(s, rows, data) for s in (sources if config.sampler.one_source else [self.documents])]
            # No tokenizer makes more tokens than bytes, but for a mark or two in front.
            window = 512 if self.frame is None else min(512, text_room(base, self.frame) - 8)
            self.windows = byte_windows(held_out, window=window, count=config.train.eval_windows)
        if jax.process_count() > 1 and not same_everywhere([*self.windows, *self.sampler.draw(0).tokens]):
            raise UserError(
                "the processes of this run have read different text for their tokenizers or for evaluation: give them the same "
                "files, and of data sets on the Hub the same revision (hf:NAME?revision=...)"
            )
        self._targets: list | None = None

    def _checked_length(self) -> int:
        """Tokens of a text in a row of the batch; UserError if the base model cannot be trained with this config."""
        length, base = self.config.data.length, self.base
        if self.config.hypernet.bias and base.table.bias is None:
            raise UserError(f"config.hypernet.bias is True, but {base.name} has no output bias that could be predicted")
        if self.frame is None:
            return length
        most = text_room(base, self.frame) + len(self.frame)
        if not len(self.frame) < length <= most:
            raise UserError(
                f"config.data.length is {length}; of {base.name} it has to be above {len(self.frame)}, the tokens that stand "
                f"around a text, and at most {most}, the positions that it has"
            )
        return length - len(self.frame)

    # ------------------------------------------------------------------------------------------------------ batches

    def batch(self, step: int, rows: np.ndarray | None = None) -> dict:
        """The texts `rows` of the step (None: all), in its tokenizer. Ids count within the R predicted rows.

        These are the tokens of the batch, then random others; with config.sampler.rows = 0 all tokens in their own order. What
        an encoder's tokenizer puts around a text counts among the config.data.length tokens of a row.
        """
        length, room = self.text_length, self.config.sampler.rows
        draw = self.sampler.draw(step)
        rows = np.arange(self.config.data.batch_size) if rows is None else rows
        texts, seed = self.texts[draw.source or 0], [self.config.seed, step, 0]
        excerpts = [_excerpt(texts[b], np.random.default_rng([*seed, b]), length) for b in map(int, rows)]
        ids, lengths = draw.encode(excerpts, length)
        inside = np.arange(length) < np.maximum(lengths, 1)[:, None]
        ids = np.where(inside, ids, ids[:, :1])  # filled with a token that is used anyway; its weight is 0
        size = len(draw.forms)
        if room:
            used, targets = np.unique(ids, return_inverse=True)
            others = np.setdiff1d(np.flatnonzero(draw.forms.lengths), used, assume_unique=True)
            room = bucket(max(room, len(used) + 256), 1024)
            chosen = np.random.default_rng([self.config.seed, step, 4]).permutation(others)[: room - len(used)]
            predicted = np.concatenate([used, chosen])
        else:
            targets, predicted, room = ids, np.arange(size), bucket(size, 1024)
            used = chosen = others = predicted
        # The others stand for all tokens that are not in the batch: each counts as many times as it has unseen siblings.
        log_weight = np.zeros(room, np.float32)
        log_weight[len(used) : len(predicted)] = math.log(len(others) / len(chosen)) if len(chosen) else 0.0
        forms = draw.forms.take(np.pad(predicted, (0, room - len(predicted)), mode="edge"))
        language = draw.source if self.config.hypernet.languages else None
        packed = pack_forms(forms, multiple=max(256, room // 32), language=language, groups=self.mesh.size)
        sources, packed = renumbered(packed, len(self.base.vocab), multiple=self.mesh.size)
        targets, token_bytes = targets.reshape(ids.shape).astype(np.int32), draw.tokens.lengths[ids]
        if self.frame is None:
            by_row = {"targets": targets, "weights": inside.astype(np.float32)}
            by_row["bytes"] = np.where(inside, token_bytes, 0).sum(1).astype(np.float32)
        else:
            rngs = [np.random.default_rng([self.config.seed, step, 8, b]) for b in map(int, rows)]
            ordinary = np.flatnonzero(forms.lengths[: len(predicted)])
            share = self.config.loss.mask_share
            by_row = masked_texts(self.frame, targets, lengths, token_bytes, share, rngs, ordinary)
        bias = {} if self.bias is None else {"bias": bias_residual(self.config.hypernet, self.bias, forms)}
        return {
            **by_row,
            **bias,
            "sources": sources,
            "forms": packed,
            "log_weight": log_weight,
            "num_valid": np.int32(len(predicted)),
            "same": forms.same,
        }

    # --------------------------------------------------------------------------------------------------- evaluation

    def evaluate(self, params) -> dict[str, float]:
        """Zero-shot bits per byte (of an encoder masked ones) on unseen tokenizers, as ratios to the original model's."""
        if self._targets is None:
            from zett.evaluate.targets import load_target

            targets = [load_target(spec, self.documents) for spec in self.config.train.eval_targets]
            s = self.config.hypernet.max_pieces
            self._targets = [
                (spec, target, surface_forms(target, self.base.vocab, s), self.measure.encode(self.windows, target.tokenizer))
                for spec, target in zip(self.config.train.eval_targets, targets)
            ]
            own = self.measure.encode(self.windows, self.base.vocab.tokenizer)
            self._original = self._bits(self.base.table, own)
        results = {}
        for spec, target, forms, windows in self._targets:
            language = 0 if self.config.hypernet.languages else None  # of the first source
            table = trained_for(self.base, self.config, params)(
                self.base.table, self.base.vocab, target, forms, language=language, dtype=self.dtype
            )
            results[spec] = self._bits(table.pad(bucket(len(target))), windows) / self._original
        return results | {"score": math.exp(sum(map(math.log, results.values())) / len(results))}

    def _bits(self, table, windows) -> float:
        return self.measure.bits(self.frozen["body"], table, windows, dtype=self.dtype)

    def export(self, params, folder: Path, record: dict) -> None:
        release(folder, self.config, self.base, params, record, self.workdir)


def check_init(config: Config, trained: TrainedHypernet) -> None:
    """UserError unless training can go on from `trained`, which is `config.init`; its base model is not looked at."""
    if trained.base["fingerprint"] is None:
        raise UserError(f"config.init, {config.init}, cannot be trained further: its source tokenizer is not the base model's")
    theirs, ours = dataclasses.asdict(trained.config), dataclasses.asdict(config.hypernet)
    for name in ours:
        learnt = name == "languages" and not theirs[name]  # from here on
        if ours[name] != theirs[name] and not learnt:
            raise UserError(f"config.hypernet.{name} is {ours[name]!r}, and config.init, {config.init}, has {theirs[name]!r}")


def fresh_params(config: Config, base) -> dict:
    """Parameters to start from, float32."""
    tied, dtype = base.table.output is None, product_dtype(config.train.dtype)
    return nnx.to_pure_dict(nnx.split(make_hypernet(config.hypernet, base.table.input.shape[1], tied, dtype, config.seed))[1])


def trained_for(base, config: Config, params) -> TrainedHypernet:
    """The hypernetwork of a run, for its base model."""
    name = {"name": base.name, "fingerprint": base.fingerprint}
    return TrainedHypernet(config.hypernet, params, base.table.input.shape[1], base.table.output is None, name)


def release(folder: Path, config: Config, base, params, record: dict, workdir: Path) -> None:
    """Write what a run in `workdir` has made; record: its "step" and "config"."""
    save_hypernet(folder, trained_for(base, config, jax.tree.map(np.asarray, params)), base.vocab, record)
    card = training_card(f"Hypernetwork for {base.name}", _about(config, base, params, record), workdir, record)
    (folder / "README.md").write_text(card)


def _about(config: Config, base, params, record: dict) -> str:
    size = sum(x.size for x in jax.tree.leaves(params))
    sources = ", ".join(map(repr, config.sampler.sources or (config.data.source,)))
    return f"""
Predicts embedding tables that make the base model {base.name!r} work with other tokenizers, zero-shot. Trained by
zett.

- Base model: {base.name}, fingerprint {base.fingerprint[:16]}; it works with this one alone
- Parameters: {size:,}
- Data: {config.data.source!r}; tokenizers drawn from {sources}
- Steps: {record["step"]:,} of {config.data.batch_size * config.data.length:,} tokens, a new tokenizer each
- Numbers below: {"" if base.causal else "masked "}bits per byte over the original model's, on tokenizers never trained on
- Licence of the weights: Apache-2.0
- Use: `zett transfer --model {base.name} --hypernet FOLDER --tokenizer DIR --output DIR`
"""


def _excerpt(documents: Documents, rng: np.random.Generator, length: int) -> str:
    """Text for `length` tokens from a random place, at a line's beginning, in a random document."""
    text = documents[int(rng.integers(len(documents)))]
    start = int(rng.integers(max(len(text) - 4 * length, 1)))
    start = text.find("\n", start) + 1 if start else 0
    # Twelve characters a token are more than any tokenizer packs into one on average.
    return text[start : start + 12 * length]
