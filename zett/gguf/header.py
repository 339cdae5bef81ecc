"""The header of a GGUF file: settings by key and where each tensor lies.

Read by bounds of our own: what a file states is compared with the file's size before anything is looped over or allocated. The
format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import collections
import dataclasses
import functools
import math
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np

from zett.errors import UserError

MAGIC, VERSIONS = b"GGUF", (2, 3)
MAX_HEADER = 64 * 2**20  # bytes; a vocabulary of 262,144 tokens takes 8 MB
MAX_ENTRIES = 2**22  # of an array; a list of strings takes ten times the room that it has in the file
MAX_KEY, MAX_NAME, MAX_DIMENSIONS = 2**16 - 1, 127, 4
MAX_ALIGNMENT = 2**20
STRING, ARRAY, BOOL = 8, 9, 7
# What struct calls the types of numbers; numpy understands the same letters.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 10: "Q", 11: "q", 12: "d"}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of ggml type `type` ("Q4_0"), rows first as torch has them: `nbytes` bytes from `start` of the file."""

    name: str
    type: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


@dataclasses.dataclass(frozen=True)
class Header:
    """values: by key, arrays of strings as lists, those of numbers as NumPy arrays."""

    file: Path
    values: dict[str, Any]
    tensors: dict[str, Tensor]


class _Cursor:
    """A place in the header; nothing beyond the end of the file, or of what a header may have, is read."""

    def __init__(self, file: Path, data: mmap.mmap):
        self.file, self.data, self.position, self.size = file, data, 0, len(data)

    def error(self, what: str) -> UserError:
        return UserError(f"{self.file} is not a GGUF file that can be read: {what}; copy or download it again")

    def need(self, count: int) -> None:
        """UserError unless `count` more bytes are there."""
        if count > self.size - self.position:
            raise self.error(f"it ends inside its header ({self.size:,} bytes)")
        if count > MAX_HEADER - self.position:
            raise self.error(f"its header has more than {MAX_HEADER // 2**20} MiB")

    def take(self, count: int) -> bytes:
        self.need(count)
        self.position += count
        return self.data[self.position - count : self.position]

    def number(self, letter: str):
        return struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)))[0]

    def text(self, longest: int = MAX_HEADER) -> str:
        length = self.number("Q")
        if length > longest:
            raise self.error(f"a text at byte {self.position - 8:,} has {length:,} bytes; at most {longest:,} are read")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.error(f"the text at byte {self.position - length:,} is not UTF-8") from None

    def count(self, what: str, least: int) -> int:
        """How many `what` follow, of at least `least` bytes each."""
        number = self.number("Q")
        if number > (self.size - self.position) // least:
            raise self.error(f"it states {number:,} {what}, more than its {self.size:,} bytes can hold")
        self.need(number * least)
        return number

    def value(self, kind: int):
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self.array()
        if kind == BOOL:
            return self.flags(1)[0]
        if kind in NUMBERS:
            return self.number(NUMBERS[kind])
        raise self.error(f"the value at byte {self.position:,} has type {kind}, which does not exist")

    def array(self) -> list | np.ndarray:
        kind = self.number("I")
        if kind == ARRAY:
            raise self.error("it has an array of arrays, which no model has")
        if kind != STRING and kind != BOOL and kind not in NUMBERS:
            raise self.error(f"the array at byte {self.position:,} has entries of type {kind}, which does not exist")
        width = 8 if kind == STRING else struct.calcsize("<" + NUMBERS.get(kind, "B"))
        count = self.count("entries of an array", width)
        if count > MAX_ENTRIES:
            raise self.error(f"it has an array of {count:,} entries; at most {MAX_ENTRIES:,} are read")
        if kind == STRING:
            return self.texts(count)
        if kind == BOOL:
            return self.flags(count)
        return np.frombuffer(self.take(count * width), "<" + NUMBERS[kind])

    def texts(self, count: int) -> list[str]:
        """What `count` calls of `text` return, several times faster: vocabularies have hundreds of thousands."""
        data, end, position = self.data, min(self.size, MAX_HEADER), self.position
        found = []
        for _ in range(count):
            start = position + 8
            length = int.from_bytes(data[position:start], "little")
            try:
                if length > end - start:
                    raise ValueError
                found.append(data[start : start + length].decode("utf-8"))
            except ValueError:
                self.position = position
                self.text()  # says what is wrong
                raise
            position = start + length
        self.position = position
        return found

    def flags(self, count: int) -> list[bool]:
        found = self.take(count)
        if found.strip(b"\0\1"):
            raise self.error(f"a truth value before byte {self.position:,} is neither 0 nor 1")
        return [bool(flag) for flag in found]


def is_gguf(file: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    try:
        with open(file, "rb") as f:
            return f.read(4) == MAGIC
    except OSError:
        return False


def read_header(file: Path) -> Header:
    """The header of `file`. UserError for one that is damaged, incomplete or of another version."""
    try:
        with open(file, "rb") as f:
            if f.read(4) != MAGIC:
                raise UserError(f"{file} is not a GGUF file: it does not begin with {MAGIC.decode()}")
            with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read(_Cursor(file, data))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from None


def _read(cursor: _Cursor) -> Header:
    cursor.take(4)
    version = cursor.number("I")
    if version not in VERSIONS:
        kind = "big-endian" if version & 0xFFFF == 0 else f"version {version}"
        raise UserError(f"{cursor.file} is a {kind} GGUF file; versions 2 and 3, little-endian, are read: convert it anew")
    tensor_count = cursor.count("tensors", 8 + 4 + 8 + 4 + 8)
    value_count = cursor.count("settings", 8 + 4 + 1)
    values: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.text(MAX_KEY)
        if key in values:
            raise cursor.error(f"it has the key {key!r} twice")
        values[key] = cursor.value(cursor.number("I"))
    alignment = values.get("general.alignment", 32)
    whole = isinstance(alignment, int) and not isinstance(alignment, bool)
    if not whole or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise cursor.error(f"general.alignment is {alignment!r}; it has to be a power of two up to {MAX_ALIGNMENT:,}")
    stated = [_tensor(cursor, alignment) for _ in range(tensor_count)]
    begin = -(-cursor.position // alignment) * alignment
    tensors = {t.name: dataclasses.replace(t, start=begin + t.start) for t in stated}
    if len(tensors) < len(stated):
        name = collections.Counter(t.name for t in stated).most_common(1)[0][0]
        raise cursor.error(f"it has the tensor {name!r} twice")
    _check_places(cursor, sorted(tensors.values(), key=lambda t: t.start))
    return Header(cursor.file, values, tensors)


def _tensor(cursor: _Cursor, alignment: int) -> Tensor:
    """One entry of the table of tensors; `start` is counted from where the tensors' data begins."""
    name = cursor.text(MAX_NAME)
    dimensions = cursor.number("I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise cursor.error(f"tensor {name!r} has {dimensions} dimensions; 1 to {MAX_DIMENSIONS} exist")
    shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]  # the file has the innermost first
    number, offset = cursor.number("I"), cursor.number("Q")
    if number not in block_sizes():
        raise cursor.error(f"tensor {name!r} has type {number}, which is not known")
    kind, block, width = block_sizes()[number]
    if not all(shape) or shape[-1] % block:
        raise cursor.error(f"tensor {name!r} has the shape {list(shape)}, which {kind} cannot have ({block} in a block)")
    if offset % alignment:
        raise cursor.error(f"tensor {name!r} begins at byte {offset:,}, which is not a multiple of {alignment}")
    return Tensor(name, kind, shape, offset, math.prod(shape) // block * width)


def _check_places(cursor: _Cursor, tensors: list[Tensor]) -> None:
    """UserError unless the tensors, in the order of the file, lie inside it and apart from each other."""
    end, before = 0, ""
    for tensor in tensors:
        if tensor.start + tensor.nbytes > cursor.size:
            raise cursor.error(f"it has {cursor.size:,} bytes, but {tensor.name!r} ends at {tensor.start + tensor.nbytes:,}")
        if tensor.start < end:
            raise cursor.error(f"the tensors {before!r} and {tensor.name!r} overlap")
        end, before = tensor.start + tensor.nbytes, tensor.name


@functools.cache
def block_sizes() -> dict[int, tuple[str, int, int]]:
    """Name, values in a block and bytes of a block, by the number of a ggml type."""
    from gguf.constants import GGML_QUANT_SIZES

    return {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
