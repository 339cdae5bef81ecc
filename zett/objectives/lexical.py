"""The lexical loss: tokens that are also in the source vocabulary keep their rows (arXiv 2405.07883, section 3.4)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from zett.mesh import EVERYWHERE, REPLICATED, sharding
from zett.objectives.setting import Encoded, Setting


class Lexical:
    """Mean distance of shared tokens' rows from their source rows, over the mean norm of source rows, for input and output."""

    specs: ClassVar[Mapping[str, PartitionSpec]] = {"same": REPLICATED}

    def __init__(self, setting: Setting):
        self.setting = setting

    def frozen(self) -> dict:
        return {"rows": self.setting.source_rows}

    def batch(self, texts: Encoded, rngs: Sequence[np.random.Generator]) -> dict[str, np.ndarray]:
        assert texts.same is not None  # given wherever rows are predicted
        return {"same": texts.same}

    def __call__(self, table, body, frozen, batch):
        same, source = batch["same"], frozen["rows"]
        shared = (same >= 0) & (jnp.arange(len(same)) < table.num_valid)
        sides = [rows for rows in (table.input, table.output) if rows is not None]
        total = 0.0
        for side, rows in enumerate(sides):
            # Every device has all predicted rows. To share the work, each compares only some of them.
            mine = jax.lax.with_sharding_constraint(rows, sharding(self.setting.mesh, EVERYWHERE, rows.shape[:1]))
            width = mine.shape[1]
            start = side * width % source.shape[1]  # a tied source has input rows alone, which both are compared with
            theirs = source[:, start : start + width]
            # Training starts with distances of zero, where the square root has no gradient. The small term avoids that.
            distance = jnp.sqrt(jnp.square(mine - theirs[same]).sum(-1) + 1e-8)
            scale = jnp.linalg.norm(theirs, axis=-1).mean()
            total += jnp.where(shared, distance, 0.0).sum() / jnp.maximum(shared.sum(), 1) / scale
        value = total / len(sides)
        return value, {"lexical": value}
