"""Writing a whole folder or nothing: beside first, then renamed."""

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from zett.errors import UserError


def check_output(output: Path, *, overwrite: bool, marker: str, inputs: Iterable[Path] = ()) -> None:
    """UserError unless `output` may be written: absent, empty, or (with `overwrite`) a folder that holds `marker`.

    A folder that is, or contains, one of `inputs` is never overwritten.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"output {output} is a file; give a folder that does not exist yet")
    if not any(output.iterdir()):
        return
    if not overwrite:
        raise UserError(f"output {output} exists and is not empty; give another folder, or overwrite=True (--overwrite)")
    for path in inputs:
        if path.resolve().is_relative_to(output.resolve()):
            raise UserError(f"output {output} contains {path}, which is read from; give another folder")
    if not (output / marker).is_file():
        raise UserError(f"output {output} has no {marker}, so it was not written by this command; it is not overwritten")


@contextlib.contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A temporary folder that becomes `output` (replacing it) if the block succeeds, and is removed if it fails.

    A full disk is a UserError. Call `check_output` first: what is at `output` is deleted.
    """
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise UserError(f"cannot write to {output.parent}: {error.strerror or error}") from error
    try:
        temporary.chmod(0o777 & ~_umask())  # mkdtemp's folders are private, which a model folder is not
        yield temporary
        if output.exists():
            # Renamed away before it is deleted, so that `output` is never half of something.
            old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
            output.rename(old / "folder")
            temporary.rename(output)
            shutil.rmtree(old)
        else:
            temporary.rename(output)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(f"no space left on the disk of {output.parent}; nothing was written to {output}") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask
