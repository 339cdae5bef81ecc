"""Text sources: where documents come from.

`open_text` turns one string from the config into a `TextSource`: the Python sources of this machine, local files and folders,
or a Hugging Face data set. Every source yields whole documents and has a "train" and a "valid" split.
"""

import dataclasses
import functools
import gzip
import hashlib
import itertools
import json
import os
import re
import sysconfig
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from zett.errors import UserError

VALID_SHARE = 50  # one document in this many is held out where a source has no split of its own


class TextError(UserError):
    """A text source that cannot be read; the message is meant for the user."""


class Documents(Sequence[str]):
    """A text source: `len`, `[i]`, slices and iteration over documents, each a string."""

    name: str

    def fingerprint(self) -> str:
        """Changes when a document does; part of the key of all that is cached from here."""
        raise NotImplementedError

    def part(self, part: int, parts: int, stream_bytes: int) -> "Documents":
        """One of `parts` disjoint parts of the source; of a stream, all of them hold `stream_bytes`. Raises TextError."""
        if parts == 1:
            return self
        from zett.data.parts import Part

        return Part(self, part, parts)


@dataclasses.dataclass(frozen=True)
class Files(Documents):
    """Random access to what files hold; items are `(function, *arguments)` that read one document each."""

    name: str
    items: tuple

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [read(*args) for read, *args in self.items[index]]
        read, *args = self.items[index]
        return read(*args)

    def paths(self) -> set[Path]:
        """The files that the documents come from."""

        def of(value) -> Iterator[Path]:
            if isinstance(value, Path):
                yield value.resolve()
            elif isinstance(value, tuple):
                yield from itertools.chain.from_iterable(map(of, value))

        return set(of(self.items))

    def fingerprint(self) -> str:
        # A document has changed when its file's size or time has.
        files: dict[Path, str] = {}

        def describe(value) -> str:
            if isinstance(value, Path):
                if value not in files:
                    status = value.stat()
                    files[value] = f"{value}:{status.st_size}:{status.st_mtime_ns}"
                return files[value]
            if isinstance(value, tuple):
                return "(" + ",".join(map(describe, value)) + ")"
            return value.__name__ if callable(value) else repr(value)

        digest = hashlib.sha256(self.name.encode())
        for item in self.items:
            digest.update(describe(item).encode())
        return digest.hexdigest()


def held_out(key: str) -> bool:
    """Whether the document called `key` belongs to the "valid" split."""
    return hashlib.sha256(key.encode()).digest()[0] * 256 + hashlib.sha256(key.encode()).digest()[1] < 65536 // VALID_SHARE


def open_text(
    spec: str,
    *,
    split: str = "train",
    text_column: str = "text",
    package_bytes: int = 4_000_000,
    stream_bytes: int = 100_000_000,
) -> Documents:
    """A text source from its name.

    spec: "python" (sources on this machine), "prose" (the English in them), a file or folder (txt, md, rst, py, jsonl, parquet,
    each optionally .gz or .zst), or "hf:NAME" or "hf:NAME:CONFIG" (a Hugging Face data set, streamed; NAME may be a local
    folder). Behind "?", joined by "&", a data set's data_dir=, data_files=, revision= and column= (instead of `text_column`):
    "hf:some/code?data_dir=python&column=content". Several sources are joined by "|", each with a whole weight if they are not
    alike, by which documents are drawn: "14*hf:some/english|hf:some/code?data_dir=python|hf:some/code?data_dir=rust".
    split: "train" or "valid"; folders with train.* and valid.* files and data sets with such splits keep their own.
    package_bytes: of "python" only, the most that one package contributes, so that none dominates.
    stream_bytes: of "hf:" only, the text after which reading stops, of all joined sources together; of held-out text a fiftieth
    of it, and 2 MB at most.
    All are sequences of documents: `len`, `[i]` and iteration; see `Documents`. Raises TextError, a UserError.
    """
    if split not in ("train", "valid"):
        raise TextError(f"split {split!r} is unknown; use 'train' or 'valid'")
    sources = weighted_sources(spec)
    if len(sources) > 1:
        from zett.data.parts import Mixture

        opened = functools.partial(open_text, split=split, text_column=text_column, package_bytes=package_bytes)
        weights = [weight for weight, _ in sources]
        limits = shared_bytes(stream_bytes, weights)
        return Mixture([opened(one, stream_bytes=limit) for (_, one), limit in zip(sources, limits)], weights)
    [(_, spec)] = sources
    if spec.startswith("hf:"):
        from zett.data.stream import hub_stream

        return hub_stream(spec[3:], split, text_column, stream_bytes)
    if spec == "python":
        return python_sources(split, package_bytes)
    if spec == "prose":
        return english_prose(split, package_bytes)
    return local_files(Path(spec).expanduser(), split, text_column)


def weighted_sources(spec: str) -> list[tuple[int, str]]:
    """The sources that are joined in `spec`, each with its weight. Raises TextError."""
    found = []
    for one in spec.split("|"):
        match = re.fullmatch(r"(?:(\d+)\*)?(.+)", one.strip())
        if match is None or match[1] == "0":
            raise TextError(f"text source {spec!r}: {one!r} is not a source, or a whole weight above 0, '*' and a source")
        found.append((int(match[1] or 1), match[2]))
    return found


def is_local(spec: str) -> bool:
    """Whether a single source is a file or a folder, given by its path."""
    return spec not in ("python", "prose") and not spec.startswith("hf:")


def whole_files(spec: str, text_column: str = "text") -> list["Files"]:
    """All that the files and folders joined in `spec` hold, each once, whatever its weight. Raises TextError.

    Of a folder with train.* and valid.* files it is the latter.
    """
    return [local_files(Path(one).expanduser(), "whole", text_column) for _, one in weighted_sources(spec)]


def shared_bytes(stream_bytes: int, weights: Sequence[int]) -> list[int]:
    """`stream_bytes` divided by weights."""
    return [-(-stream_bytes * weight // sum(weights)) for weight in weights]


def check_source(spec: str) -> list[str]:
    """Whether the sources in `spec` can be there, without reading them: returns the data sets of the Hub. Raises TextError."""
    from zett.data.stream import HubSource

    remote = []
    for _, one in weighted_sources(spec):
        if one.startswith("hf:"):
            name = HubSource.of(one[3:]).name
            if not Path(name).exists():
                remote.append(name)
        elif is_local(one):
            _check_file(Path(one).expanduser())
    return remote


def first_bytes(documents: Iterable[str], limit: int) -> Iterator[str]:
    """Documents from the beginning until they hold `limit` bytes."""
    total = 0
    for text in documents:
        yield text
        total += len(text.encode("utf-8", "replace"))
        if total >= limit:
            return


# ---------------------------------------------------------------------------------------------------- Python sources


@functools.cache
def python_sources(split: str, package_bytes: int) -> Files:
    """Python files of the standard library and the installed packages, split by file.

    A file is known by its path inside its package, so every Python version and machine holds out the same files. Files are
    taken in hash order up to `package_bytes` a top-level package; copies are dropped.
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
    # Copies are dropped, and a held-out file is no copy of a training file (packages carry copies of one another).
    seen = set(python_sources("train", package_bytes)) if split == "valid" else set()
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
    return Files(f"python:{split}", tuple(items))


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _read_or_none(path: Path) -> str | None:
    try:
        return _read_text(path)
    except (UnicodeDecodeError, OSError):
        return None  # test files of the standard library are deliberately broken


# ---------------------------------------------------------------------------------------------------- English prose

# Every triple-quoted string, in order, so that the end of one is never taken for the start of the next; "head" is there where
# the string begins its line, as docstrings do.
TRIPLE_QUOTED = re.compile(r'''(?P<head>^[ \t]*[rRuU]?)?(?P<quote>"""|\'\'\')(?P<text>.*?)(?P=quote)''', re.S | re.M)
COMMENT_BLOCK = re.compile(r"(?:^[ \t]*#[ \t].*\n){2,}", re.MULTILINE)
COMMON_WORDS = frozenset("a an and are as at be by can for from has if in is it not of or that the this to was which".split())


def english_prose(split: str, package_bytes: int = 4_000_000) -> Files:
    """The English that comes with Python: docstrings and comments of `python_sources`, package descriptions, other text files.

    One document a file, cleaned of code, tables and markup as far as simple rules go; some documents are empty.
    """
    items = [(_prose_of_source, path) for _, path in python_sources(split, package_bytes).items]
    root = Path(sysconfig.get_paths()["purelib"])
    for path in sorted(root.rglob("*")):
        if path.name == "METADATA" or path.suffix in (".txt", ".rst", ".md"):
            if held_out(path.relative_to(root).as_posix()) == (split == "valid") and path.is_file():
                items.append((_prose_of_text, path))
    return Files(f"prose:{split}", tuple(items))


def _prose_of_source(path: Path) -> str:
    text = _read_or_none(path) or ""
    blocks = [m["text"] for m in TRIPLE_QUOTED.finditer(text) if m["head"] is not None]
    blocks += [re.sub(r"^[ \t]*#+ ?", "", block, flags=re.MULTILINE) for block in COMMENT_BLOCK.findall(text)]
    return "\n\n".join(filter(None, map(prose_paragraphs, blocks)))


def _prose_of_text(path: Path) -> str:
    text = _read_or_none(path)
    return prose_paragraphs(text) if text else ""


def prose_paragraphs(text: str) -> str:
    """The paragraphs of `text` that read like English sentences, each on one line, separated by blank lines."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text)]
    return "\n\n".join(p for p in paragraphs if _is_prose(p))


def _is_prose(paragraph: str) -> bool:
    words = paragraph.split()
    if len(words) < 8 or paragraph[-1] not in ".?!:" or re.search(r">>>|::|[{}<>|=_`\\]|\w\(", paragraph):
        return False
    if "License" in paragraph:  # the same licence header stands in thousands of files; it would rule the statistics
        return False
    plain = sum(c.isalpha() or c in " ,.'" for c in paragraph)
    common = sum(w.lower() in COMMON_WORDS for w in words)
    return plain >= 0.95 * len(paragraph) and common >= 0.2 * len(words)


# ------------------------------------------------------------------------------------------------------- local files

PLAIN = (".txt", ".md", ".py", ".rst")
SUFFIXES = (*PLAIN, ".jsonl", ".parquet")


def local_files(path: Path, split: str, text_column: str) -> Files:
    """A file or a folder, searched recursively; split: that of `open_text`, or "whole" (see `whole_files`).

    Raises TextError if nothing readable is there.
    """
    _check_file(path)
    files = _files(path)
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
    return path.is_dir() and {"train", "valid"} <= {file.name.split(".")[0] for file in _files(path)}


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and file_kind(p))


def _check_file(path: Path) -> None:
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
    """All but the last `1 / VALID_SHARE` of a document, or just that, cut after a line (without lines: after a character)."""
    text = read(*args)
    at = len(text) - max(len(text) // VALID_SHARE, 1)
    at = text.rfind("\n", 0, at) + 1 or at
    return text[at:] if split == "valid" else text[:at]


def file_kind(path: Path) -> str | None:
    """The suffix that says how a file is read, without a compression's; None if it is of no known kind."""
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
        # A parquet file is read from its end, so one that is compressed as a whole has to be unpacked first.
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
    except (OSError, EOFError, zlib.error) as error:  # gzip and zstd report damage by all of them
        raise TextError(f"{file}: cannot be decompressed: {error}") from None


def _decompressed(file: Path):
    if file.suffix == ".gz":
        return gzip.open(file)
    import pyarrow

    return pyarrow.input_stream(str(file), compression="zstd")
