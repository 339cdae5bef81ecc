"""How fast the CPU of this machine is. It is measured, since no data sheet says it."""

import functools
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from zett.lms.layers import product_dtype
from zett.plan.devices import Device

SIZE = 512  # of the matrices; large enough to be bound by arithmetic
SECONDS = 0.15  # of measuring, beside compiling


def cpu(dtype: str) -> Device | None:
    """This machine's CPU, with the rate of its matrix products in the `dtype` of a config as its peak; None if JAX has none."""
    try:
        device = jax.devices("cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return None
    # "auto" is the best dtype of the default device, which may be something else than the CPU.
    name = "float32" if dtype == "auto" and jax.default_backend() != "cpu" else product_dtype(dtype).name
    return Device("cpu", (f"{cores()} core{'s' * (cores() > 1)}, {name}",), product_rate(name, device), memory_gib())


@functools.cache
def product_rate(dtype: str, device) -> float:
    """FLOP/s of products of `[SIZE, SIZE]` matrices: the best of several, since other programs only slow it down."""
    x = jax.device_put(np.random.default_rng(0).standard_normal((SIZE, SIZE), np.float32), device).astype(dtype)
    product = jax.jit(lambda x: jnp.matmul(x, x, preferred_element_type=x.dtype))
    product(x).block_until_ready()
    times: list[float] = []
    while sum(times) < SECONDS:
        clock = time.perf_counter()
        product(x).block_until_ready()
        times.append(time.perf_counter() - clock)
    return 2.0 * SIZE**3 / min(times)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """The machine's memory, or the limit of the container that this runs in."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            size = min(size, int(Path(file).read_text()))
        except (OSError, ValueError):  # another system, or "max"
            continue
    return round(size / 2**30, 1)
