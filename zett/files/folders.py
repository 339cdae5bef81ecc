"""Writing folders whole or not at all: written under another name, then renamed. And which folders may be replaced."""

import contextlib
import errno
import fnmatch
import glob
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from zett.errors import UserError
from zett.files.jsonfile import json_or_empty, write_json

# What a tokenizer's folder may hold.
TOKENIZER_FILES = [
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template*",
    "additional_chat_templates", "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.spm", "*.tiktoken",
]  # fmt: skip
# Files that are copied with a model, whatever becomes of it.
LEGAL_FILES = ["LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*"]
# What a sentence-embedding model has beside modules.json and the folders that it names.
SENTENCE_FILES = ["sentence_bert_config.json", "config_sentence_transformers.json"]

MARKER, FORMAT = "zett.json", "zett-folder-1"
_SHARED = ["config.json", "README.md", "training.json", *LEGAL_FILES]
_HYPERNET = [*_SHARED, "model.safetensors", "base_rows.safetensors", *(f"source_tokenizer/{name}" for name in TOKENIZER_FILES)]
_WEIGHTS = ["*.safetensors", "pytorch_model*.bin"]
_MODEL = [
    *_SHARED, *_WEIGHTS, *TOKENIZER_FILES, *SENTENCE_FILES, "*.safetensors.index.json", "pytorch_model.bin.index.json",
    "generation_config.json", "modules.json", "additional_chat_templates/*.jinja", "[0-9]_*/config.json",
    "[0-9]_*/*.safetensors", ".gitattributes",
]  # fmt: skip


def output_path(output: str | Path, name: str = "output") -> Path:
    """The path of an output; name: the setting that gives it. UserError for an empty one, which `Path` takes for "."."""
    if not str(output).strip():
        raise UserError(f"{name} is {str(output)!r}; it has to be the name of what is to be written")
    return Path(output).expanduser()


def check_output(output: Path, *, overwrite: bool, inputs: Iterable[str | Path | None] = ()) -> None:
    """UserError unless the folder `output` may be written: absent, empty, or (with `overwrite`) one that may be replaced.

    Replaced may be a folder that zett wrote, or a model's folder, if nothing else is in it. A folder that is one of `inputs`,
    contains one or lies inside one is never written; names of what is not on this machine are passed over.
    """
    for path in (Path(name).expanduser() for name in inputs if name is not None):
        if not path.exists():
            continue
        check_outside(output, path)
        if path.resolve().is_relative_to(output.resolve()):
            raise UserError(f"output {output} contains {path}, which is read from; give another folder")
    if output.is_symlink() and not output.exists():
        raise UserError(f"output {output} is a link to nothing; give a folder that does not exist yet")
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"output {output} is a file; give a folder that does not exist yet")
    if Path.cwd().is_relative_to(output.resolve()):
        raise UserError(f"output {output} is the current folder, or holds it; give the name of another one")
    if not any(output.iterdir()):
        return
    if not overwrite:
        raise UserError(f"output {output} exists and is not empty; give another folder, or overwrite=True (--overwrite)")
    if lost := foreign(output):
        raise UserError(
            f"output {output} holds what zett did not write, which would be lost: {_first(lost)}; "
            "give another folder, or move that away"
        )


def check_outside(output: Path, path: Path, name: str = "output") -> None:
    """UserError if `output`, given by the setting `name`, is `path`, which is read from, or lies in there."""
    ours, theirs = output.resolve(), path.resolve()
    if ours.is_relative_to(theirs):
        raise UserError(f"{name} {output} {'is' if ours == theirs else 'lies in'} {path}, which is read from; give another one")


def mark(folder: Path, command: str, settings: dict) -> None:
    """Write into the finished `folder` a record that zett wrote it: the command, its settings, and the files."""
    from zett import __version__

    files = sorted(str(path.relative_to(folder).as_posix()) for path in folder.rglob("*") if not path.is_dir())
    record = {"format": FORMAT, "zett": __version__, "command": command, "settings": settings, "files": files}
    write_json(folder / MARKER, record)


def foreign(folder: Path) -> list[str]:
    """What in `folder` may be somebody's own work: everything but the files that zett wrote there, or those of a model.

    Paths are relative to the folder. A subfolder that holds nothing else is given as one path that ends in "/".
    """
    config, marker = json_or_empty(folder / "config.json"), json_or_empty(folder / MARKER)
    if marker.get("format") == FORMAT and isinstance(marker.get("files"), list):
        own = [MARKER, *(glob.escape(str(name)) for name in marker["files"])]
    elif str(config.get("format")).startswith("zett-hypernet-"):
        own = _HYPERNET
    elif "model_type" in config and any(True for pattern in _WEIGHTS for _ in folder.glob(pattern)):
        own = _MODEL
    else:  # without a model in the folder, files with such names may be anything
        own = []
    return list(_foreign(folder, own, ""))


def _foreign(folder: Path, own: Sequence[str], before: str) -> Iterator[str]:
    holders = {pattern.rsplit("/", n)[0] for pattern in own for n in range(1, pattern.count("/") + 1)}
    for path in sorted(folder.iterdir()):
        name = before + path.name
        if path.is_dir() and not path.is_symlink():
            if any(fnmatch.fnmatchcase(name, holder) for holder in holders):
                yield from _foreign(path, own, name + "/")
            else:
                yield name + "/"
        elif not any(fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in own):
            yield name


def _first(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


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
        temporary.chmod(0o777 & ~_umask())  # mkdtemp's folders are readable by their owner only
        yield temporary
        if output.exists():
            # The old folder is renamed before it is deleted, so that `output` is complete at any time.
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


def found(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The files and folders in `folder` that match, pattern by pattern."""
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def copy_files(paths: Sequence[Path], folder: Path) -> None:
    """Copy files, and folders with everything in them, into `folder`, byte for byte."""
    for path in paths:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(path, folder / path.name)
