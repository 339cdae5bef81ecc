"""What predicting the next token and predicting hidden tokens have in common."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from zett.lms.body import Body
from zett.losses import chunked_cross_entropy, summed
from zett.mesh import BATCH, REPLICATED, place, sharding
from zett.objectives.setting import Encoded, Setting
from zett.table import EmbeddingTable


class Likelihood:
    """Mean negative log-likelihood of "targets" `[B, M]`, in nats, weighted by "weights".

    "bytes" `[B]` are those that the targets of each text stand for, to report bits per byte. A subclass computes in `hidden`
    the hidden states that the targets are predicted from.
    """

    specs: Mapping[str, PartitionSpec] = dict.fromkeys(("targets", "weights", "bytes"), BATCH)

    def __init__(self, setting: Setting):
        self.setting = setting

    def frozen(self) -> dict[str, Any]:
        raise NotImplementedError

    def batch(self, texts: Encoded, rngs: Sequence[np.random.Generator]) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def hidden(self, table: EmbeddingTable, body: Body, frozen: dict, texts: dict) -> jax.Array:
        """`[B, M, D]`, the state that each target is predicted from."""
        raise NotImplementedError

    def __call__(self, table: EmbeddingTable, body: Body, frozen: dict, batch: dict) -> tuple[jax.Array, dict]:
        setting = self.setting
        texts = {name: batch[name] for name in self.specs if name != "bytes"}
        # `summed` adds up the gradients of its first argument over the microbatches, so that is what is trained.
        trained, constants = ((table, body), frozen) if setting.trains_body else (table, (body, frozen))
        nats = summed(self._both if setting.trains_body else self._rows_alone, trained, constants, texts, setting.microbatches)
        mean = nats / jnp.maximum(batch["weights"].sum(), 1)
        return mean, {"lm": mean, "bits_per_byte": bits_per_byte(nats, batch)}

    def _both(self, trained, frozen, texts):
        table, body = trained
        return self._nats(table, body, frozen, texts)

    def _rows_alone(self, table, constants, texts):
        body, frozen = constants
        return self._nats(table, body, frozen, texts)

    def _nats(self, table: EmbeddingTable, body: Body, frozen: dict, texts: dict) -> jax.Array:
        h_BMD = self.hidden(table, body, frozen, texts)
        bias = jnp.zeros(len(table.input)) if table.bias is None else table.bias
        return chunked_cross_entropy(
            h_BMD, table.output_rows, bias, texts["targets"], texts["weights"], num_valid=table.num_valid,
            softcap=self.setting.base.config.logit_softcap, chunk=self.setting.chunk, dtype=self.setting.dtype,
        )  # fmt: skip

    def by_row(self, x_BLD):
        """Input rows in the dtype of activations, each device with its own rows of the batch."""
        x_BLD = x_BLD.astype(self.setting.activations)
        return jax.lax.with_sharding_constraint(x_BLD, NamedSharding(self.setting.mesh, BATCH))

    def everywhere(self, x) -> Any:
        """The whole array on every device."""
        return place(x, sharding(self.setting.mesh, REPLICATED, x.shape))


def bits_per_byte(nats, batch: dict):
    """Of the texts of a batch, from the nats of all of them."""
    return nats / math.log(2) / batch["bytes"].sum()
