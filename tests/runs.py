"""Tiny training runs that several tests start, and what they left in their workdirs."""

import json
import os
import socket
from pathlib import Path

import numpy as np

from zett.config import Config, from_dict

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
    flags = f"--xla_force_host_platform_device_count={devices}"
    own = {} if cache is None else {"ZETT_CACHE": str(cache)}
    return os.environ | own | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
