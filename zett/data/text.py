"""Text sources: where documents come from.

`open_text` turns one string from the config into a `TextSource`: the Python sources of this machine, local files and folders,
or a Hugging Face data set. Every source yields whole documents and has a "train" and a "valid" split.
"""

import dataclasses
import functools
import gzip
import hashlib
import io
import json
import os
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from zett.errors import UserError

VALID_SHARE = 50  # one document in this many is held out where a source has no split of its own


class TextError(UserError):
    """A text source that cannot be read; the message is meant for the user."""


@dataclasses.dataclass(frozen=True)
class Documents(Sequence):
    """A random-access source: `len`, `[i]` and iteration over documents, each a string."""

    name: str
    items: tuple

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [read(*args) for read, *args in self.items[index]]
        read, *args = self.items[index]
        return read(*args)

    def fingerprint(self) -> str:
        """Changes when the list of documents does; part of the key of everything cached from this source."""
        digest = hashlib.sha256(self.name.encode())
        for _, *args in self.items:
            digest.update(repr(args).encode())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Stream:
    """A source that can only be read from its beginning."""

    name: str
    open: object

    def __iter__(self) -> Iterator[str]:
        return self.open()


def held_out(key: str) -> bool:
    """Whether the document called `key` belongs to the "valid" split."""
    return hashlib.sha256(key.encode()).digest()[0] * 256 + hashlib.sha256(key.encode()).digest()[1] < 65536 // VALID_SHARE


def open_text(spec: str, *, split: str = "train", text_column: str = "text", package_bytes: int = 4_000_000):
    """A text source from its name.

    spec: "python" (sources on this machine), a file or folder (txt, md, py, jsonl, parquet, each optionally .gz or .zst), or
    "hf:NAME" or "hf:NAME:CONFIG" (a Hugging Face data set, streamed).
    split: "train" or "valid"; folders with train.* and valid.* files and data sets with such splits keep their own.
    package_bytes: of "python" only, the most that one package contributes, so that none dominates.
    """
    if split not in ("train", "valid"):
        raise TextError(f"split {split!r} is unknown; use 'train' or 'valid'")
    if spec == "python":
        return python_sources(split, package_bytes)
    if spec.startswith("hf:"):
        return hub_stream(spec[3:], split, text_column)
    return local_files(Path(spec).expanduser(), split, text_column)


# ---------------------------------------------------------------------------------------------------- Python sources


@functools.cache
def python_sources(split: str, package_bytes: int) -> Documents:
    """Python files of the standard library and the installed packages, split by file.

    A file is known by its path inside its package, so every Python version and machine holds out the same files. Files are
    taken in hash order up to `package_bytes` a top-level package; copies are dropped.
    """
    paths = sysconfig.get_paths()
    found = {}
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
    items, seen = [], set()
    for key in order:
        if held_out(key) != (split == "valid"):
            continue
        size = found[key].stat().st_size
        package = key.split("/")[0]
        if not 200 <= size <= 200_000 or taken.get(package, 0) + size > package_bytes:
            continue
        text = _read_or_none(found[key])
        if text is None or text in seen:
            continue
        seen.add(text)
        taken[package] = taken.get(package, 0) + size
        items.append((_read_text, found[key]))
    if not items:
        raise TextError(f"no Python sources found under {paths['stdlib']}")
    return Documents(f"python:{split}", tuple(items))


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _read_or_none(path: Path) -> str | None:
    try:
        return _read_text(path)
    except (UnicodeDecodeError, OSError):
        return None  # test files of the standard library are deliberately broken


# ------------------------------------------------------------------------------------------------------- local files

PLAIN = (".txt", ".md", ".py", ".rst")
SUFFIXES = (*PLAIN, ".jsonl", ".parquet")


def local_files(path: Path, split: str, text_column: str) -> Documents:
    """A file or a folder, searched recursively. Raises TextError if nothing readable is there."""
    if not path.exists():
        raise TextError(f"no such file or folder: {path}")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and _kind(p))
    if path.is_file() and not _kind(path):
        raise TextError(f"{path}: unknown kind of file; known: {', '.join(SUFFIXES)}, each also with .gz or .zst")
    own_split = any(p.name.split(".")[0] in ("train", "valid") for p in files)
    if own_split:
        files = [p for p in files if p.name.split(".")[0] == split]
    items = []
    for file in files:
        base = file.name if path.is_file() else file.relative_to(path).as_posix()
        for i, item in enumerate(_documents(file, text_column)):
            if own_split or held_out(f"{base}#{i}") == (split == "valid"):
                items.append(item)
    if not items and split == "valid" and not own_split:
        # Too few documents for a split by hash: the last one is held out.
        everything = [item for file in files for item in _documents(file, text_column)]
        items = everything[-1:] if len(everything) > 1 else []
    if not items:
        raise TextError(f"{path}: no text for the {split!r} split (looked for {', '.join(SUFFIXES)}; column {text_column!r})")
    return Documents(f"{path}:{split}", tuple(items))


def _kind(path: Path) -> str | None:
    suffixes = [s for s in path.suffixes if s not in (".gz", ".zst")]
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else None


def _documents(file: Path, text_column: str) -> list[tuple]:
    kind = _kind(file)
    if kind in PLAIN:
        return [(_plain, file)] if _plain(file).strip() else []
    count = len(_column(file, text_column))
    return [(_row, file, text_column, i) for i in range(count)]


def _row(file: Path, text_column: str, i: int) -> str:
    return _column(file, text_column)[i]


def _plain(file: Path) -> str:
    data = _decompressed(file).read()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{file}: not UTF-8 at byte {error.start}") from None


@functools.lru_cache(maxsize=8)
def _column(file: Path, text_column: str):
    if _kind(file) == ".parquet":
        import pyarrow
        import pyarrow.parquet as parquet

        try:
            names = parquet.read_schema(file).names
            if text_column not in names:
                raise TextError(f"{file}: no column {text_column!r}; columns: {', '.join(names)}")
            return parquet.read_table(file, columns=[text_column])[text_column].to_pylist()
        except pyarrow.ArrowInvalid as error:
            raise TextError(f"{file}: not a readable parquet file: {error}") from None
    texts = []
    for number, line in enumerate(io.TextIOWrapper(_decompressed(file), encoding="utf-8"), 1):
        try:
            texts.append(json.loads(line)[text_column])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise TextError(f"{file}, line {number}: expected a JSON object with {text_column!r}: {error}") from None
    return texts


def _decompressed(file: Path):
    if file.suffix == ".gz":
        return gzip.open(file)
    if file.suffix == ".zst":
        import pyarrow

        return pyarrow.input_stream(str(file), compression="zstd")
    return file.open("rb")


# ----------------------------------------------------------------------------------------------- Hugging Face data sets


def hub_stream(spec: str, split: str, text_column: str) -> Stream:
    """A Hugging Face data set by name, streamed; "NAME:CONFIG" picks a configuration."""
    name, _, config = spec.partition(":")

    def rows():
        import datasets

        available = datasets.get_dataset_split_names(name, config or None)
        wanted = split if split in available else {"train": "train", "valid": "validation"}[split]
        if wanted in available:
            stream = datasets.load_dataset(name, config or None, split=wanted, streaming=True)
            for row in stream:
                yield row[text_column]
            return
        # No held-out split of its own: one document in VALID_SHARE, by position.
        stream = datasets.load_dataset(name, config or None, split="train", streaming=True)
        for i, row in enumerate(stream):
            if held_out(f"{name}#{i}") == (split == "valid"):
                yield row[text_column]

    return Stream(f"hf:{spec}:{split}", rows)
