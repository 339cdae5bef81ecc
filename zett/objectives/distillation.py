"""Learning from the original model: what it makes of the same bytes with its own tokens (after arXiv 2503.20083).

The teacher is the original model with its own table, whose body is the student's unless the body is trained, too. It reads what
the student's tokens spell, and gets no gradient. Two things are compared:

- "hidden": hidden states where both tokenizers have a boundary, as the mean squared distance over the variance of the teacher's
  states in the batch. A state at a boundary says what comes next, so both should say the same there.
- "chunk": the probability of each chunk of text between two shared boundaries. A tokenizer's probability of a chunk is not that
  of its bytes alone: it includes that the chunk ends there, that is that no token goes across. Two tokenizers mean different
  things by that: "hel" before "lo" is improbable for one that has "hello". Within words this bias is as large as what is to be
  learnt. Where words end, both nearly always have a boundary whatever follows. So chunks end there by default, and what is left
  of the bias is what each tokenizer's words can go on with; it is not corrected. With config.loss.chunk_ends "all" every shared
  boundary ends one, bias included.

With the teacher's own tokenizer and table both are 0. The student's states are computed once for these and for the next token.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zett.config import LossConfig
from zett.errors import UserError
from zett.lms.body import Body
from zett.lms.config import BodyConfig
from zett.losses import chunked_cross_entropy, from_parts, in_parts, summed_with, token_nats
from zett.objectives.likelihood import bits_per_byte
from zett.objectives.next_token import NextToken
from zett.objectives.setting import Encoded, Setting
from zett.objectives.teaching import CHUNKS, PLACES, TaughtTexts
from zett.table import EmbeddingTable
from zett.vocab.alignment import Teacher

LEAST = 1e-3  # nats: below it the binary cross-entropy has a slope that grows without end


def hidden(setting: Setting) -> "Distillation":
    """Hidden states alone."""
    return Distillation(setting, {"hidden": 1.0})


def chunk(setting: Setting) -> "Distillation":
    """Chunks alone."""
    return Distillation(setting, {"chunk": 1.0})


class Distillation(NextToken):
    """The sum, by `weights`, of "token", "hidden" and "chunk", those that are in there."""

    def __init__(self, setting: Setting, weights: Mapping[str, float]):
        super().__init__(setting)
        self.weights = dict(weights)
        self.model = setting.teacher or setting.base
        for base in (setting.base, self.model):
            check_taught(setting.loss, base.name, base.config)
        width, theirs = setting.base.config.hidden_size, self.model.config.hidden_size
        if "hidden" in self.weights and width != theirs:
            raise UserError(f"config.loss.hidden compares states of one width; {setting.base.name} has {width}, and "
                            f"{self.model.name} has {theirs}; set it to 0")  # fmt: skip
        layers = setting.base.config.num_layers
        self.layers = [-1 if number == layers else number for number in setting.loss.hidden_layers]
        self.teacher = Teacher(self.model.vocab)
        self.specs = {**NextToken.specs, **(PLACES if "hidden" in weights else {}), **(CHUNKS if "chunk" in weights else {})}

    def frozen(self) -> dict[str, Any]:
        own = {} if self.setting.teacher is None or self.model.params is None else {"teacher_body": self.model.params}
        rows = {"rows": self.setting.source_rows, "teacher_bos": self.everywhere(self.model.bos_row)}
        return super().frozen() | rows | own

    def batch(self, texts: Encoded, rngs: Sequence[np.random.Generator]) -> dict[str, np.ndarray]:
        taught = TaughtTexts(self.teacher, texts)
        found = super().batch(texts, rngs)
        found |= taught.places() if "hidden" in self.weights else {}
        return found | (taught.chunks(self.setting.loss.chunk_ends) if "chunk" in self.weights else {})

    # ------------------------------------------------------------------------------------------------------- what both do

    def _states(self, body: Body, x_BLD) -> tuple[jax.Array, list[jax.Array]]:
        """The output of a body `[B, L, D]`, and the states that are compared."""
        if "hidden" not in self.weights:
            return body(x_BLD), []
        if set(self.layers) <= {-1}:
            h = body(x_BLD)
            return h, [h] * len(self.layers)
        h, every = body(x_BLD, keep_hidden=True)
        return h, [every[layer] for layer in self.layers]

    def _taught(self, body: Body, frozen: dict, texts: dict) -> dict:
        """What the teacher says of texts: "states" at each place, and "nats" of each chunk."""
        ids, d = texts["teacher_ids"], self.model.config.hidden_size
        input_rows, output_rows = frozen["rows"][:, :d], frozen["rows"][:, -d:]
        first = jnp.broadcast_to(frozen["teacher_bos"], (len(ids), 1, d))
        h, states = self._states(body, self.by_row(jnp.concatenate([first, input_rows[ids[:, :-1]]], 1)))
        found: dict = {"states": [_at(x, texts["places"][..., 1]) for x in states]}
        if "chunk" in self.weights:
            nats = token_nats(
                h, output_rows, jnp.zeros(len(output_rows)), ids, num_valid=len(output_rows),
                softcap=self.model.config.logit_softcap, chunk=self.setting.chunk, dtype=self.setting.dtype,
            )  # fmt: skip
            found["nats"] = _by_chunk(nats, texts["teacher_chunk_of"])
        return found

    def __call__(self, table: EmbeddingTable, body: Body, frozen: dict, batch: dict) -> tuple[jax.Array, dict]:
        setting, number = self.setting, self.setting.microbatches
        texts = {name: batch[name] for name in self.specs if name != "bytes"}
        own = Body(self.model.graphdef, frozen["teacher_body"]) if "teacher_body" in frozen else body
        # All of a batch before any of it is learnt from, since the variance is that of all its states.
        if number == 1:
            taught = self._taught(own, frozen, texts)
        else:
            taught = from_parts(jax.lax.map(lambda part: self._taught(own, frozen, part), in_parts(texts, number)))
        taught = jax.lax.stop_gradient(taught)
        scales = self._scales(batch, taught)
        trained, constants = ((table, body), (frozen, scales)) if setting.trains_body else (table, (body, frozen, scales))
        f = self._both_sums if setting.trains_body else self._sums_of_rows
        total, sums = summed_with(f, trained, constants, texts | {"taught": taught}, number)
        return total, self._metrics(sums, batch)

    def _metrics(self, sums: dict, batch: dict) -> dict:
        nats = sums.pop("nats", None)
        if nats is None:
            return sums
        return {"lm": nats / jnp.maximum(batch["weights"].sum(), 1), "bits_per_byte": bits_per_byte(nats, batch), **sums}

    def _scales(self, batch: dict, taught: dict) -> dict:
        """What each sum is multiplied by to be a mean; of states one over their variance, for each layer."""
        scales: dict = {"token": 1 / jnp.maximum(batch["weights"].sum(), 1)}
        if "hidden" in self.weights:
            weights = batch["place_weights"][..., None]
            scales["hidden"] = [1 / jnp.maximum(_scatter(x.astype(jnp.float32), weights), 1e-6) for x in taught["states"]]
        if "chunk" in self.weights:
            scales["chunk"] = 1 / jnp.maximum(batch["chunk_weights"].sum(), 1)
        return scales

    # ------------------------------------------------------------------------------------------------------- the student

    def _both_sums(self, trained, constants, texts):
        (table, body), (frozen, scales) = trained, constants
        return self._sums(table, body, frozen, scales, texts)

    def _sums_of_rows(self, table, constants, texts):
        body, frozen, scales = constants
        return self._sums(table, body, frozen, scales, texts)

    def _sums(self, table: EmbeddingTable, body: Body, frozen: dict, scales: dict, texts: dict):
        """The loss of some texts, and the parts that it is made of."""
        weights, taught, setting = self.weights, texts["taught"], self.setting
        bias = jnp.zeros(len(table.input)) if table.bias is None else table.bias
        how: dict[str, Any] = {
            "num_valid": table.num_valid, "softcap": setting.base.config.logit_softcap, "chunk": setting.chunk,
            "dtype": setting.dtype,
        }  # fmt: skip
        h, states = self._states(body, self.inputs(table, frozen, texts))
        total, sums = jnp.float32(0), {}
        if "chunk" in weights:
            nats_BL = token_nats(h, table.output_rows, bias, texts["targets"], **how)
            ours = _by_chunk(nats_BL, texts["chunk_of"])
            apart = chunk_distance(ours, taught["nats"], setting.loss.chunk_distance, setting.loss.chunk_temperature)
            sums["chunk"] = (apart * texts["chunk_weights"]).sum() * scales["chunk"]
            sums["nats"] = (nats_BL * texts["weights"]).sum()
        elif "token" in weights:
            sums["nats"] = chunked_cross_entropy(h, table.output_rows, bias, texts["targets"], texts["weights"], **how)
        if "hidden" in weights:
            at, counted = texts["places"][..., 0], texts["place_weights"][..., None]
            differences = [(_at(x, at) - y).astype(jnp.float32) for x, y in zip(states, taught["states"])]
            apart = [(jnp.square(x) * counted).sum() * scale for x, scale in zip(differences, scales["hidden"])]
            sums["hidden"] = sum(apart) / len(apart)
        for name, weight in weights.items():
            total += weight * (sums["nats"] * scales["token"] if name == "token" else sums[name])
        return total, sums


def chunk_distance(ours, theirs, form: str, temperature: float):
    """How far the probabilities of chunks are apart, from their negative logarithms: 0 where they are equal.

    "cross-entropy": that of p^(1/T) relative to q^(1/T), of which the entropy of p^(1/T) is taken away, times T. For large T it
    goes to `a ln(a / b) - a + b`, where a and b are -ln p and -ln q; near a, that is (a - b)^2 / 2a. "squared": (a - b)^2.
    """
    if form == "squared":
        return jnp.square(ours - theirs)
    a, b = (jnp.maximum(nats, LEAST) / temperature for nats in (theirs, ours))
    none_a, none_b = (jnp.log(-jnp.expm1(-x)) for x in (a, b))
    return temperature * (jnp.exp(-a) * (b - a) - jnp.expm1(-a) * (none_a - none_b))


def check_taught(loss: LossConfig, name: str, config: BodyConfig) -> None:
    """UserError if an objective of `loss` that compares models cannot read the states of the model `name`."""
    names = " and ".join(f"config.loss.{name}" for name in ("hidden", "chunk") if getattr(loss, name))
    if not names:
        return
    if not config.causal:
        raise UserError(f"{names}: what causal models predict is compared, and {name} is an encoder; leave it 0")
    if not loss.hidden_layers:
        raise UserError("config.loss.hidden_layers is empty; (-1,) compares the output of the last layer")
    layers = config.num_layers
    for number in loss.hidden_layers:
        if not -layers - 1 <= number <= layers:
            raise UserError(
                f"config.loss.hidden_layers has {number}; {name} with {layers} layers has {-layers - 1} to {layers}"
            )


def _at(x_BLD, places_BK):
    return jnp.take_along_axis(x_BLD, places_BK[..., None], 1)


def _by_chunk(nats_BL, chunk_of):
    """Sums `[B, K]` of the nats of the tokens of each chunk."""
    rows, length = nats_BL.shape
    return jnp.zeros((rows, length)).at[jnp.arange(rows)[:, None], chunk_of].add(nats_BL, mode="drop")


def _scatter(x, weights):
    """Sum of the squared distances of `x` from their mean."""
    mean = (x * weights).sum((0, 1)) / jnp.maximum(weights.sum(), 1)
    return (jnp.square(x - mean) * weights).sum()
