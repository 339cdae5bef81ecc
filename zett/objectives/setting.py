"""What the objectives of a run share: `Setting`, how the run computes; and `Encoded`, the texts of a step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from zett.config import Config, LossConfig
from zett.lms.base import BaseModel
from zett.losses import chunk_of
from zett.vocab.alignment import Spelling


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a run computes.

    base: the base model (its body is passed to each call). dtype: of matrix products. activations: dtype of the values between
    the products. microbatches: number of parts of a batch, which go through the body one after the other. trains_body: whether
    the body gets a gradient. opening: whether texts open with the base's own row, or else with a row of the table that is
    trained. loss: settings of objectives. source_rows: `[V0, E]` on the devices, input and output rows of the source table side
    by side; None in recipes that have none. teacher: the model that these rows belong to, where it is not `base`; without
    params, its body is the one that is trained with. positions: of a device's texts, how many have their logits in memory at a
    time (`losses.chunk_of`).
    """

    base: BaseModel
    mesh: Mesh
    dtype: Any
    activations: Any
    microbatches: int = 1
    trains_body: bool = False
    opening: bool = True
    loss: LossConfig = LossConfig()
    source_rows: jax.Array | None = None
    teacher: BaseModel | None = None
    positions: int = 1024

    @property
    def chunk(self) -> int:
        """How many positions have their logits in memory at a time, on all devices together."""
        return self.positions * self.mesh.shape["data"] * self.mesh.shape["fsdp"]


def loss_positions(config: Config, rows: int) -> int:
    """`Setting.positions` of a run whose steps have up to `rows` rows of the vocabulary."""
    return chunk_of(config.train.loss_chunk, rows, cpu=jax.default_backend() == "cpu")


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The texts of a step, in row numbers of the step's table, which has R rows.

    ids `[B, L]`: the first `lengths [B]` of each text count; padding is a row number that occurs anyway. bytes: `[B, L]`, how
    many bytes each token stands for. ordinary: numbers of rows that stand for text. same: `[R]`, the source row of the same
    token, or -1. spelled: `[B, L]`, the texts in ids of the vocabulary whose `spelling` they are in.
    """

    ids: np.ndarray
    lengths: np.ndarray
    bytes: np.ndarray
    ordinary: np.ndarray | None = None
    same: np.ndarray | None = None
    spelled: np.ndarray | None = None
    spelling: Callable[[], Spelling] | None = None

    @property
    def inside(self) -> np.ndarray:
        """`[B, L]`, whether a position holds a token of the text, and not padding."""
        return np.arange(self.ids.shape[1]) < self.lengths[:, None]
