"""JAX's compiled programs, kept on disk: a second start of the same command compiles nothing."""

import hashlib
import os
import platform
from pathlib import Path

from zett.files.cache import cache_folder

MOST_BYTES = 2 * 2**30  # what was not used for longest goes first


def keep_compiled_programs() -> None:
    """Has to be called before JAX is imported. Settings of JAX's own that the environment holds go first.

    Programs for a CPU are for its instructions, so that machines which share a cache folder have one each.
    """
    try:
        flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        flags = platform.processor()
    machine = hashlib.sha256(f"{platform.machine()} {flags}".encode()).hexdigest()[:12]
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "jax" / machine))
    os.environ.setdefault("JAX_COMPILATION_CACHE_MAX_SIZE", str(MOST_BYTES))
