"""Where a result comes from: versions, commit, machine and devices."""

import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import time
from pathlib import Path


def start_record() -> dict:
    """What a run was started with: command, versions, commit, devices."""
    import jax

    packages = ["zett", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tokenizers", "transformers", "datasets"]
    return {
        "time": round(time.time(), 3),
        "command": sys.argv,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "python": platform.python_version(),
        "versions": _versions(*packages),
        "commit": _commit(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}, {jax.process_count()} processes",
    }


def _commit() -> str | None:
    """The commit of the source tree that is running, with "+" if files differ from it; None outside of a repository."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno", "."], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if dirty.strip() else "")


def _versions(*packages: str) -> dict[str, str]:
    """Versions of those packages that are installed. zett itself need not be: it runs from a checkout, too."""
    found = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    return found


def environment() -> dict:
    """The software and the machine that numbers were measured with."""
    import jax

    versions = {"python": platform.python_version(), **_versions("zett", "jax", "jaxlib", "flax", "numpy", "tokenizers")}
    device = jax.devices()[0]
    return {
        "versions": versions,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "machine": {"system": platform.system(), "architecture": platform.machine(), "cpus": os.cpu_count()},
    }
