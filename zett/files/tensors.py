"""Safetensors files: listing tensors from the headers alone, mapping them into memory, writing them one after another."""

import dataclasses
import errno
import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import jax.numpy as jnp
import numpy as np

from zett.errors import UserError
from zett.files.jsonfile import read_json


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where a tensor lies: bytes `start` to `stop` of `file`, of safetensors type `dtype` ("F32", "BF16", ...)."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int

    @property
    def nbytes(self) -> int:
        return self.stop - self.start


class Made(Protocol):
    """A tensor that is made when it is written, by `np.asarray`: one at a time is in memory."""

    @property
    def dtype(self) -> np.dtype: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def nbytes(self) -> int: ...
    def __array__(self, dtype=None, copy=None) -> np.ndarray: ...


WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
# Floating-point types of safetensors that can be vocabulary rows or parameters.
FLOATS = {name: jnp.dtype(t) for name, t in {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}.items()}
_TYPE_NAMES = {str(dtype): name for name, dtype in FLOATS.items()} | {"int8": "I8"}


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """Every tensor of a model folder by name, from the headers alone; UserError names files that are absent or damaged."""
    index = folder / INDEX_FILE
    if (folder / WEIGHTS_FILE).is_file():
        return _read_header(folder / WEIGHTS_FILE)
    if not index.is_file():
        raise UserError(_no_weights(folder))
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f"{index} has no 'weight_map'; it is not an index of safetensors files")
    names = sorted(set(weight_map.values()))
    # A name with a slash could lead out of the folder.
    absent = [n for n in names if Path(n).name != n or not (folder / n).is_file()]
    if absent:
        raise UserError(f"{index} names files that are not in {folder}: {listed(absent)}; copy or download them")
    tensors: dict[str, Stored] = {}
    twice = []
    for name in names:
        found = _read_header(folder / name)
        twice += [f"{k} in {tensors[k].file.name} and {name}" for k in found if k in tensors]
        tensors |= found
    if twice:
        raise UserError(f"the files that {index} names hold tensors twice: {listed(twice)}; copy or download the folder again")
    wrong = sorted(k for k in {*weight_map, *tensors} if k not in tensors or weight_map.get(k) != tensors[k].file.name)
    if wrong:
        raise UserError(f"{index} does not say what its files hold: {listed(wrong)}; copy or download the folder again")
    return tensors


def _no_weights(folder: Path) -> str:
    if any(folder.glob("*.bin")):
        path = folder.as_posix()
        program = f"from transformers import AutoModelForCausalLM as M; M.from_pretrained('{path}').save_pretrained('{path}')"
        return (
            f"{folder} holds pickled weights (.bin), which are not opened; convert them where PyTorch is installed: "
            f'python -c "{program}"'
        )
    return (
        f"{folder} has neither {WEIGHTS_FILE} nor {INDEX_FILE}; a base model is a Hugging Face folder with safetensors weights"
    )


def _read_header(file: Path) -> dict[str, Stored]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):  # checks the header against the size of the file
            pass
        with open(file, "rb") as f:
            size = int.from_bytes(f.read(8), "little")
            header = json.loads(f.read(size))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file} is not a complete safetensors file ({error}); copy or download it again") from error
    begin = 8 + size
    return {
        name: Stored(file, t["dtype"], tuple(t["shape"]), *(begin + offset for offset in t["data_offsets"]))
        for name, t in header.items()
        if name != "__metadata__"
    }


def file_metadata(file: Path) -> dict[str, str]:
    """The free-form metadata of a safetensors file."""
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as f:
        return f.metadata() or {}


def read_tensor(stored: Mapping[str, Stored], name: str) -> np.ndarray:
    """One floating-point tensor in its stored dtype, read-only, mapped from the file, so that only what is used is read."""
    t = stored[name]
    return np.asarray(np.memmap(t.file, np.uint8, "r", t.start, t.nbytes)).view(FLOATS[t.dtype]).reshape(t.shape)


def same(stored: Mapping[str, Stored], a: str, b: str) -> bool:
    """Whether two tensors hold the same values."""
    x, y = read_tensor(stored, a), read_tensor(stored, b)
    return x.shape == y.shape and all(np.array_equal(x[i : i + 4096], y[i : i + 4096]) for i in range(0, len(x), 4096))


def write_tensors(file: Path, tensors: Mapping[str, np.ndarray | Stored | Made], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file. `Stored` tensors of any type are copied byte for byte, by the operating system if it can.

    The library's own writer needs all tensors in memory, and raises an error of its own that hides that the disk is full.
    """
    header: dict = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, tensor in tensors.items():
        dtype = tensor.dtype if isinstance(tensor, Stored) else _TYPE_NAMES[str(tensor.dtype)]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the format aligns the data to 8 bytes
    with open(file, "wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for tensor in _runs(tensors.values()):
            if isinstance(tensor, Stored):
                _copy(tensor, out)
            else:
                out.write(np.ascontiguousarray(np.asarray(tensor)).reshape(-1).view(np.uint8).data)


def _runs(tensors):
    """The tensors; `Stored` ones that lie one after another in a file are joined, so that they are copied at once."""
    run = None
    for tensor in tensors:
        if run is not None and isinstance(tensor, Stored) and (tensor.file, tensor.start) == (run.file, run.stop):
            run = dataclasses.replace(run, stop=tensor.stop)
            continue
        if run is not None:
            yield run
            run = None
        if isinstance(tensor, Stored):
            run = tensor
        else:
            yield tensor
    if run is not None:
        yield run


def _copy(stored: Stored, out) -> None:
    out.flush()
    with open(stored.file, "rb") as source:
        position = stored.start
        copy = functools.partial(getattr(os, "copy_file_range", _read_and_write), source.fileno(), out.fileno())
        while position < stored.stop:
            try:
                done = copy(min(stored.stop - position, 1 << 28), position)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                copy = functools.partial(_read_and_write, source.fileno(), out.fileno())  # not between these file systems
                continue
            if not done:
                raise UserError(f"{stored.file} became shorter while it was read")
            position += done


def _read_and_write(source: int, target: int, count: int, position: int) -> int:
    """What `os.copy_file_range` does, a few MB at a time."""
    data = os.pread(source, min(count, 1 << 22), position)
    written = 0
    while written < len(data):
        written += os.write(target, data[written:])
    return written


def listed(names: list[str], most: int = 12) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
