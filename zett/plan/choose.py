"""What a config leaves to be chosen: microbatches and what the backward pass keeps, from the memory of a device.

A choice depends on the config, the mesh, and the kind of its devices (a CPU's: its memory), and on nothing that is measured. So
all processes of a run come to the same one. A run writes it into its config.json and keeps it.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax

from zett.config import Config, from_dict, to_dict
from zett.errors import UserError
from zett.plan import machine
from zett.plan.devices import Device, find_device
from zett.plan.memory import fullest
from zett.plan.shapes import How, Shapes
from zett.plan.time import seconds
from zett.recipes import recipe_class

USABLE = 0.9  # share of a device's memory
GIB = 2**30
Sizes = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Run:
    """A config with its shapes."""

    config: Config
    shapes: Shapes

    @functools.cached_property
    def parts(self):
        """`Shapes.parts`, with results kept, since it is called again and again."""
        return functools.cache(self.shapes.parts)

    def memory(self, sizes: Sizes, how: How) -> float:
        """Bytes on each device."""
        return fullest(self.parts(sizes, how))[1]

    def fits(self, sizes: Sizes, how: How, device: Device) -> bool:
        return self.memory(sizes, how) <= USABLE * device.memory * GIB

    def step_seconds(self, sizes: Sizes, how: How, device: Device) -> float:
        return seconds(self.shapes.costs(sizes, how), device)


def is_open(config: Config) -> bool:
    """Whether anything is left to be chosen."""
    train = config.train
    return train.microbatches == 0 or "auto" in (train.remat, train.remat_hypernet)


def choice(run: Run, device: Device, sizes: Sizes) -> How | None:
    """The fastest way to compute the run's steps that fits the devices; None if none does.

    Of each way to keep things for the backward pass with the fewest microbatches that fit. On a device whose bandwidth is not
    known, a CPU, everything is kept.
    """
    found = [next((how for how in ways if run.fits(sizes, how, device)), None) for ways in _ways(run.config, device, sizes)]
    fitting = [how for how in found if how is not None]
    if len(fitting) < 2:
        return next(iter(fitting), None)
    return min(fitting, key=lambda how: run.step_seconds(sizes, how, device))


def smallest(run: Run, device: Device, sizes: Sizes) -> How:
    """The way that needs least memory."""
    return list(list(_ways(run.config, device, sizes))[-1])[-1]


def _ways(config: Config, device: Device, sizes: Sizes) -> Iterator[Iterator[How]]:
    """For each way to keep things, those with few microbatches first."""
    train = config.train
    many = ("dots", "full") if device.bandwidth else ("none",)
    for remat in many if train.remat == "auto" else (train.remat,):
        for remat_hypernet in many if train.remat_hypernet == "auto" else (train.remat_hypernet,):
            yield (How(n, remat, remat_hypernet, device.capability) for n in _microbatches(config, sizes))


def _microbatches(config: Config, sizes: Sizes) -> list[int]:
    """Numbers of microbatches that may be chosen: powers of two of which each device gets a row, at least."""
    if config.train.microbatches:
        return [config.train.microbatches]
    rows = config.data.batch_size // (sizes[0] * sizes[1])
    return [n for n in (2**power for power in range(rows.bit_length())) if rows % n == 0]


def this_device() -> Device:
    """The kind of device that this process computes on, as far as it is known."""
    first: Any = jax.devices()[0]
    if first.platform == "cpu":
        return Device("cpu", (), 0.0, machine.memory_gib() / jax.local_device_count())
    known = find_device(first.device_kind)
    if known is not None:
        return known
    limit = (first.memory_stats() or {}).get("bytes_limit", math.inf)
    # Rates only say which of two ways is faster, so those of an H100 stand for others.
    return Device(first.device_kind, (), 989e12, limit / USABLE / GIB, 3.35e12)


def chosen(config: Config, sizes: Sizes) -> Config:
    """The config with what it leaves open chosen for the devices of this process; if nothing fits, what needs least memory.

    UserError if microbatches are to be chosen for a model whose shape is not known.
    """
    if not is_open(config):
        return config
    device = this_device()
    ways = [list(some) for some in _ways(config, device, sizes)]
    if len(ways) == len(ways[0]) == 1:
        return _with(config, ways[0][0])
    try:
        run = Run(config, recipe_class(config.recipe).shapes(config))
    except UserError:
        if config.train.microbatches:  # a model that is downloaded later, whose shape is not known yet
            return _with(config, How.of(config))
        raise
    return _with(config, choice(run, device, sizes) or smallest(run, device, sizes))


def recorded(config: Config, before: dict) -> Config:
    """The config with what it leaves open as in `before`, that of the run's earlier start as a nested dict."""
    open_fields = {"microbatches": 0, "remat": "auto", "remat_hypernet": "auto"}
    train = before.get("train", {})
    kept = {
        name: train[name]
        for name, value in open_fields.items()
        if getattr(config.train, name) == value and train.get(name, value) != value
    }
    return from_dict(to_dict(dataclasses.replace(config, train=dataclasses.replace(config.train, **kept))))


def _with(config: Config, how: How) -> Config:
    fields = {name: getattr(how, name) for name in ("microbatches", "remat", "remat_hypernet")}
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **fields))
