"""What a model is measured by: evaluation tasks, each in a file of its own.

A task makes items of texts, and gives a model a score for each, so that one paired bootstrap serves all tasks. A new one is a
class in one file and a line in TASKS.
"""

import importlib
import typing
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from zett.errors import UserError
from zett.evaluate.tasks.items import Items
from zett.lms.base import BaseModel
from zett.values import nearest


class EvalTask(Protocol):
    """Made with `dtype` (of matrix products) and `batch_size`. What it measures is the mean of the items' scores."""

    name: str
    unit: str  # in words
    lower_is_better: bool

    def items(self, base: BaseModel, texts: Sequence[str]) -> Items: ...  # UserError for a model that has no such task
    def score(self, model: BaseModel, items: Items) -> np.ndarray: ...  # `[N]` float64, of a model with any vocabulary


class Telling(EvalTask, Protocol):
    """A task that has more to say of a model: the scores, and means of whatever else by name."""

    def details(self, model: BaseModel, items: Items) -> tuple[np.ndarray, dict[str, float]]: ...


TASKS = {
    "agreement": "zett.evaluate.tasks.agreement:Agreement",
    "bits_per_byte": "zett.evaluate.tasks.bits_per_byte:BitsPerByte",
    "drafts": "zett.evaluate.tasks.drafts:Drafts",
    "dynamic": "zett.evaluate.tasks.dynamic:Dynamic",
    "masked_bits_per_byte": "zett.evaluate.tasks.masked_bits_per_byte:MaskedBitsPerByte",
}


def check_task(name: str) -> None:
    """UserError names the nearest task where there is none called `name`."""
    if name not in TASKS:
        raise UserError(f"there is no evaluation task {name!r}; {nearest(name, TASKS)}")


def make_task(name: str, **settings: Any) -> EvalTask:
    """The task called `name`. UserError if there is none."""
    check_task(name)
    module, _, attribute = TASKS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)(**settings)


def scored(task: EvalTask, model: BaseModel, items: Items) -> tuple[np.ndarray, dict[str, float]]:
    """The scores of the items, `[N]`, and what else the task has to say of the model."""
    if hasattr(task, "details"):
        return typing.cast(Telling, task).details(model, items)
    return task.score(model, items), {}


def reading_task(base: BaseModel, **settings: Any) -> EvalTask:
    """How well a model reads text: bits per byte, or masked bits per byte where it is an encoder."""
    return make_task("bits_per_byte" if base.causal else "masked_bits_per_byte", **settings)
