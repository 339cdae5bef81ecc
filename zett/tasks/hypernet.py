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
from zett.data.parts import RowTexts
from zett.data.text import Documents, open_text
from zett.errors import UserError
from zett.evaluate.bpb import bits_per_byte, byte_windows, encode_windows
from zett.hypernet import (
    TrainedHypernet,
    column_stats,
    fit_scales,
    hypernet_graph,
    load_hypernet,
    make_hypernet,
    pack_forms,
    partition_rules,
    predict,
    renumbered,
    save_hypernet,
    source_rows,
)
from zett.lms import BaseModel, check_causal, load_base_model
from zett.lms.layers import activation_dtype, product_dtype
from zett.losses import chunked_cross_entropy, summed
from zett.mesh import BATCH, EVERYWHERE, REPLICATED, Rules, local_rows, make_mesh, place, same_everywhere, sharding
from zett.table import bucket
from zett.vocab import surface_forms
from zett.vocab.sample import Sampler


class HypernetLoss:
    """What a step computes. It needs no texts and no tokenizers: `HypernetTask` brings the batches, benchmarks others."""

    batch_specs: ClassVar[Mapping[str, PartitionSpec]] = {
        "targets": BATCH,
        "weights": BATCH,
        "bytes": BATCH,
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
        # A frozen body is read in the operand type of its products: half the memory traffic, the same numbers.
        body = jax.tree.map(lambda x: x.astype(self.dtype if x.ndim > 2 else jnp.float32), base.params)
        rows = source_rows(table)
        stats = column_stats([np.asarray(rows)], len(rows))
        self.frozen = {
            "body": body,
            "rows": place(rows, sharding(mesh, PartitionSpec(None, ("fsdp", "tensor")), rows.shape)),
            "stats": place(stats, jax.tree.map(lambda x: sharding(mesh, REPLICATED, x.shape), stats)),
            "bos": place(base.bos_row, sharding(mesh, REPLICATED, base.bos_row.shape)),
        }
        self.rules: Rules = partition_rules(config.hypernet)

    def init(self):
        c = self.config
        if c.init is None:
            fresh = fresh_params(c, self.base)
            fitted = c.hypernet.rescale == "fitted"
            return fit_scales(self.graphdef, fresh, self.frozen["rows"], c.seed) if fitted else fresh
        trained = load_hypernet(c.init)
        if trained.base["fingerprint"] is None:
            raise UserError(f"config.init, {c.init}, cannot be trained further: its source tokenizer is not the base model's")
        trained.check_base(self.base.fingerprint)
        params, known = trained.params, trained.config
        if c.hypernet.languages and not known.languages:  # it learns languages from here on
            params = params | {"languages": fresh_params(c, self.base)["languages"]}
            known = dataclasses.replace(known, languages=c.hypernet.languages)
        if known != c.hypernet:
            theirs, ours = dataclasses.asdict(known), dataclasses.asdict(c.hypernet)
            name = next(n for n in ours if ours[n] != theirs[n])
            raise UserError(f"config.hypernet.{name} is {ours[name]!r}, and config.init, {c.init}, has {theirs[name]!r}")
        return jax.tree.map(jnp.asarray, params)

    def loss(self, params, frozen, batch):
        hypernet = nnx.merge(self.graphdef, params)
        rows = predict(hypernet, frozen["rows"][batch["sources"]], batch["forms"], frozen["stats"])
        rows = jax.lax.with_sharding_constraint(rows, NamedSharding(self.mesh, REPLICATED))  # gathered here, once
        constants = {name: batch[name] for name in ("log_weight", "num_valid")} | {
            name: frozen[name] for name in ("body", "bos")
        }
        texts = {name: batch[name] for name in ("targets", "weights")}
        nats = summed(self._nats, rows, constants, texts, self.config.train.microbatches)
        lm = nats / batch["weights"].sum()
        lexical = self._lexical(rows, frozen["rows"], batch)
        metrics = {"lm": lm, "lexical": lexical, "bits_per_byte": nats / math.log(2) / batch["bytes"].sum()}
        return lm + self.config.loss.lexical * lexical, metrics

    def _nats(self, rows, constants, texts):
        """Negative log-likelihood of `texts` with the predicted rows."""
        d, targets = self.hidden_size, texts["targets"]
        first = jnp.broadcast_to(constants["bos"], (targets.shape[0], 1, d))
        x = jnp.concatenate([first, rows[:, :d][targets[:, :-1]]], 1).astype(self.activations)
        body = nnx.merge(self.base.graphdef, constants["body"])
        h = body(jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, BATCH)))
        return chunked_cross_entropy(
            h, rows[:, -d:], constants["log_weight"], targets, texts["weights"], num_valid=constants["num_valid"],
            softcap=self.base.config.logit_softcap, chunk=1024 * self.mesh.shape["data"] * self.mesh.shape["fsdp"],
            dtype=self.dtype,
        )  # fmt: skip

    def _lexical(self, rows, source, batch):
        """Tokens that the source has should keep their rows: distance over the mean row norm, input and output averaged."""
        d = self.hidden_size
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
        base = load_base_model(config.base, dtype=dtype, remat=config.train.remat, mesh=mesh)
        check_causal(base)
        super().__init__(config, base, mesh)
        # What tokenizers are drawn from and measured on is the same on every host; of texts, each reads what its rows need.
        sample_bytes = min(data.stream_bytes, config.sampler.stream_bytes)
        opened = functools.partial(
            open_text, text_column=data.text_column, package_bytes=data.package_bytes, stream_bytes=sample_bytes
        )
        self.documents: Documents = opened(data.source, split="train")
        held_out = opened(data.valid_source or data.source, split="valid")
        sources = [opened(spec, split="train") for spec in config.sampler.sources] or [self.documents]
        self.sampler = Sampler(config.sampler, sources, self.base.vocab, config.hypernet.max_pieces, config.seed)
        rows = local_rows(mesh, data.batch_size)
        self.texts = [RowTexts(s, rows, data) for s in (sources if config.sampler.one_source else [self.documents])]
        self.windows = byte_windows(held_out, count=config.train.eval_windows)
        if jax.process_count() > 1 and not same_everywhere([*self.windows, *self.sampler.draw(0).tokens]):
            raise UserError(
                "the processes of this run have read different text for their tokenizers or for evaluation: give them the same "
                "files, and of data sets on the Hub the same revision (hf:NAME?revision=...)"
            )
        self._targets: list | None = None

    # ------------------------------------------------------------------------------------------------------ batches

    def batch(self, step: int, rows: np.ndarray | None = None) -> dict:
        """The texts `rows` of the step (None: all), in its tokenizer. Ids count within the R predicted rows.

        These are the tokens of the batch, then random others; with config.sampler.rows = 0 all tokens in their own order.
        """
        data, room = self.config.data, self.config.sampler.rows
        draw = self.sampler.draw(step)
        rows = np.arange(data.batch_size) if rows is None else rows
        texts, seed = self.texts[draw.source or 0], [self.config.seed, step, 0]
        excerpts = [_excerpt(texts[b], np.random.default_rng([*seed, b]), data.length) for b in map(int, rows)]
        ids, lengths = draw.encode(excerpts, data.length)
        inside = np.arange(data.length) < np.maximum(lengths, 1)[:, None]
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
        sources, packed = renumbered(packed, len(self.base.vocab))
        return {
            "targets": targets.reshape(ids.shape).astype(np.int32),
            "weights": inside.astype(np.float32),
            "bytes": np.where(inside, draw.tokens.lengths[ids], 0).sum(1).astype(np.float32),
            "sources": sources,
            "forms": packed,
            "log_weight": log_weight,
            "num_valid": np.int32(len(predicted)),
            "same": forms.same,
        }

    # --------------------------------------------------------------------------------------------------- evaluation

    def evaluate(self, params) -> dict[str, float]:
        """Zero-shot bits per byte on unseen tokenizers, as ratios to the original model's."""
        if self._targets is None:
            from zett.evaluate.targets import load_target

            targets = [load_target(spec, self.documents) for spec in self.config.train.eval_targets]
            s = self.config.hypernet.max_pieces
            self._targets = [
                (spec, target, surface_forms(target, self.base.vocab, s), encode_windows(self.windows, target.tokenizer))
                for spec, target in zip(self.config.train.eval_targets, targets)
            ]
            own = encode_windows(self.windows, self.base.vocab.tokenizer)
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
        return bits_per_byte(self.base.graphdef, self.frozen["body"], table, self.frozen["bos"], windows, dtype=self.dtype)

    def export(self, params, folder: Path, record: dict) -> None:
        release(folder, self.config, self.base, params, record, self.workdir)


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
- Numbers below: bits per byte over the original model's, on tokenizers that were never trained on
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
