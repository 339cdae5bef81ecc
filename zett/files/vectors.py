"""Files of word vectors: word2vec's two formats, fastText's .vec and GloVe's, as text perhaps compressed by gzip.

They come from strangers: a file is read no further than it is needed, and no number in it decides how much memory is taken.
"""

import dataclasses
import functools
import gzip
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from zett.errors import UserError

MOST_VALUES = 4096  # a vector's
MOST_BYTES = 2**20  # of a line of text
MOST_WORD = 2**12  # bytes
FASTTEXT_MODEL = b"\xba\x16\x4f\x2f"
FORMATS = "word2vec (text or binary), fastText's .vec, or GloVe"


@dataclasses.dataclass(frozen=True, eq=False)
class WordVectors:
    """Words, the most frequent first as in the file, and their vectors `[n, d]` float32. name: for messages."""

    name: str
    words: list[str]
    rows: np.ndarray

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """The first place of each word."""
        return {word: i for i, word in reversed(list(enumerate(self.words)))}


def read_vectors(path: str | Path, most: int, wanted: Container[str] | None = None) -> WordVectors:
    """The first `most` words of a file; of these, those that are `wanted`, perhaps none.

    UserError, with the place, for what is not of these formats; lines of other words are not looked at.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"there is no file {file} with word vectors")
    try:
        with open(file, "rb") as stored:
            return _read(file, gzip.GzipFile(fileobj=stored) if file.suffix == ".gz" else stored, most, wanted)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{file} cannot be read: {error}") from None


def _read(file: Path, stream: Any, most: int, wanted: Container[str] | None) -> WordVectors:
    first = stream.readline(MOST_BYTES)
    if first.startswith(FASTTEXT_MODEL):
        raise UserError(f"{file} is a fastText model; give its vectors as text, the file that ends with .vec")
    if first[:1] in (b"\x80", b"\x93"):
        raise UserError(f"{file} is a pickle or a NumPy file, which is not read; write the vectors as {FORMATS}")
    if (header := _header(first)) is None:
        lines, size = _lines(stream, first), len(first.split()) - 1
        return _text(file, lines, size, most, 1, wanted)
    count, size = header
    if not (1 <= size <= MOST_VALUES and count >= 1):
        raise UserError(f"{file}: its first line says {count} vectors of {size} numbers; there are 1 to {MOST_VALUES}")
    second = stream.readline(MOST_BYTES)
    if _parsed(second, size) is not None or not second.strip():
        return _text(file, _lines(stream, second), size, min(most, count), 2, wanted)
    return _binary(file, _Buffered(second, stream), size, min(most, count), wanted)


def _header(line: bytes) -> tuple[int, int] | None:
    """Number and size of the vectors, where the first line says them."""
    parts = line.split()
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(p.isdigit() and len(p) < 12 for p in parts) else None


def _lines(stream: IO[bytes], line: bytes) -> Iterator[bytes]:
    while line:
        yield line
        line = stream.readline(MOST_BYTES)


def _parsed(line: bytes, size: int) -> tuple[str, np.ndarray] | None:
    """Word and vector of a line; a word may hold spaces."""
    parts = line.rstrip(b" \r\n").rsplit(b" ", size)
    if len(parts) != size + 1:
        return None
    try:
        values = np.asarray([float(part) for part in parts[1:]], np.float32)
    except ValueError:
        return None
    return parts[0].decode("utf-8", "replace"), values


def _text(
    file: Path, lines: Iterator[bytes], size: int, most: int, number: int, wanted: Container[str] | None
) -> WordVectors:  # fmt: skip
    """number: of the first line."""
    if not 1 <= size <= MOST_VALUES:
        raise UserError(f"{file}, line {number}: not a word and 1 to {MOST_VALUES} numbers; known formats: {FORMATS}")
    words: list[str] = []
    rows: list[np.ndarray] = []
    seen = 0
    for at, line in enumerate(lines, number):
        if seen == most:
            break
        if not line.strip():
            continue
        seen += 1
        if wanted is not None and line.split(b" ", 1)[0].decode("utf-8", "replace") not in wanted:
            continue
        found = _parsed(line, size)
        if found is None or not np.isfinite(found[1]).all():
            raise UserError(f"{file}, line {at}: not a word and {size} finite numbers; known formats: {FORMATS}")
        words.append(found[0])
        rows.append(found[1])
    return _made(file, words, rows, seen, size)


def _binary(file: Path, stream: "_Buffered", size: int, most: int, wanted: Container[str] | None) -> WordVectors:
    words: list[str] = []
    rows: list[np.ndarray] = []
    for number in range(1, most + 1):
        word = stream.until_space().lstrip(b"\n").decode("utf-8", "replace")
        data = stream.read(4 * size)
        if len(data) < 4 * size:
            raise UserError(f"{file} ends in vector {number}, or is of no known format: {FORMATS}")
        if wanted is not None and word not in wanted:
            continue
        words.append(word)
        rows.append(np.frombuffer(data, "<f4").astype(np.float32))
        if not np.isfinite(rows[-1]).all():
            raise UserError(f"{file}: vector {number} has numbers that are not finite; known formats: {FORMATS}")
    return _made(file, words, rows, most, size)


def _made(file: Path, words: list[str], rows: list[np.ndarray], seen: int, size: int) -> WordVectors:
    if not seen:
        raise UserError(f"{file} holds no word vectors")
    return WordVectors(str(file), words, np.stack(rows) if rows else np.empty((0, size), np.float32))


class _Buffered:
    """A stream whose beginning has been read already."""

    def __init__(self, begin: bytes, stream: IO[bytes]):
        self._rest, self._stream = begin, stream

    def read(self, count: int) -> bytes:
        if len(self._rest) < count:
            self._rest += self._stream.read(max(count - len(self._rest), 2**16))
        found, self._rest = self._rest[:count], self._rest[count:]
        return found

    def until_space(self) -> bytes:
        """A word, without the space after it; all that is left, where there is none."""
        if (at := self._rest.find(b" ", 0, MOST_WORD)) < 0 and len(self._rest) < MOST_WORD:
            self._rest += self._stream.read(2**16)
            at = self._rest.find(b" ", 0, MOST_WORD)
        found = self.read(at if at >= 0 else MOST_WORD)
        self.read(1)
        return found
