"""The recipe "refinement": train the rows of a transferred model, `config.start`, against the model that it was made from.

It is the recipe "lm" with objectives that compare with the original, `config.base`. The body is frozen, or gets changes of low
rank of its matrices, which are added to these in the end, or is trained, too.
"""

import dataclasses
import functools
from pathlib import Path
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, PartitionSpec

from zett.config import Config
from zett.errors import UserError
from zett.hypernet.scaling import source_rows
from zett.lms.base import BaseModel, body_shapes, check_causal, load_base_model
from zett.lms.family import family_of
from zett.mesh import REPLICATED, place, sharding
from zett.objectives.setting import Setting
from zett.plan.flops import StepFlops
from zett.progress import phase
from zett.recipes.language_model import LanguageModelRecipe
from zett.recipes.language_model_release import release_further
from zett.recipes.refinement_plan import check_config, shapes_of
from zett.vocab.alignment import Spelling, Teacher


class RefinementRecipe(LanguageModelRecipe):
    """Parameters: "input", "output", "bias" as in "lm"; with config.train.body "body", too; with config.train.body_rank
    "low_rank", two factors of each matrix.
    """

    sections: ClassVar[frozenset[str]] = frozenset({"base", "loss"})
    objectives: ClassVar[tuple[str, ...]] = ("token", "hidden", "chunk")
    check = staticmethod(check_config)
    shapes = staticmethod(shapes_of)

    def _prepare(self, config: Config, workdir: Path, mesh: Mesh) -> None:
        self.rank = config.train.body_rank
        if self.rank and jax.process_count() > 1:
            raise UserError(f"config.train.body_rank is {self.rank}; with several processes it has to be 0")
        if self.rank and config.train.body:
            raise UserError(
                f"config.train.body_rank is {self.rank} and config.train.body True, which trains all of it; choose one"
            )
        self.original: BaseModel | None = None
        super()._prepare(config, workdir, mesh)
        self.rules = [*self.rules, *([(r"low_rank\..*", REPLICATED)] if self.rank else [])]

    def _trains_body(self) -> bool:
        return self.config.train.body

    def _setting(self) -> Setting:
        setting = dataclasses.replace(super()._setting(), trains_body=self.rank > 0 or self.body_is_trained)
        if not self.config.loss.hidden and not self.config.loss.chunk:
            return setting
        self.original = self._load_original()
        rows = jnp.asarray(source_rows(self.original.table), jnp.float32)
        rows = place(rows, sharding(self.mesh, PartitionSpec(None, ("fsdp", "tensor")), rows.shape))
        return dataclasses.replace(setting, source_rows=rows, teacher=self.original)

    def _load_original(self) -> BaseModel:
        """The model that is compared with; its body is the one here, if that has the same values and is not trained."""
        name, dtype = self.config.base, self.dtype.name
        with phase(f"reading the original model {name}"):
            original = load_base_model(
                name, dtype=dtype, param_dtype="float32" if self.rank else dtype, mesh=self.mesh, remat=self.config.train.remat
            )
        check_causal(original)
        if self.config.data.length > original.config.max_positions:
            most = original.config.max_positions
            raise UserError(f"config.data.length is {self.config.data.length}; config.base, {name}, has {most} positions")
        ours = self.frozen.get("body")
        params = ours if ours is not None and _equal(ours, original.params) else original.params
        return dataclasses.replace(original, params=params, table=jax.tree.map(np.asarray, original.table))

    def _spelling(self) -> Spelling:
        return self._in_symbols

    @functools.cached_property
    def _in_symbols(self) -> Spelling:
        assert self.original is not None  # nobody else asks
        return Teacher(self.original.vocab).student(self.base.vocab)

    # --------------------------------------------------------------------------------------------------------- parameters

    def init(self) -> dict:
        return super().init() | self._low_rank()

    def start(self) -> dict | None:
        found = super().start()
        assert found is not None  # config.start is given
        return found | self._low_rank()

    def _low_rank(self) -> dict:
        """Factors of the changes of all matrices of the body: random ones and zeros, so that nothing is changed at first."""
        if not self.rank:
            return {}
        shapes = body_shapes(family_of(self.base.hf_config), self.base.config)
        factors, key = {}, jax.random.key(self.config.seed + 2)
        for number, (path, (*layers, into, out)) in enumerate(_matrices(shapes).items()):
            random = jax.random.normal(jax.random.fold_in(key, number), (*layers, into, self.rank)) / into**0.5
            factors[f"{path}.down"], factors[f"{path}.up"] = random, jnp.zeros((*layers, self.rank, out))
        return {"low_rank": unflatten_dict(factors, sep=".")}

    def _body(self, params, frozen):
        return merged(frozen["body"], params["low_rank"]) if self.rank else super()._body(params, frozen)

    # ----------------------------------------------------------------------------------------------------------- results

    @functools.cached_property
    def _work(self) -> StepFlops:
        work, data = super()._work, self.config.data
        if self.original is None:
            return work
        rows, positions = len(self.original.vocab), data.batch_size * data.length
        return work.taught(self.config.loss, self.base.config, positions=positions, rows=rows)

    def evaluate(self, params) -> dict[str, float]:
        found = super().evaluate(params)
        if self.original is None and not self.config.train.eval_original:
            return found
        return found | {"ratio": found["bits_per_byte"] / self._original_bits}

    @functools.cached_property
    def _original_bits(self) -> float:
        return self.items.mean(self.task.score(self.original or self._load_original(), self.items))

    def export(self, params, folder: Path, record: dict) -> None:
        changed = self.rank or self.body_is_trained
        body = jax.tree.map(np.asarray, self._body(params, self.frozen)) if changed else None
        release_further(
            folder, dataclasses.replace(self.base, params=body, table=self.table(params)), self.config, record, self.workdir
        )


def merged(body: dict, low_rank: dict) -> dict:
    """The body whose matrices have the changes of low rank added."""
    values, factors = flatten_dict(body, sep="."), flatten_dict(low_rank, sep=".")
    for path in {name.rpartition(".")[0] for name in factors}:
        change = jnp.einsum("...ir,...ro->...io", factors[f"{path}.down"], factors[f"{path}.up"], precision="highest")
        values[path] = values[path] + change.astype(values[path].dtype)
    return unflatten_dict(values, sep=".")


def _matrices(shapes: dict[str, tuple]) -> dict[str, tuple]:
    """Those that positions are multiplied with, of all layers together."""
    return {path: shape for path, shape in shapes.items() if path.endswith("kernel") and len(shape) > 1}


def _equal(ours, theirs) -> bool:
    """Whether two bodies have the same parameters with the same values."""
    a, b = (dict(jax.tree_util.tree_leaves_with_path(tree)) for tree in (ours, theirs))
    return a.keys() == b.keys() and all(a[k].shape == b[k].shape and bool(jnp.array_equal(a[k], b[k])) for k in a)
