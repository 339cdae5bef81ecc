"""Local text files and folders: plain, jsonl, parquet, each perhaps compressed."""

import functools
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from zett.data.documents import VALID_SHARE, Files, TextError, held_out

PLAIN = (".txt", ".md", ".py", ".rst")
SUFFIXES = (*PLAIN, ".jsonl", ".parquet")


def local_files(path: Path, split: str, text_column: str) -> Files:
    """A file or a folder, searched recursively; split: that of `open_text`, or "whole" (see `whole_files`).

    Raises TextError if nothing readable is there.
    """
    check_file(path)
    files = text_files(path)
    if has_own_split(path):
        split = "valid" if split == "whole" else split
        items = [item for file in files if file.name.split(".")[0] == split for item in _documents(file, text_column)]
    else:
        every = ((file, i, item) for file in files for i, item in enumerate(_documents(file, text_column)))
        keyed = [(_key(file, path, i), item) for file, i, item in every]
        items = [item for _, item in keyed] if split == "whole" else _split(keyed, split)
    if not items:
        of = "" if split == "whole" else f" for the {split!r} split"
        raise TextError(f"{path}: no text{of} (looked for {', '.join(SUFFIXES)}; column {text_column!r})")
    return Files(f"{path}:{split}", tuple(items))


def has_own_split(path: Path) -> bool:
    """Whether a folder's files say by their names which of them are for training and which are held out."""
    return path.is_dir() and {"train", "valid"} <= {file.name.split(".")[0] for file in text_files(path)}


def text_files(path: Path) -> list[Path]:
    """The file `path`, or the files in this folder that can be read, in order."""
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and file_kind(p))


def check_file(path: Path) -> None:
    """TextError unless it is a folder, or a file of a kind that can be read."""
    if not path.exists():
        raise TextError(f"no such file or folder: {path}")
    if path.is_file() and not file_kind(path):
        raise TextError(f"{path}: unknown kind of file; known: {', '.join(SUFFIXES)}, each also with .gz or .zst")


def _key(file: Path, root: Path, i: int) -> str:
    return f"{file.name if file == root else file.relative_to(root).as_posix()}#{i}"


def _split(items: list[tuple[str, tuple]], split: str) -> list[tuple]:
    """The part of `items` (key, document) that is in `split`; neither split is empty unless there is no text."""
    if len(items) == 1:  # the end of the only document is held out
        read, *args = items[0][1]
        return [(_part, read, tuple(args), split)]
    valid = {key for key, _ in items if held_out(key)}
    if len(valid) in (0, len(items)):  # too few for a split by hash
        valid = {key for key, _ in items[-1:]}
    return [item for key, item in items if (key in valid) == (split == "valid")]


def _part(read, args: tuple, split: str) -> str:
    """A document without its last `1 / VALID_SHARE`, or that end alone; cut after a line, or anywhere if it has no lines."""
    text = read(*args)
    at = len(text) - max(len(text) // VALID_SHARE, 1)
    at = text.rfind("\n", 0, at) + 1 or at
    return text[at:] if split == "valid" else text[:at]


def file_kind(path: Path) -> str | None:
    """The suffix that says how to read a file, such as ".txt" for a.txt.gz; None if it is not known."""
    suffixes = [s for s in path.suffixes if s not in (".gz", ".zst")]
    return suffixes[-1] if suffixes and suffixes[-1] in SUFFIXES else None


def _documents(file: Path, text_column: str) -> list[tuple]:
    if file_kind(file) in PLAIN:
        return [(_plain, file)] if _plain(file).strip() else []
    return [(_row, file, text_column, i) for i, text in enumerate(_column(file, text_column)) if text.strip()]


def _row(file: Path, text_column: str, i: int) -> str:
    return _column(file, text_column)[i]


def _plain(file: Path) -> str:
    return file_text(file)


@functools.lru_cache(maxsize=8)
def _column(file: Path, text_column: str) -> list[str]:
    """All texts of a jsonl or parquet file; "" where there is none."""
    if file_kind(file) == ".parquet":
        return _parquet_column(file, text_column)
    texts = []
    for number, line in enumerate(file_text(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)[text_column]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            what = f"no field {error}" if isinstance(error, KeyError) else str(error)
            raise TextError(f"{file}, line {number}: expected a JSON object with the field {text_column!r}: {what}") from None
        if not isinstance(text, (str, type(None))):
            raise TextError(f"{file}, line {number}: {text_column!r} is {text!r:.60}; it has to be a string")
        texts.append(text or "")
    return texts


def _parquet_column(file: Path, text_column: str) -> list[str]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        # Reading a parquet file begins at its end, so a file that is compressed as a whole has to be unpacked first.
        content = pyarrow.BufferReader(file_bytes(file)) if file.suffix in (".gz", ".zst") else str(file)
        with parquet.ParquetFile(content) as table:
            names = table.schema_arrow.names
            if text_column not in names:
                raise TextError(f"{file}: no column {text_column!r}; columns: {', '.join(names)}")
            kind = table.schema_arrow.field(text_column).type
            if not (pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)):
                raise TextError(f"{file}: column {text_column!r} holds {kind}; it has to hold strings")
            return [text or "" for text in table.read(columns=[text_column])[text_column].to_pylist()]
    except pyarrow.ArrowInvalid as error:
        raise TextError(f"{file}: not a readable parquet file: {error}") from None


def json_lines(text: str, file: Path) -> Iterator[dict]:
    """The objects of a jsonl file that holds `text`; empty lines are left out. Raises TextError."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise TextError(f"{file}, line {number}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise TextError(f"{file}, line {number}: expected a JSON object, not {line:.40}")
            yield row


def file_text(file: Path) -> str:
    """What a text file, perhaps compressed, holds. Raises TextError, with the place of the first byte that is not UTF-8."""
    data = file_bytes(file)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TextError(f"{file}: not UTF-8 at byte {error.start}") from None


def file_bytes(file: Path) -> bytes:
    """What a file holds, without the compression that its name tells. Raises TextError."""
    if file.suffix not in (".gz", ".zst"):
        return file.read_bytes()
    try:
        with _decompressed(file) as stream:
            return stream.read()
    except (OSError, EOFError, zlib.error) as error:  # gzip and zstd use all of these for damaged files
        raise TextError(f"{file}: cannot be decompressed: {error}") from None


def _decompressed(file: Path):
    if file.suffix == ".gz":
        return gzip.open(file)
    import pyarrow

    return pyarrow.input_stream(str(file), compression="zstd")
