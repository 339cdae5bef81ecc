"""The folder of a training run: which run it belongs to, and that a run which fails before it begins leaves nothing behind."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from zett.errors import UserError

LOCK, CONFIG = ".lock", "config.json"


def has_begun(workdir: Path) -> bool:
    """Whether a run has left anything worth keeping in `workdir`. Until then, any other run may use it."""
    metrics = workdir / "metrics.jsonl"
    kept = metrics.is_file() and metrics.stat().st_size > 0
    return kept or any((workdir / name).exists() for name in ("export", "not_finite.json")) or _any(workdir / "checkpoints")


def _any(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def check_workdir(workdir: Path) -> None:
    """UserError unless `workdir` is absent, empty or that of a run. Hidden files other than .git are overlooked."""
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir} is a file; it has to be a folder")
    names = sorted(p.name for p in workdir.glob("*")) + ([".git"] if (workdir / ".git").exists() else [])
    names = [name for name in names if name == ".git" or not name.startswith(".")]
    if not names or (CONFIG in names and _is_runs(workdir / CONFIG)):
        return
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    found = f"{', '.join(names[:4])}{more}"
    raise UserError(f"--workdir {workdir} holds what no run has written ({found}); give a folder that does not exist yet")


def _is_runs(config: Path) -> bool:
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{config} is not a config that a run has written; give another --workdir")
    return isinstance(content.get("recipe", content.get("task")), str) and isinstance(content.get("train"), dict)


@contextlib.contextmanager
def only_run(workdir: Path) -> Iterator[None]:
    """A lock that a run holds while it is alive; UserError if another has it. The system frees it however a process ends."""
    import filelock

    lock = filelock.FileLock(workdir / LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise UserError(f"another run is going on in {workdir}; stop it first, or give another --workdir") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def held_workdir(workdir: Path) -> Iterator[None]:
    """`only_run`, in a folder that is made if needed. If the run fails before it has begun, what was made is removed."""
    check_workdir(workdir)
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        with only_run(workdir):
            # A run that was killed before it began leaves nothing worth keeping, and perhaps files that are incomplete.
            if not has_begun(workdir):
                _remove(workdir, {CONFIG, "tokenizer"})
            before = {path.name for path in workdir.iterdir()}
            try:
                yield
            except BaseException:
                if not has_begun(workdir):
                    _remove(workdir, {path.name for path in workdir.iterdir()} - before)
                raise
    finally:
        if not (workdir / CONFIG).exists():
            _remove(workdir, {LOCK})
            for folder in made:
                with contextlib.suppress(OSError):  # the folder is not empty
                    folder.rmdir()


def _remove(folder: Path, names: set[str]) -> None:
    for name in names:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
