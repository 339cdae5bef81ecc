"""Texts for `zett inspect`: texts by language, and the same content in several languages."""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

from zett.data.documents import TextError
from zett.data.local import PLAIN, SUFFIXES, file_bytes, file_text, json_lines

TABLES = (".parquet", ".jsonl", ".tsv", ".csv")
# Language tags as in BCP 47, with two or three letters for the language: de, pt-BR, zh-Hans, es-419.
_TAG = re.compile(r"[a-z]{2,3}([-_][A-Za-z]{4})?([-_]([A-Z]{2}|[0-9]{3}))?")
_NO_KEY = {"source", "url", "meta"}


def texts_by_language(paths: Iterable[str | Path], column: str = "text", limit: int = 1_000_000) -> dict[str, list[str]]:
    """Documents by language, up to about `limit` bytes of each.

    The language is in a table's column `lang`, if it has one. Else it is the name of the file, or of a folder around it, if
    that is a language tag; else the name of the path that was given. Raises TextError.
    """
    found: dict[str, list[str]] = {}
    room: dict[str, int] = {}
    for path in map(Path, paths):
        for file in files(path.expanduser(), (*SUFFIXES, *TABLES)):
            for language, text in _documents(file, path, column):
                if text.strip() and room.setdefault(language, limit) > 0:
                    text = text[: room[language]]
                    room[language] -= len(text.encode("utf-8", "replace"))
                    found.setdefault(language, []).append(text)
    if not found:
        raise TextError(f"no text in {', '.join(map(str, paths))}")
    return dict(sorted(found.items()))


def _documents(file: Path, given: Path, column: str) -> Iterable[tuple[str, str]]:
    language = language_of(file, given)
    if suffix(file) in PLAIN:
        return [(language, file_text(file))]
    table = read_table(file)
    if column not in table:
        raise TextError(f"{file}: no column {column!r}; columns: {', '.join(table)}")
    return zip(table.get("lang", [language] * len(table[column])), table[column])


def parallel_texts(paths: Iterable[str | Path], reference: str | None = None, limit: int = 1_000_000) -> tuple[str, dict]:
    """The reference language, and for each other language pairs of (reference text, text), up to about `limit` bytes of it.

    Tables of one of these forms: a column for each language; the columns `REFERENCE`, `xx` and `lang`; or `text`, `lang` and
    columns that say which texts belong together (`id`, or all others but `source`). reference: None for "en" where there is
    English, else the language with most texts. Raises TextError.
    """
    rows: dict[tuple, dict[str, str]] = {}
    for path in map(Path, paths):
        for file in files(path.expanduser(), TABLES):
            for key, language, text in _aligned(file, reference or "en"):
                if text.strip():
                    rows.setdefault(key, {})[language] = text
    counts: dict[str, int] = {}
    for row in rows.values():
        for language in row:
            counts[language] = counts.get(language, 0) + 1
    if reference is None:
        reference = "en" if "en" in counts else max(counts, key=counts.__getitem__, default="en")
    if reference not in counts:
        raise TextError(f"no text in the reference language {reference!r} in {', '.join(map(str, paths))}: {_have(counts)}")
    pairs: dict[str, list[tuple[str, str]]] = {}
    room = dict.fromkeys(counts, limit)
    for row in rows.values():
        for language, text in row.items():
            if language != reference and reference in row and room[language] > 0:
                room[language] -= len(text.encode("utf-8", "replace"))
                pairs.setdefault(language, []).append((row[reference], text))
    if not pairs:
        raise TextError(f"nothing in {', '.join(map(str, paths))} is in {reference!r} and in another language")
    return reference, dict(sorted(pairs.items()))


def _have(counts: dict[str, int]) -> str:
    return f"there are {', '.join(sorted(counts))}" if counts else "there is no text"


def _aligned(file: Path, reference: str) -> Iterable[tuple[tuple, str, str]]:
    """Triples of a key that texts with the same content share, the language, and the text."""
    table = read_table(file)
    number = range(len(next(iter(table.values()), [])))
    if {reference, "xx", "lang"} <= table.keys():
        # The reference text is the key, under which its translations into several languages come together.
        for text, other, language in zip(table[reference], table["xx"], table["lang"]):
            yield (text,), reference, text
            yield (text,), language, other
    elif {"text", "lang"} <= table.keys():
        keys = ["id"] if "id" in table else [name for name in table if name not in {"text", "lang", *_NO_KEY}]
        if not keys:
            raise TextError(f"{file}: no column that says which texts belong together, such as id; columns: {', '.join(table)}")
        for i in number:
            yield tuple(table[name][i] for name in keys), table["lang"][i], table["text"][i]
    else:
        # A column "id" is Indonesian if it holds text, and else numbers the rows.
        languages = [name for name in table if _TAG.fullmatch(name) and (name != "id" or any(" " in t for t in table[name]))]
        if len(languages) < 2:
            forms = f"a column for each language, or {reference}, xx and lang, or text, lang and id"
            raise TextError(f"{file}: not a table of parallel text ({forms}); columns: {', '.join(table)}")
        for i in number:
            for name in languages:
                yield (str(file), i), name, table[name][i]


# ----------------------------------------------------------------------------------------------------------------- files


def suffix(file: Path) -> str:
    """The suffix that says what a file is; that of a compression is left out."""
    suffixes = [s for s in file.suffixes if s not in (".gz", ".zst")]
    return suffixes[-1] if suffixes else ""


def files(path: Path, suffixes: Iterable[str]) -> list[Path]:
    """A file, or all files with these suffixes in a folder and its subfolders. Raises TextError if there are none."""
    known = tuple(dict.fromkeys(suffixes))
    if not path.exists():
        raise TextError(f"no such file or folder: {path}")
    if path.is_file() and suffix(path) not in known:
        raise TextError(f"{path}: unknown kind of file; known: {', '.join(known)}, each also with .gz or .zst")
    found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and suffix(p) in known)
    if not found:
        raise TextError(f"{path}: no file of a known kind ({', '.join(known)})")
    return found


def language_of(file: Path, given: Path) -> str:
    """The language tag that names a file or a folder around it, up to the given path; else the name of the given path."""
    names = [file.name.split(".")[0]]
    folder = file.parent
    while file != given and folder.is_relative_to(given):
        names.append(folder.name)
        folder = folder.parent
    return next((name for name in names if _TAG.fullmatch(name)), given.name)


def read_table(file: Path) -> dict[str, list[str]]:
    """The columns of a parquet, jsonl, tsv or csv file as strings; an empty cell is "". Raises TextError."""
    ending = suffix(file)
    if ending == ".parquet":
        return _parquet(file)
    text = file_text(file).removeprefix("\ufeff")
    if ending == ".jsonl":
        rows = list(json_lines(text, file))
    else:
        csv.field_size_limit(2**31 - 1)
        lines = io.StringIO(text, newline="")
        tabs = ending == ".tsv"
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE) if tabs else csv.DictReader(lines))
    names = dict.fromkeys(name for row in rows for name in row if name is not None)
    return {name: ["" if row.get(name) is None else str(row[name]) for row in rows] for name in names}


def _parquet(file: Path) -> dict[str, list[str]]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(file_bytes(file)))
    except pyarrow.ArrowInvalid as error:
        raise TextError(f"{file}: not a readable parquet file: {error}") from None
    columns = zip(table.column_names, table.columns)
    return {name: ["" if value is None else str(value) for value in column.to_pylist()] for name, column in columns}
