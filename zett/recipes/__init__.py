"""What a run trains and how it is released: recipes, by the name in `config.recipe`.

The loop, the plan and the export know this protocol alone. A new recipe is a class in one file and a line in RECIPES.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from zett.config import Config
from zett.mesh import Rules
from zett.plan.shapes import Checks, Shapes


class Recipe(Protocol):
    """What the training loop knows of what it trains. Making one opens and loads everything that steps read."""

    sections: ClassVar[frozenset[str]]  # of the config, those that it reads and that not every recipe does

    def __init__(self, config: Config, workdir: Path, mesh: Mesh): ...

    config: Config  # of the run
    frozen: Any  # arrays on the devices that the loss reads and that are never trained
    rules: Rules  # how the trained parameters are cut over the mesh
    batch_specs: Mapping[str, PartitionSpec]  # likewise the arrays of a batch; those not named are whole on every device
    tokens_per_step: int

    def start(self) -> Any: ...  # parameters of an earlier training to start from; None: those of `init`
    def init(self) -> Any: ...  # fresh parameters. It can be jitted, so each device makes its own part
    def batch(self, step: int, rows: np.ndarray | None = None) -> dict: ...  # rows of a batch, from (seed, step) alone
    def flops(self, batch: dict) -> float: ...  # FLOPs of the whole step with this batch; see zett/plan/flops.py
    def loss(self, params, frozen, batch) -> tuple[jax.Array, dict]: ...
    def evaluate(self, params) -> dict[str, float]: ...  # "score" among them; lower is better
    def export(self, params, folder: Path, record: dict) -> None: ...  # the released form

    @classmethod
    def to_export(cls, config: Config, workdir: Path, mesh: Mesh) -> Self: ...  # able to `init` and to `export`, without texts
    @classmethod
    def check(cls, config: Config, checks: Checks) -> None: ...  # notes what is wrong with a config, without reading data
    @classmethod
    def shapes(cls, config: Config) -> Shapes: ...  # what a step holds and computes, from shapes alone


RECIPES = {
    "hypernet": "zett.recipes.hypernet:HypernetRecipe",
    "lm": "zett.recipes.language_model:LanguageModelRecipe",
    "refinement": "zett.recipes.refinement:RefinementRecipe",
}


def recipe_class(name: str) -> type[Recipe]:
    """The recipe called `name` in `config.recipe`."""
    module, _, attribute = RECIPES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
