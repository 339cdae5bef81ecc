"""`EmbeddingTable`: the vocabulary of a model as a value that any method produces and any body consumes."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zett.losses import NEG_INF


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EmbeddingTable:
    """Input rows `[V, D]`, output rows `[V, D]` (None: tied to the input rows), output bias `[V]` or None.

    Rows from `num_valid` on are padding, and get no probability. V is padded to one of a few sizes, since JAX compiles anew for
    each size.
    """

    input: jax.Array
    output: jax.Array | None
    bias: jax.Array | None
    num_valid: jax.Array | np.integer | int

    def __repr__(self) -> str:
        parts: dict[str, Any] = {"input": self.input, "output": self.output, "bias": self.bias}
        shown = [f"{name} {'x'.join(map(str, x.shape))} {x.dtype}" for name, x in parts.items() if hasattr(x, "dtype")]
        return f"EmbeddingTable({', '.join(shown)}{', tied' if self.output is None else ''})"

    @classmethod
    def of(cls, input, output=None, bias=None) -> "EmbeddingTable":
        """A table all of whose rows are valid."""
        return cls(input, output, bias, np.int32(input.shape[0]))

    @property
    def output_rows(self):
        return self.input if self.output is None else self.output

    def embed(self, ids):
        """Input rows of `ids [...]`: `[..., D]`."""
        return self.input[ids]

    def unembed(self, h, softcap: float | None = None):
        """Logits `[..., V]` of hidden states `h [..., D]`, in float32.

        softcap: products become `softcap * tanh(product / softcap)` before the bias; the base model's `config.logit_softcap`.
        """
        logits = jnp.einsum("...d,vd->...v", h, self.output_rows, preferred_element_type=jnp.float32)
        if softcap is not None:
            logits = softcap * jnp.tanh(logits / softcap)
        if self.bias is not None:
            logits = logits + self.bias
        return jnp.where(jnp.arange(logits.shape[-1]) < self.num_valid, logits, NEG_INF)

    def with_rows(self, ids, rows: "EmbeddingTable") -> "EmbeddingTable":
        """A copy in which the rows `ids [N]` are those of `rows`."""

        def put(mine, theirs):
            return None if mine is None else jnp.asarray(mine).at[ids].set(theirs)

        return dataclasses.replace(
            self, input=put(self.input, rows.input), output=put(self.output, rows.output), bias=put(self.bias, rows.bias)
        )

    def pad(self, size: int) -> "EmbeddingTable":
        """A copy with zero rows appended up to `size`."""
        extra = size - self.input.shape[0]
        if extra < 0:
            raise ValueError(f"cannot pad a table of {self.input.shape[0]} rows to {size}")

        def grow(rows):
            return rows if rows is None or not extra else jnp.pad(rows, ((0, extra),) + ((0, 0),) * (rows.ndim - 1))

        return dataclasses.replace(self, input=grow(self.input), output=grow(self.output), bias=grow(self.bias))


def bucket(size: int, step: int = 2048) -> int:
    """The padded number of rows for a vocabulary of `size`: the next multiple of `step`."""
    return -(-size // step) * step


def few_sizes(size: int) -> int:
    """The padded number of rows for a vocabulary of any `size`: four sizes an octave, at most a quarter more than needed."""
    return bucket(size, max(2048, 1 << max(size.bit_length() - 3, 0)))
