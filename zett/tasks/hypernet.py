"""Task "hypernet": train a hypernetwork for a frozen base model on tokenizers drawn at every step."""

import dataclasses
import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.cards import training_card
from zett.config import Config
from zett.data.text import Documents, open_text
from zett.errors import UserError
from zett.evaluate.bpb import bits_per_byte, byte_windows, encode_windows
from zett.hypernet import TrainedHypernet, hypernet_graph, load_hypernet, make_hypernet, pack_forms, save_hypernet, source_rows
from zett.lms import load_base_model
from zett.lms.layers import product_dtype
from zett.losses import chunked_cross_entropy
from zett.table import bucket
from zett.vocab import surface_forms
from zett.vocab.sample import Sampler


class HypernetTask:
    def __init__(self, config: Config, workdir: Path):
        data = config.data
        self.config, self.workdir = config, workdir
        self.dtype = product_dtype(config.train.dtype)
        self.base = load_base_model(config.base, dtype=self.dtype.name)
        opened = functools.partial(
            open_text, text_column=data.text_column, package_bytes=data.package_bytes, stream_bytes=data.stream_bytes
        )
        self.documents: Documents = opened(data.source, split="train")
        held_out = opened(data.valid_source or data.source, split="valid")
        sources = [opened(spec, split="train") for spec in config.sampler.sources] or [self.documents]
        self.sampler = Sampler(config.sampler, sources, self.base.vocab, config.hypernet.max_pieces, config.seed)
        self.tokens_per_step = data.batch_size * data.length
        table = self.base.table
        self.hidden_size, self.tied = table.input.shape[1], table.output is None
        self.graphdef = hypernet_graph(config.hypernet, self.hidden_size, self.tied, self.dtype)
        # A frozen body is read in the operand type of its products: half the memory traffic, the same numbers.
        body = jax.tree.map(lambda x: jnp.asarray(x, self.dtype if x.ndim > 2 else jnp.float32), self.base.params)
        self.frozen = {"body": body, "rows": jnp.asarray(source_rows(table)), "bos": jnp.asarray(self.base.bos_row)}
        self.windows = byte_windows(held_out, count=config.train.eval_windows)
        self._targets: list | None = None

    def init(self):
        c = self.config
        if c.init is None:
            return nnx.to_pure_dict(nnx.split(make_hypernet(c.hypernet, self.hidden_size, self.tied, self.dtype, c.seed))[1])
        trained = load_hypernet(c.init)
        trained.check_base(self.base.fingerprint)
        if trained.config != c.hypernet:
            theirs, ours = dataclasses.asdict(trained.config), dataclasses.asdict(c.hypernet)
            name = next(n for n in ours if ours[n] != theirs[n])
            raise UserError(f"config.hypernet.{name} is {ours[name]!r}, and config.init, {c.init}, has {theirs[name]!r}")
        return jax.tree.map(jnp.asarray, trained.params)

    # ------------------------------------------------------------------------------------------------------ batches

    def batch(self, step: int) -> dict:
        """Text in the step's tokenizer. Ids count within the R predicted rows: the batch's tokens, then random others."""
        data = self.config.data
        draw = self.sampler.draw(step)
        rng = np.random.default_rng([self.config.seed, step, 0])
        ids = np.zeros((data.batch_size, data.length), np.int64)
        lengths = np.zeros(data.batch_size, np.int32)
        for b in range(data.batch_size):
            row = self._row(draw.tokenizer, rng, data.length)
            lengths[b] = len(row)
            ids[b] = row + row[:1] * (data.length - len(row))  # filled with a token that is used anyway; its weight is 0
        weights = (np.arange(data.length) < lengths[:, None]).astype(np.float32)
        used, targets = np.unique(ids, return_inverse=True)
        others = np.setdiff1d(np.flatnonzero(draw.forms.lengths), used, assume_unique=True)
        room = bucket(max(self.config.sampler.rows, len(used) + 256), 1024)
        chosen = rng.permutation(others)[: room - len(used)]
        rows = np.concatenate([used, chosen])
        # The others stand for all tokens that are not in the batch: each counts as many times as it has unseen siblings.
        log_weight = np.zeros(room, np.float32)
        log_weight[len(used) : len(rows)] = math.log(len(others) / len(chosen)) if len(chosen) else 0.0
        forms = draw.forms.take(np.pad(rows, (0, room - len(rows)), mode="edge"))
        return {
            "targets": targets.reshape(ids.shape).astype(np.int32),
            "weights": weights,
            "bytes": np.float32(sum(len(draw.tokens[i]) for i in ids[weights > 0])),
            "forms": pack_forms(forms),
            "log_weight": log_weight,
            "num_valid": np.int32(len(rows)),
            "same": forms.same,
        }

    def _row(self, tokenizer, rng: np.random.Generator, length: int) -> list[int]:
        """At most `length` tokens from a random place, at a line's beginning, in a random document."""
        text = self.documents[int(rng.integers(len(self.documents)))]
        start = int(rng.integers(max(len(text) - 4 * length, 1)))
        start = text.find("\n", start) + 1 if start else 0
        # Twelve characters a token are more than any tokenizer packs into one on average.
        return tokenizer.encode(text[start : start + 12 * length], add_special_tokens=False).ids[:length] or [0]

    # --------------------------------------------------------------------------------------------------------- loss

    def loss(self, params, frozen, batch):
        rows = nnx.merge(self.graphdef, params)(frozen["rows"], batch["forms"])
        d = self.hidden_size
        inputs, outputs = rows[:, :d], rows[:, -d:]
        targets = batch["targets"]
        first = jnp.broadcast_to(frozen["bos"], (targets.shape[0], 1, d))
        body = nnx.merge(self.base.graphdef, frozen["body"])
        h = body(jnp.concatenate([first, inputs[targets[:, :-1]]], 1))
        nats = chunked_cross_entropy(
            h.reshape(-1, d), outputs, batch["log_weight"], targets.reshape(-1), batch["weights"].reshape(-1),
            num_valid=batch["num_valid"], dtype=self.dtype,
        )  # fmt: skip
        lm = nats / batch["weights"].sum()
        lexical = self._lexical(rows, frozen["rows"], batch)
        metrics = {"lm": lm, "lexical": lexical, "bits_per_byte": nats / math.log(2) / batch["bytes"]}
        return lm + self.config.loss.lexical * lexical, metrics

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

    # --------------------------------------------------------------------------------------------------- evaluation

    def _trained(self, params) -> TrainedHypernet:
        base = {"name": self.base.name, "fingerprint": self.base.fingerprint}
        return TrainedHypernet(self.config.hypernet, params, self.hidden_size, self.tied, base)

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
            table = self._trained(params)(self.base.table, self.base.vocab, target, forms, dtype=self.dtype)
            results[spec] = self._bits(table.pad(bucket(len(target))), windows) / self._original
        return results | {"score": math.exp(sum(map(math.log, results.values())) / len(results))}

    def _bits(self, table, windows) -> float:
        return bits_per_byte(self.base.graphdef, self.frozen["body"], table, self.frozen["bos"], windows, dtype=self.dtype)

    def export(self, params, folder: Path, record: dict) -> None:
        trained = dataclasses.replace(self._trained(params), params=jax.tree.map(np.asarray, params))
        save_hypernet(folder, trained, self.base.vocab, record)
        (folder / "README.md").write_text(
            training_card(f"Hypernetwork for {self.base.name}", self._about(params, record), self.workdir, record)
        )

    def _about(self, params, record: dict) -> str:
        size = sum(x.size for x in jax.tree.leaves(params))
        sources = ", ".join(map(repr, self.config.sampler.sources or (self.config.data.source,)))
        return f"""
Predicts embedding tables that make the base model {self.base.name!r} work with other tokenizers, zero-shot. Trained by
zett.

- Base model: {self.base.name}, fingerprint {self.base.fingerprint[:16]}; it works with this one alone
- Parameters: {size:,}
- Data: {self.config.data.source!r}; tokenizers drawn from {sources}
- Steps: {record["step"]:,} of {self.tokens_per_step:,} tokens, a new tokenizer each
- Numbers below: bits per byte over the original model's, on tokenizers that were never trained on
- Licence of the weights: Apache-2.0
- Use: `zett transfer --model {self.base.name} --hypernet FOLDER --tokenizer DIR --output DIR`
"""
