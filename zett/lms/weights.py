"""Hugging Face safetensors <-> parameters of a body, strict in both directions.

A base family lists its tensors once, as rows of `Weight`; loading and saving both read that list, and every tensor that is
unknown, missing or misshapen is reported in one error.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from zett.errors import UserError

TRANSPOSE = "transpose"


@dataclasses.dataclass(frozen=True)
class Weight:
    """One tensor, or one per layer where `key` holds `{i}`.

    key: Hugging Face name. path: dotted path in the body. transform: None or TRANSPOSE (torch stores `[out, in]`).
    when: name of a boolean field of the family's config that says whether the tensor exists.
    """

    key: str
    path: str
    transform: str | None = None
    when: str | None = None


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


WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
FLOATS = ("F64", "F32", "F16", "BF16")
_TYPE_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


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
    # A name with a slash could point outside of the folder.
    absent = [n for n in names if Path(n).name != n or not (folder / n).is_file()]
    if absent:
        raise UserError(f"{index} names files that are not in {folder}: {_listed(absent)}; copy or download them")
    tensors: dict[str, Stored] = {}
    for name in names:
        tensors |= _read_header(folder / name)
    wrong = sorted(k for k in {*weight_map, *tensors} if k not in tensors or weight_map.get(k) != tensors[k].file.name)
    if wrong:
        raise UserError(f"{index} does not say what its files hold: {_listed(wrong)}; copy or download the folder again")
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
    """One tensor in its stored dtype."""
    from safetensors import safe_open

    with safe_open(stored[name].file, framework="numpy") as f:
        return f.get_tensor(name)


def check_tensors(
    stored: Mapping[str, Stored], family, config, shapes: Mapping[str, tuple], *, vocab_size: int, tied: bool
) -> None:
    """UserError, with all of them, if tensors are missing, unknown, misshapen or not floating-point.

    shapes: shape of each parameter of the body by dotted path. The family module has WEIGHTS, INPUT_ROWS, OUTPUT_ROWS, IGNORED.
    """
    expected = {}
    for row in _rows(family, config, shapes):
        for name, _ in _names(row, shapes[row.path]):
            shape = shapes[row.path][1:] if "{i}" in row.key else shapes[row.path]
            expected[name] = tuple(shape[::-1] if row.transform == TRANSPOSE else shape)
    expected[family.INPUT_ROWS] = (vocab_size, config.hidden_size)
    if not tied or family.OUTPUT_ROWS in stored:
        expected[family.OUTPUT_ROWS] = (vocab_size, config.hidden_size)
    ignored = [name for name in stored if any(re.fullmatch(pattern, name) for pattern in family.IGNORED)]
    faults = []
    missing = sorted(expected.keys() - stored.keys())
    if missing:
        faults.append(f"missing: {_listed(missing)}")
    unknown = sorted(stored.keys() - expected.keys() - set(ignored))
    if unknown:
        faults.append(f"unknown: {_listed([f'{name} in {stored[name].file.name}' for name in unknown])}")
    both = sorted(expected.keys() & stored.keys())
    misshapen = [name for name in both if stored[name].shape != expected[name]]
    if misshapen:
        described = [
            f"{name} in {stored[name].file.name} is {list(stored[name].shape)}, not {list(expected[name])}"
            for name in misshapen
        ]
        faults.append(f"misshapen: {_listed(described)}")
    coded = [name for name in both if stored[name].dtype not in FLOATS]
    if coded:
        described = [f"{name} in {stored[name].file.name} is {stored[name].dtype}" for name in coded]
        faults.append(f"not one of {', '.join(FLOATS)} (quantised?): {_listed(described)}")
    if faults:
        folder = next(iter(stored.values())).file.parent if stored else "the folder"
        raise UserError(f"the weights in {folder} do not fit its config.json: " + "; ".join(faults))


def load_body(stored: Mapping[str, Stored], family, config, shapes: Mapping[str, tuple]) -> dict:
    """The body's parameters as a nested dict of float32 arrays, layers stacked along axis 0, read tensor by tensor."""
    params: dict = {}
    for row in _rows(family, config, shapes):
        value = np.empty(shapes[row.path], np.float32)
        for name, layer in _names(row, shapes[row.path]):
            tensor = read_tensor(stored, name)
            value[layer] = tensor.T if row.transform == TRANSPOSE else tensor
        *parents, leaf = row.path.split(".")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return params


def body_tensors(params: dict, family, config, dtype) -> dict[str, np.ndarray]:
    """The inverse of `load_body`: Hugging Face tensors by name, in `dtype` and torch's layout."""
    flat = flatten(params)
    shapes = {path: np.shape(value) for path, value in flat.items()}
    tensors = {}
    for row in _rows(family, config, shapes):
        value = np.asarray(flat[row.path]).astype(dtype)
        for name, layer in _names(row, shapes[row.path]):
            tensor = value[layer]
            tensors[name] = np.ascontiguousarray(tensor.T if row.transform == TRANSPOSE else tensor)
    return tensors


def flatten(tree: dict, prefix: str = "") -> dict:
    """Leaves of a nested dict by dotted path."""
    flat: dict = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _rows(family, config, shapes: Mapping) -> list[Weight]:
    """The family's rows that `config` asks for; each of the body's parameters has to have exactly one."""
    rows = [row for row in family.WEIGHTS if row.when is None or getattr(config, row.when)]
    paths = sorted(row.path for row in rows)
    if paths != sorted(shapes):
        raise ValueError(f"{family.__name__}.WEIGHTS does not match the body: {sorted(set(paths) ^ set(shapes)) or paths}")
    return rows


def _names(row: Weight, shape: tuple):
    """Pairs of Hugging Face name and index into the parameter."""
    if "{i}" not in row.key:
        return [(row.key, ...)]
    return [(row.key.replace("{i}", str(i)), i) for i in range(shape[0])]


def write_tensors(file: Path, tensors: Mapping[str, np.ndarray | Stored], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; `Stored` tensors are copied byte for byte, whatever their type, a few MB at a time.

    The library's own writer wants all tensors in memory and hides a full disk behind an error of its own.
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
        for tensor in tensors.values():
            if isinstance(tensor, Stored):
                _copy(tensor, out)
            else:
                out.write(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data)


def _copy(stored: Stored, out, chunk: int = 1 << 22) -> None:
    with open(stored.file, "rb") as source:
        source.seek(stored.start)
        left = stored.nbytes
        while left:
            data = source.read(min(chunk, left))
            if not data:
                raise UserError(f"{stored.file} became shorter while it was read")
            out.write(data)
            left -= len(data)


def read_json(path: Path) -> dict:
    """A JSON object; UserError if the file is absent or holds something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} holds a {type(value).__name__}; it has to hold a JSON object")
    return value


def _listed(names: list[str], most: int = 12) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
