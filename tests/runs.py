"""Tiny training runs that several tests start, and what they left in their workdirs."""

import json
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zett.config import Config, from_dict
from zett.train.step import make_step

ROOT = Path(__file__).parents[1]


def tiny_run(corpus, **train_settings) -> Config:
    """A tiny language model on the texts in `corpus`."""
    settings = {"steps": 12, "log_every": 3, "eval_every": 6, "checkpoint_every": 4, "eval_windows": 4, "dtype": "float32"}
    return from_dict(
        {
            "recipe": "lm",
            "data": {"text": str(corpus), "batch_size": 4, "length": 32, "resegment_share": 0.5},
            "tokenizer": {"vocab_size": 300},
            "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 32},
            "optim": {"learning_rate": 1e-2, "warmup_steps": 2},
            "train": settings | train_settings,
        }
    )


class Spoilt:
    """A recipe whose loss is multiplied by the "factor" that comes with the "inner" batch."""

    def __init__(self, recipe):
        self.recipe, self.config = recipe, recipe.config

    def loss(self, params, frozen, batch):
        value, metrics = self.recipe.loss(params, frozen, batch["inner"])
        return value * batch["factor"], metrics


def interrupted_after(number: int) -> Callable:
    """A `make_step` whose step number `number` ends with Ctrl-C."""

    def make(recipe, optimizer):
        step_fn = make_step(recipe, optimizer)

        def step(state, frozen, batch):
            state, values = step_fn(state, frozen, batch)
            if int(state.step) == number:
                signal.raise_signal(signal.SIGINT)
            return state, values

        return step

    return make


def records(workdir: Path, key: str = "loss") -> dict[int, float]:
    """What a run has logged under `key`, by step."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def exported(workdir: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {name: np.asarray(x, np.float32) for name, x in load_file(workdir / "export" / "model.safetensors").items()}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def environment(devices: int, cache: Path | None = None) -> dict:
    """Of a process that has so many simulated devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    own = {} if cache is None else {"ZETT_CACHE": str(cache)}
    return os.environ | own | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
