"""The Python sources of this machine."""

import functools
import hashlib
import os
import sysconfig
from pathlib import Path

from zett.data.documents import Files, TextError, held_out


@functools.cache
def python_sources(split: str, package_bytes: int) -> Files:
    """Python files of the standard library and the installed packages, split by file.

    The path of a file inside its package decides its split, so every Python version and machine holds out the same files. From
    each top-level package, files are taken in the order of their hashes until they hold `package_bytes`. Copies are dropped.
    """
    paths = sysconfig.get_paths()
    found: dict[str, Path] = {}
    for kind in ("stdlib", "purelib", "platlib"):
        root = Path(paths[kind])
        for folder, subfolders, files in os.walk(root):
            subfolders[:] = sorted(d for d in subfolders if d not in ("site-packages", "__pycache__"))
            for file in files:
                if file.endswith(".py"):
                    path = Path(folder, file)
                    found.setdefault(path.relative_to(root).as_posix(), path)
    order = sorted(found, key=lambda key: hashlib.sha256(key.encode()).digest())
    taken: dict[str, int] = {}
    items = []
    # Packages carry copies of one another: each text is taken once, and no held-out file is a copy of a training file.
    seen = set(python_sources("train", package_bytes)) if split == "valid" else set()
    for key in order:
        if held_out(key) != (split == "valid"):
            continue
        size = found[key].stat().st_size
        package = key.split("/")[0]
        if not 200 <= size <= 200_000 or taken.get(package, 0) + size > package_bytes:
            continue
        text = text_or_none(found[key])
        if text is None or text in seen:
            continue
        seen.add(text)
        taken[package] = taken.get(package, 0) + size
        items.append((_read_text, found[key]))
    if not items:
        raise TextError(f"no Python sources found under {paths['stdlib']}")
    return Files(f"python:{split}", tuple(items))


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def text_or_none(path: Path) -> str | None:
    """What a file holds, or None if it cannot be read."""
    try:
        return _read_text(path)
    except (UnicodeDecodeError, OSError):
        return None  # some test files of the standard library are broken on purpose
