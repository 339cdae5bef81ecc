"""Hugging Face safetensors <-> parameters of a body, strict in both directions.

A family lists its tensors once, as rows of `Weight`; loading and saving both read that list, and every tensor that is unknown,
missing or misshapen is reported in one error.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from zett.errors import UserError
from zett.files.tensors import FLOATS, Stored, listed, read_tensor
from zett.lms.config import BodyConfig
from zett.lms.family import TRANSPOSE, Family, Weight


@dataclasses.dataclass(frozen=True)
class VocabularyNames:
    """Names, as the files spell them, of the tensors with a row for each token; after the first of a kind come copies of it.

    input: of rows `[V, D]`. output: of rows `[V, D]`; (): tied, or no head. bias: of the output's bias `[V]`; (): it has none.
    flat: of a bias `[1, V]` of which no method knows, as BART's relatives have one; nearly always zeros. per_layer: of rows
    `[V, L * P]` with a part for each layer, as Gemma 3n has them; ids without a row compute with that of id 0.
    """

    input: tuple[str, ...]
    output: tuple[str, ...] = ()
    bias: tuple[str, ...] = ()
    flat: tuple[str, ...] = ()
    per_layer: tuple[str, ...] = ()


def names_of_family(family: Family, stored: Mapping[str, Stored]) -> VocabularyNames:
    """Which of the files' tensors are the vocabulary of a model of this family."""
    theirs = spelled(family, stored)

    def of(name: str | None) -> tuple[str, ...]:
        return tuple(theirs[n] for n in (name, *(k for k, v in family.copies.items() if v == name)) if n in theirs)

    # If a model has both biases, Transformers computes with the copy, which belongs to the output layer: so it comes first.
    return VocabularyNames(of(family.input_rows), of(family.output_rows), of(family.bias)[::-1])


def canonical(stored: Mapping[str, Stored], family: Family) -> dict[str, Stored]:
    """The tensors, in the same order, by the family's names: with its `prefix`, and with the spellings in `renamed` changed."""
    known = {family.output_rows, family.bias, *family.copies}
    prefix = "" if any(name.startswith(family.prefix) for name in stored) else family.prefix
    named = {name if name in known else prefix + name: tensor for name, tensor in stored.items()}
    for pattern, ours in family.renamed.items():
        named = {re.sub(pattern, ours, name): tensor for name, tensor in named.items()}
    return named


def spelled(family: Family, stored: Mapping[str, Stored]) -> dict[str, str]:
    """The files' own names by the family's."""
    return dict(zip(canonical(stored, family), stored))


def check_tensors(
    stored: Mapping[str, Stored], family: Family, config: BodyConfig, shapes: Mapping[str, tuple],
    *, vocab_size: int, tied: bool,
) -> None:  # fmt: skip
    """UserError that lists all tensors that are missing, unknown, misshapen or not floating-point.

    shapes: shape of each parameter of the body by dotted path. stored: by the family's own names (`canonical`).
    """
    expected = {}
    for row in _rows(family, config, shapes):
        for name, _ in _names(row, shapes[row.path]):
            shape = shapes[row.path][1:] if "{i}" in row.key else shapes[row.path]
            expected[name] = tuple(shape[::-1] if row.transform == TRANSPOSE else shape)
    expected[family.input_rows] = (vocab_size, config.hidden_size)
    if family.output_rows in stored or (config.head and not tied):
        expected[family.output_rows] = (vocab_size, config.hidden_size)
    if family.bias is not None and (family.bias in stored or (config.head and config.output_bias)):
        expected[family.bias] = (vocab_size,)
    expected |= {name: expected[copied] for name, copied in family.copies.items() if name in stored and copied in expected}
    ignored = [name for name in stored if any(re.fullmatch(pattern, name) for pattern in family.ignored)]
    faults = []
    missing = sorted(expected.keys() - stored.keys())
    if missing:
        faults.append(f"missing: {listed(missing)}")
    unknown = sorted(stored.keys() - expected.keys() - set(ignored))
    if unknown:
        faults.append(f"unknown: {listed([f'{name} in {stored[name].file.name}' for name in unknown])}")
    both = sorted(expected.keys() & stored.keys())
    misshapen = [name for name in both if stored[name].shape != expected[name]]
    if misshapen:
        described = [
            f"{name} in {stored[name].file.name} is {list(stored[name].shape)}, not {list(expected[name])}"
            for name in misshapen
        ]
        faults.append(f"misshapen: {listed(described)}")
    coded = [name for name in both if stored[name].dtype not in FLOATS]
    if coded:
        described = [f"{name} in {stored[name].file.name} is {stored[name].dtype}" for name in coded]
        faults.append(f"not one of {', '.join(FLOATS)} (quantised?): {listed(described)}")
    if faults:
        folder = next(iter(stored.values())).file.parent if stored else "the folder"
        raise UserError(f"the weights in {folder} do not fit its config.json: " + "; ".join(faults))


def check_layers(stored: Mapping[str, Stored], family: Family, config: BodyConfig, where: Path) -> None:
    """UserError if the weights, by the family's own names, have more or fewer layers than config.json, which is at `where`."""
    prefix = next(row.key for row in family.weights if "{i}" in row.key).partition("{i}")[0]
    found = {name.removeprefix(prefix).partition(".")[0] for name in stored if name.startswith(prefix)}
    layers = 1 + max((int(number) for number in found if number.isdecimal()), default=-1)
    if layers and layers != config.num_layers:
        raise UserError(f"{where} says {config.num_layers} layers, but the weights beside it have {layers}")


# Platforms whose device memory is the host's, so that loading can fill a parameter's memory in place.
HOST_MEMORY = ("cpu",)


def load_body(
    stored: Mapping[str, Stored], family: Family, config: BodyConfig, shapes: Mapping[str, tuple],
    *, dtype="float32", mesh: Mesh | None = None,
) -> dict:  # fmt: skip
    """The body's parameters as a nested dict of arrays, layers stacked along axis 0, on the device.

    dtype: of the layers' matrices. Other parameters, such as norms and biases, are float32, since they are computed in it.

    With a mesh (axes "fsdp", "tensor" and any others) each parameter is partitioned by its row's `spec`, and a device gets only
    its part. Tensors are read one by one: for an accelerator the host holds one at a time, and on a CPU none is held twice.
    """
    rows = _rows(family, config, shapes)
    shardings = body_shardings(family, config, shapes, mesh)
    params: dict = {}
    for row in rows:
        parts = []
        for name, layer in _names(row, shapes[row.path]):
            parts.append((functools.partial(_in_our_layout, stored, name, row.transform), layer))
        *parents, leaf = row.path.split(".")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        shape = shapes[row.path]
        node[leaf] = _on_device(parts, shape, jnp.dtype(dtype if len(shape) > 2 else np.float32), shardings[row.path])
    return params


def replicated(rows: np.ndarray, mesh: Mesh | None) -> jax.Array:
    """An array in float32 on the device, or on every device of the mesh."""
    sharding = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    return _on_device([(lambda: rows, ...)], rows.shape, np.dtype(np.float32), sharding)


def _in_our_layout(stored: Mapping[str, Stored], name: str, transform: str | None) -> np.ndarray:
    tensor = read_tensor(stored, name)
    return tensor.T if transform == TRANSPOSE else tensor


def partition_specs(family: Family, config: BodyConfig) -> dict[str, tuple]:
    """The partition spec of each parameter of a body by dotted path; for a layer's parameter, that of one layer."""
    return {row.path: row.spec for row in family.rows(config)}


def body_shardings(family: Family, config: BodyConfig, shapes: Mapping[str, tuple], mesh) -> dict[str, NamedSharding | None]:
    """How each of a body's parameters is sharded on a mesh, which may be abstract, by dotted path; None without a mesh.

    UserError that lists the parameters that the mesh cannot divide.
    """
    rows = _rows(family, config, shapes)
    if mesh is None:
        return {row.path: None for row in rows}
    shardings: dict[str, NamedSharding | None] = {}
    faults = []
    for row in rows:
        shape = shapes[row.path]
        if unknown := set(row.spec) - {None, "fsdp", "tensor"}:
            raise ValueError(f"{row.path}: the axes {unknown} of its spec are neither 'fsdp' nor 'tensor'")
        stacked = (None,) if "{i}" in row.key else ()
        spec = (*stacked, *(axis if axis in mesh.shape else None for axis in row.spec))
        faults += [f"{row.path} {list(shape)} by {a}={mesh.shape[a]}" for n, a in zip(shape, spec) if a and n % mesh.shape[a]]
        shardings[row.path] = NamedSharding(mesh, PartitionSpec(*spec))
    if faults:
        raise UserError(f"the mesh {dict(mesh.shape)} does not divide these parameters evenly: {listed(faults)}")
    return shardings


def _on_device(parts: Sequence[tuple[Callable, Any]], shape: tuple, dtype, sharding: NamedSharding | None) -> jax.Array:
    """The array of `shape` and `dtype`. parts: (function that reads a layer, its index), or one that reads all, with `...`."""
    devices = jax.devices() if sharding is None else list(sharding.device_set)
    stacked = parts[0][1] is not ...
    if not stacked:
        return _placed(functools.partial(_read, parts[0][0], dtype), shape, sharding)
    if devices[0].platform in HOST_MEMORY:
        return _placed(functools.partial(_read_stacked, [tensor for tensor, _ in parts], dtype), shape, sharding)
    layer_sharding = sharding and NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    value = _zeros(shape, dtype, sharding)
    for tensor, i in parts:
        layer = _placed(functools.partial(_read, tensor, dtype), shape[1:], layer_sharding)
        value = jax.block_until_ready(
            _with_layer(value, layer, i)
        )  # without waiting, the host would run ahead and hold many layers
    return value


def _placed(read: Callable, shape: tuple, sharding: NamedSharding | None) -> jax.Array:
    if sharding is None:
        return jax.device_put(read((slice(None),) * len(shape)))
    return jax.make_array_from_callback(shape, sharding, read)


@functools.partial(jax.jit, static_argnames=("shape", "dtype", "sharding"))
def _zeros(shape, dtype, sharding):
    value = jnp.zeros(shape, dtype)
    return value if sharding is None else jax.lax.with_sharding_constraint(value, sharding)


@functools.partial(jax.jit, donate_argnums=0)
def _with_layer(stack, layer, i):
    return jax.lax.dynamic_update_index_in_dim(stack, layer, i, 0)


def _read_stacked(tensors: list[Callable], dtype: np.dtype, index: tuple) -> np.ndarray:
    """The part `index` of the tensors stacked along axis 0, in `dtype`."""
    some, inner = tensors[index[0]], index[1:]
    shape = (len(some), *some[0]()[inner].shape)
    size = int(np.prod(shape)) * dtype.itemsize
    # On a CPU, JAX takes over an array that begins at a multiple of 64 bytes; others it would copy.
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    stack = memory[start : start + size].view(dtype).reshape(shape)
    for value, tensor in zip(stack, some):
        view = tensor()[inner]
        # A transposed view is copied some columns at a time, which is three times faster than all at once.
        step = 32 if view.ndim == 2 and view.strides[0] < view.strides[1] else max(view.shape[-1], 1)
        for column in range(0, view.shape[-1], step):
            value[..., column : column + step] = view[..., column : column + step]
    return stack


def _read(tensor: Callable, dtype: np.dtype, index: tuple) -> np.ndarray:
    return _read_stacked([tensor], dtype, (slice(None), *index))[0]


def body_tensors(params: dict, family: Family, config: BodyConfig, dtype) -> dict[str, np.ndarray]:
    """The inverse of `load_body`: Hugging Face tensors by name, in torch's layout. dtype: of all, or a dict of each by name."""
    flat = flatten(params)
    shapes = {path: np.shape(value) for path, value in flat.items()}
    tensors = {}
    for row in _rows(family, config, shapes):
        value = np.asarray(flat[row.path])
        for name, layer in _names(row, shapes[row.path]):
            tensor = value[layer].astype(dtype[name] if isinstance(dtype, Mapping) else dtype)
            tensors[name] = np.ascontiguousarray(tensor.T if row.transform == TRANSPOSE else tensor)
    return tensors


def flatten(tree: dict, prefix: str = "") -> dict:
    """Leaves of a nested dict by dotted path."""
    flat: dict = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _rows(family: Family, config: BodyConfig, shapes: Mapping) -> list[Weight]:
    """The family's rows for `config`. ValueError unless each of the body's parameters has exactly one."""
    rows = family.rows(config)
    paths = sorted(row.path for row in rows)
    if paths != sorted(shapes):
        wrong = sorted(set(paths) ^ set(shapes)) or paths
        raise ValueError(f"the weights of the family {family.model_types[0]!r} do not match its body: {wrong}")
    return rows


def _names(row: Weight, shape: tuple):
    """Pairs of Hugging Face name and index into the parameter."""
    if "{i}" not in row.key:
        return [(row.key, ...)]
    return [(row.key.replace("{i}", str(row.first + i)), i) for i in range(shape[0])]
