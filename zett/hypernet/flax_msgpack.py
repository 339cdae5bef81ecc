"""Arrays of a Flax msgpack file, and nothing else: no objects, no code; every size is checked against the file.

What flax/serialization.py writes: nested maps with text keys; an array is an extension value of type 1 that holds (shape, name
of the dtype, bytes in C order); one of 1 GiB or more is a map of flat parts instead (CHUNKED).
"""

import math
import mmap
from pathlib import Path

import numpy as np

from zett.errors import UserError

CHUNKED = "__msgpack_chunked_array__"
DTYPES = ("float64", "float32", "float16", "bfloat16")
DEEPEST, MOST_ENTRIES, MOST_VALUES = 32, 2000, 1_000_000  # nested maps, entries of one and of all: far more than networks have


class _Damaged(Exception):
    pass


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Arrays by dotted path. UserError if `file` is damaged or holds anything else."""
    import msgpack

    try:
        # Mapped, so that the file itself is not in memory beside its arrays. Lengths are limited by that of the file.
        with open(file, "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
            tree = msgpack.unpackb(
                data, raw=False, strict_map_key=True, object_pairs_hook=_Maps(), ext_hook=_array,
                max_map_len=MOST_ENTRIES, max_array_len=0,
            )  # fmt: skip
        if not isinstance(tree, dict):
            raise _Damaged("it does not begin with a map")
        return _flat(tree, "", 1)
    # ValueError: whatever msgpack finds, text that is not UTF-8, and an empty file, which cannot be mapped.
    except (_Damaged, ValueError, msgpack.UnpackException) as error:
        why = str(error) or type(error).__name__
        raise UserError(f"{file} is not a complete Flax msgpack file ({why}); copy or download it again") from None


class _Maps:
    """Makes dicts of a file's maps, as many as a network may have."""

    def __init__(self):
        self.values = 0

    def __call__(self, pairs: list[tuple]) -> dict:
        self.values += len(pairs) + 1
        if self.values > MOST_VALUES:
            raise _Damaged("it has more entries than any network")
        result: dict = {}
        for key, value in pairs:
            if not isinstance(key, str) or key in result:
                raise _Damaged(f"the key {key!r:.100} is no text, or there twice")
            result[key] = value
        return result


def _array(kind: int, data: bytes) -> np.ndarray:
    """The array that an extension value holds."""
    import ml_dtypes  # numpy's name for bfloat16
    import msgpack

    if kind != 1:
        raise _Damaged(f"a value of the extension type {kind}; arrays have type 1")
    parts = msgpack.unpackb(data, raw=False, max_array_len=DEEPEST, max_map_len=0)
    if not isinstance(parts, list) or len(parts) != 3:
        raise _Damaged("an array without shape, dtype and bytes")
    shape, name, content = parts
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise _Damaged(f"an array whose shape is no list of sizes: {shape!r:.100}")
    if name not in DTYPES:
        raise _Damaged(f"an array of dtype {name!r:.40}; supported: {', '.join(DTYPES)}")
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    if not isinstance(content, bytes) or math.prod(shape) * dtype.itemsize != len(content):
        raise _Damaged(f"an array of shape {shape} and {name} with {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape)


def _flat(tree: dict, prefix: str, depth: int) -> dict[str, np.ndarray]:
    if depth > DEEPEST:
        raise _Damaged("it is nested deeper than any network")
    flat: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        name = prefix + key
        if isinstance(value, dict) and CHUNKED in value:
            value = _joined(value, name)
        if isinstance(value, dict):
            flat |= _flat(value, name + ".", depth + 1)
        elif isinstance(value, np.ndarray):
            flat[name] = value
        else:
            raise _Damaged(f"{name} is not an array")
    return flat


def _joined(parts: dict, name: str) -> np.ndarray:
    try:
        shape = [parts["shape"][str(i)] for i in range(len(parts["shape"]))]
        return np.concatenate([parts["chunks"][str(i)] for i in range(len(parts["chunks"]))]).reshape(shape)
    except (IndexError, KeyError, OverflowError, TypeError, ValueError):
        raise _Damaged(f"the parts of {name} do not make an array") from None
