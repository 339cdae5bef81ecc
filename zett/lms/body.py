"""A body as a value: its parameters, and the code that computes hidden states with them."""

import dataclasses
from typing import Any

import jax
from flax import nnx


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Body:
    """`body(x [B, L, D]) -> h [B, L, D]`: the family's module in a form that JAX takes as a tree of arrays.

    graphdef: the static half of the module. params: its parameters, a nested dict.
    """

    graphdef: Any = dataclasses.field(metadata={"static": True})
    params: Any

    def __call__(self, x_BLD, **options):
        return nnx.merge(self.graphdef, self.params)(x_BLD, **options)
