"""What training minimises: objectives, each in a file of its own, added up by the weights in `config.loss`.

An objective reads an `EmbeddingTable`, a body and its own part of a batch. A new one is a class in one file, a line in
OBJECTIVES and a weight of the same name in `zett.config.LossConfig`; CONTRIBUTING.md adds one as an example.
"""

import dataclasses
import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from jax.sharding import PartitionSpec

from zett.config import LossConfig
from zett.errors import UserError
from zett.lms.body import Body
from zett.objectives.distillation import Distillation
from zett.objectives.setting import Encoded, Setting
from zett.table import EmbeddingTable


class Objective(Protocol):
    """One term of a loss.

    specs: names of the arrays that it adds to a batch, and how each lies on the mesh.
    """

    @property
    def specs(self) -> Mapping[str, PartitionSpec]: ...
    def frozen(self) -> dict[str, Any]: ...  # arrays on the devices that it reads and that are not trained
    def batch(self, texts: Encoded, rngs: Sequence[np.random.Generator]) -> dict[str, np.ndarray]: ...  # one rng a text
    def __call__(self, table: EmbeddingTable, body: Body, frozen: dict, batch: dict) -> tuple[jax.Array, dict]: ...


# The name of a weight in config.loss -> a class or function that makes the objective from a `Setting`.
OBJECTIVES = {
    "token": "zett.objectives.token:token",
    "hidden": "zett.objectives.distillation:hidden",
    "chunk": "zett.objectives.distillation:chunk",
    "lexical": "zett.objectives.lexical:Lexical",
}

TAUGHT = ("hidden", "chunk")  # those that learn from the original model


def make_objective(name: str, setting: Setting) -> Objective:
    """The objective called `name`."""
    module, _, attribute = OBJECTIVES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)(setting)


def _made(weighed: Iterable[tuple[float, str]], setting: Setting) -> tuple[tuple[float, Objective], ...]:
    return tuple((weight, make_objective(name, setting)) for weight, name in weighed)


@dataclasses.dataclass(frozen=True)
class WeightedSum:
    """Several objectives as one."""

    terms: tuple[tuple[float, Objective], ...]

    @classmethod
    def of(cls, names: Iterable[str], weights: LossConfig, setting: Setting) -> "WeightedSum":
        """Those of `names` whose weight is not 0. UserError if there are none."""
        weighed = [(weight, name) for name in names if (weight := getattr(weights, name))]
        if not weighed:
            raise UserError(f"config.loss.{', .'.join(names)}: all weights are 0, so that nothing would be trained")
        taught = {name: weight for weight, name in weighed if name in ("token", *TAUGHT)}
        if any(name in taught for name in TAUGHT):  # one pass of the body for all of them
            others = [(weight, name) for weight, name in weighed if name not in taught]
            made = cls(((1.0, Distillation(setting, taught)), *_made(others, setting)))
        else:
            made = cls(_made(weighed, setting))
        brought = [name for _, term in made.terms for name in term.specs]
        if len(set(brought)) < len(brought):
            raise ValueError(f"two objectives bring a part of a batch of the same name: {sorted(brought)}")
        return made

    @property
    def specs(self) -> dict[str, PartitionSpec]:
        return {name: spec for _, term in self.terms for name, spec in term.specs.items()}

    def frozen(self) -> dict[str, Any]:
        return {name: value for _, term in self.terms for name, value in term.frozen().items()}

    def batch(self, texts: Encoded, rngs: Sequence[np.random.Generator]) -> dict[str, np.ndarray]:
        return {name: value for _, term in self.terms for name, value in term.batch(texts, rngs).items()}

    def __call__(self, table: EmbeddingTable, body: Body, frozen: dict, batch: dict) -> tuple[jax.Array, dict]:
        total: Any = 0.0
        metrics: dict = {}
        for weight, term in self.terms:
            value, its = term(table, body, frozen, batch)
            total, metrics = total + weight * value, metrics | its
        return total, metrics
