"""Compiling loops with numba. The machine code is kept, so that only the first start compiles. Importing this imports numba."""

import contextlib
import functools
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numba

from zett.files.cache import cache_folder


def jit(function):
    """Compile a function when it is first called, and keep the machine code if there is a folder for it."""
    assert function.__module__.rpartition(".")[0] == __package__, function.__module__
    folder = _machine_code()
    if folder is None:
        return numba.njit(nogil=True)(function)
    settings: Any = numba.config
    given, settings.CACHE_DIR = settings.CACHE_DIR, folder
    try:
        return numba.njit(cache=True, nogil=True)(function)
    finally:
        settings.CACHE_DIR = given


@functools.cache
def _machine_code() -> str | None:
    """A folder to keep machine code in: in `$NUMBA_CACHE_DIR`, else beside the sources, else in zett's cache folder.

    numba compares the source of a function with the one that its machine code was made from, but not the sources of the
    functions that it calls, which may have been inlined from another file: so the folder is named by all the files here.
    """
    here = Path(__file__).parent
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(here.glob("*.py")))).hexdigest()
    given = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    for parent in (Path(given),) if given else (here / "__pycache__", cache_folder() / "numba"):
        folder = parent / f"zett-{digest[:16]}"
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return str(folder)
    return None
