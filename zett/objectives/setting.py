"""What the objectives of a run share: the base model, the devices, how it is computed; and texts in the rows of a step."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from zett.lms.base import BaseModel


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a run computes.

    base: the base model; its body comes to each call as an argument. dtype: of matrix products. activations: dtype of what is
    between them. microbatches: parts of a batch that go through the body one after the other. trains_body: whether the body
    gets a gradient. opening: whether the base's own row opens a text (else the table's, which is trained). mask_share: of a
    text's tokens, those that are hidden from an encoder. source_rows: `[V0, E]` on the devices, input and output rows of the
    source table side by side; None where nothing is compared with them.
    """

    base: BaseModel
    mesh: Mesh
    dtype: Any
    activations: Any
    microbatches: int = 1
    trains_body: bool = False
    opening: bool = True
    mask_share: float = 0.15
    source_rows: jax.Array | None = None

    @property
    def chunk(self) -> int:
        """Positions whose logits exist at a time."""
        return 1024 * self.mesh.shape["data"] * self.mesh.shape["fsdp"]


@dataclasses.dataclass(frozen=True)
class Encoded:
    """The texts of a step, as rows of the step's table of R rows.

    ids `[B, L]`, of which `lengths [B]` count; what follows them is some row that is used anyway. bytes: `[B, L]`, what each
    token stands for. ordinary: rows that stand for text. same: `[R]`, the source row of the same token, or -1.
    """

    ids: np.ndarray
    lengths: np.ndarray
    bytes: np.ndarray
    ordinary: np.ndarray | None = None
    same: np.ndarray | None = None

    @property
    def inside(self) -> np.ndarray:
        """`[B, L]`, whether a place holds a token of the text."""
        return np.arange(self.ids.shape[1]) < self.lengths[:, None]
