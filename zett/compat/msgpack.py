"""Arrays of a Flax msgpack file, and nothing else: no objects, no code, no copies; every size is checked against the file.

The format: nested maps with text keys; an array is an extension value of type 1 that holds (shape, name of the dtype, bytes in
C order); one of 1 GiB or more is a map of flat parts instead (CHUNKED). See https://github.com/msgpack/msgpack/blob/master/spec.md
and flax/serialization.py.
"""

import math
import mmap
from pathlib import Path

import numpy as np

from zett.errors import UserError

CHUNKED = "__msgpack_chunked_array__"
DTYPES = ("float64", "float32", "float16", "bfloat16")
DEEPEST, MOST_VALUES = 32, 1_000_000  # of nested maps, of maps and their entries: far more than any network has

# Tag -> bytes of the length that follows it.
_STR = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_BIN = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_MAP = {0xDE: 2, 0xDF: 4}
_ARRAY = {0xDC: 2, 0xDD: 4}
_EXT = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_UINT = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_FIXED_EXT = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


class _Damaged(Exception):
    pass


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Arrays by dotted path, mapped from `file`. UserError if it is damaged or holds anything else."""
    try:
        with open(file, "rb") as f:
            data = memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
        reader = _Reader(data)
        tree = reader.value()
        if reader.at != len(data):
            raise _Damaged(f"{len(data) - reader.at} bytes follow its end")
        if not isinstance(tree, dict):
            raise _Damaged("it does not begin with a map")
        return _flat(tree, "")
    except (_Damaged, UnicodeDecodeError, ValueError) as error:  # an empty file cannot be mapped
        raise UserError(f"{file} is not a complete Flax msgpack file ({error}); copy or download it again") from None


def _flat(tree: dict, prefix: str) -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        name = prefix + key
        if isinstance(value, dict) and CHUNKED in value:
            value = _joined(value, name)
        if isinstance(value, dict):
            flat |= _flat(value, name + ".")
        elif isinstance(value, np.ndarray):
            flat[name] = value
        else:
            raise _Damaged(f"{name} is not an array")
    return flat


def _joined(parts: dict, name: str) -> np.ndarray:
    try:
        shape = [parts["shape"][str(i)] for i in range(len(parts["shape"]))]
        return np.concatenate([parts["chunks"][str(i)] for i in range(len(parts["chunks"]))]).reshape(shape)
    except (KeyError, TypeError, ValueError):
        raise _Damaged(f"the parts of {name} do not make an array") from None


class _Reader:
    """Reads one value after the other from `data`."""

    def __init__(self, data: memoryview):
        self.data, self.at, self.depth, self.values = data, 0, 0, 0

    def take(self, size: int) -> memoryview:
        if size > len(self.data) - self.at:
            raise _Damaged(f"it ends in the middle, {size} bytes are missing after byte {self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def value(self):
        """The next value: a dict, an array, a text, an integer, True or False."""
        tag = self.number(1)
        if tag <= 0x7F:
            return tag
        if tag <= 0x8F or tag in _MAP:
            return self.map(tag & 0x0F if tag <= 0x8F else self.number(_MAP[tag]))
        if 0xA0 <= tag <= 0xBF or tag in _STR:
            return str(self.take(tag & 0x1F if tag <= 0xBF else self.number(_STR[tag])), "utf-8")
        if tag in (0xC2, 0xC3):
            return tag == 0xC3
        if tag in _UINT:
            return self.number(_UINT[tag])
        if tag in _EXT or tag in _FIXED_EXT:
            size = self.number(_EXT[tag]) if tag in _EXT else _FIXED_EXT[tag]
            if (kind := self.number(1)) != 1:
                raise _Damaged(f"a value of the extension type {kind} before byte {self.at}; arrays have type 1")
            return _Reader(self.take(size)).array()
        raise _Damaged(f"a value of type 0x{tag:02x} before byte {self.at}, which networks do not have")

    def map(self, entries: int) -> dict:
        self.depth, self.values = self.depth + 1, self.values + entries + 1
        if self.depth > DEEPEST or self.values > MOST_VALUES:
            raise _Damaged("it is nested deeper, or has more entries, than any network")
        result: dict = {}
        for _ in range(entries):
            key = self.value()
            if not isinstance(key, str) or key in result:
                raise _Damaged(f"the key {key!r:.100} is no text, or there twice")
            result[key] = self.value()
        self.depth -= 1
        return result

    def array(self) -> np.ndarray:
        """All of `data` as an array."""
        if self.number(1) != 0x93:
            raise _Damaged("an array without shape, dtype and bytes")
        tag = self.number(1)
        axes = tag & 0x0F if 0x90 <= tag <= 0x9F else self.number(_ARRAY.get(tag, 0)) if tag in _ARRAY else DEEPEST + 1
        if axes > DEEPEST:
            raise _Damaged("an array whose shape is no list")
        shape = [self.value() for _ in range(axes)]
        name = str(self.content(), "utf-8", "replace")
        if name not in DTYPES:
            raise _Damaged(f"an array of dtype {name!r:.40}; supported: {', '.join(DTYPES)}")
        import ml_dtypes  # numpy's name for bfloat16

        dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
        content = self.content()
        if not all(type(n) is int for n in shape) or math.prod(shape) * dtype.itemsize != len(content):
            raise _Damaged(f"an array of shape {shape} and {name} with {len(content)} bytes")
        if self.at != len(self.data):
            raise _Damaged("an array with something behind its bytes")
        return np.frombuffer(content, dtype).reshape(shape)

    def content(self) -> memoryview:
        """The bytes of a text or of raw data."""
        tag = self.number(1)
        if 0xA0 <= tag <= 0xBF:
            return self.take(tag & 0x1F)
        if tag in _STR or tag in _BIN:
            return self.take(self.number((_STR | _BIN)[tag]))
        raise _Damaged(f"an array's part of type 0x{tag:02x}")
