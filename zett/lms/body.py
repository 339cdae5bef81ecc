"""A body as a value: its parameters, with what computes hidden states from them."""

import dataclasses
from typing import Any

import jax
from flax import nnx


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Body:
    """`body(x [B, L, D]) -> h [B, L, D]`, like the family's module that it is made of, but a tree of arrays for JAX.

    graphdef: the static half of the module. params: its parameters, a nested dict.
    """

    graphdef: Any = dataclasses.field(metadata={"static": True})
    params: Any

    def __call__(self, x_BLD, **options):
        return nnx.merge(self.graphdef, self.params)(x_BLD, **options)
