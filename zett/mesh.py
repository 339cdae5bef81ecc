"""The device mesh, where each array lies on it, and the start on several hosts.

Axes: along "data", devices hold copies of everything, and each copy has its own rows of the batch. Along "fsdp" they have their
own rows, too, and each holds a part of the parameters. Along "tensor" each computes a part of every matrix product. A mesh
changes where a result is computed, not the result.
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from zett.config import MeshConfig
from zett.errors import UserError

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))  # rows of a batch
EVERYWHERE = PartitionSpec(AXES)  # one part for each device
REPLICATED = PartitionSpec()

# How parameters are cut: (pattern of the dotted path, spec of one layer's array). The arrays of all layers are stacked along a
# first axis, which is never cut.
Rules = Sequence[tuple[str, PartitionSpec]]


def mesh_sizes(config: MeshConfig, devices: int) -> tuple[int, int, int]:
    """Numbers of devices along each axis; UserError if they do not multiply to `devices`."""
    sizes = [config.data, config.fsdp, config.tensor]
    free = [i for i, size in enumerate(sizes) if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(f"config.mesh is {sizes}; each size has to be at least 1, and one of them may be -1 (what is left)")
    known = int(np.prod([size for size in sizes if size != -1]))
    if free:
        sizes[free[0]] = max(devices // known, 1)
    if int(np.prod(sizes)) != devices:
        raise UserError(
            f"config.mesh asks for {' x '.join(map(str, sizes))} devices ({', '.join(AXES)}), and there are {devices}"
        )
    return sizes[0], sizes[1], sizes[2]


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh of all devices of all processes."""
    return jax.make_mesh(mesh_sizes(config, jax.device_count()), AXES, axis_types=(AxisType.Auto,) * 3)


def one_device() -> Mesh:
    """A mesh of the first device alone."""
    return jax.make_mesh((1, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3, devices=jax.local_devices()[:1])


def match(shapes: Mapping[str, tuple], rules: Rules) -> dict[str, PartitionSpec]:
    """The spec of each parameter by dotted path. ValueError unless one rule matches each, and each rule matches something."""
    specs, used, faults = {}, set(), []
    for path in shapes:
        hits = [i for i, (pattern, _) in enumerate(rules) if re.fullmatch(pattern, path)]
        used |= set(hits)
        if len(hits) == 1:
            specs[path] = rules[hits[0]][1]
        else:
            faults.append(f"{path} is matched by {[rules[i][0] for i in hits] or 'no rule'}")
    faults += [f"rule {pattern!r} matches nothing" for i, (pattern, _) in enumerate(rules) if i not in used]
    if faults:
        raise ValueError("partition rules: " + "; ".join(faults))
    return specs


def sharding(mesh: Mesh, spec: PartitionSpec | tuple, shape: tuple) -> NamedSharding:
    """How an array of `shape` is cut: its last axes by `spec`. An axis that cannot be cut into equal parts stays whole."""
    entries = (None,) * (len(shape) - len(spec)) + tuple(spec)
    kept = []
    for size, entry in zip(shape, entries):
        names = () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
        parts = int(np.prod([mesh.shape[name] for name in names])) if names else 1
        kept.append(entry if parts > 1 and size % parts == 0 else None)
    return NamedSharding(mesh, PartitionSpec(*kept))


def paths(tree) -> dict[str, Any]:
    """Leaves of any tree by dotted path."""
    return {".".join(map(_key, path)): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _key(entry) -> str:
    return str(next(getattr(entry, a) for a in ("key", "idx", "name") if hasattr(entry, a)))


def state_shardings(mesh: Mesh, state, specs: Mapping[str, PartitionSpec]):
    """Shardings of all of a training state. A leaf whose path ends in the path of a parameter lies as that parameter does.

    So the optimizer's moments lie like the parameters that they belong to. All other leaves, such as counters, are replicated.
    """

    def place(path, leaf):
        keys = [_key(entry) for entry in path]
        names = (".".join(keys[start:]) for start in range(len(keys)))
        spec = next((specs[name] for name in names if name in specs), REPLICATED)
        return sharding(mesh, spec if np.ndim(leaf) >= len(spec) else REPLICATED, np.shape(leaf))

    return jax.tree_util.tree_map_with_path(place, state)


def place(tree, shardings):
    """`tree` with its arrays laid out by `shardings`. Each array is the same on every process, or already spread over them."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def put(x, to):
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            return jax.device_put(x, to)
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, to, lambda index: x[index])

    return jax.tree.map(put, tree, shardings)


def check_batch(parts: int, batch_size: int, microbatches: int) -> None:
    """UserError if a batch, or one of its microbatches, cannot be cut into `parts` equal parts (data x fsdp)."""
    if batch_size // microbatches % parts:
        raise UserError(
            f"config.data.batch_size / config.train.microbatches is {batch_size} / {microbatches}; "
            f"it has to be a multiple of mesh data x fsdp, {parts}"
        )


def local_rows(mesh: Mesh, rows: int) -> np.ndarray:
    """Which of a batch's `rows` this process has to make. UserError if the mesh cannot cut the batch."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % parts:
        raise UserError(f"config.data.batch_size is {rows}; it has to be a multiple of mesh data x fsdp, {parts}")
    where = NamedSharding(mesh, BATCH).addressable_devices_indices_map((rows,))
    return np.unique(np.concatenate([np.arange(rows)[index] for index in where.values()]))


def global_batch(mesh: Mesh, batch: Mapping, specs: Mapping[str, PartitionSpec], rows: int):
    """A batch on the devices. Entries with the spec BATCH hold this process's share of `rows`, others are the same on all."""

    def put(x, spec):
        x = np.asarray(x)
        if spec == BATCH:
            return jax.make_array_from_process_local_data(NamedSharding(mesh, BATCH), x, (rows, *x.shape[1:]))
        to = NamedSharding(mesh, spec if x.ndim else REPLICATED)
        return jax.make_array_from_callback(x.shape, to, lambda index: x[index])

    return {name: jax.tree.map(lambda x, s=specs.get(name, REPLICATED): put(x, s), part) for name, part in batch.items()}


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gathered(x_GRE, mesh: Mesh):
    """All rows `[R, E]` on every device, from `[G, R / G, E]`, one part made by each device. Row i is in part i % G.

    Its gradient is cut into parts again. A plain sharding constraint would gather the whole gradient on every device, each of
    which needs only its own part.
    """
    whole = NamedSharding(mesh, REPLICATED)
    x_GRE = jax.lax.with_sharding_constraint(x_GRE, whole)
    return jax.lax.with_sharding_constraint(x_GRE.swapaxes(0, 1).reshape(-1, x_GRE.shape[-1]), whole)


def scattered(x_RE, mesh: Mesh):
    """The reverse of `gathered`: from all rows `[R, E]` the parts `[G, R / G, E]`, one on each device."""
    x_GRE = x_RE.reshape(-1, mesh.size, x_RE.shape[-1]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(x_GRE, NamedSharding(mesh, EVERYWHERE))


gathered.defvjp(lambda x_GRE, mesh: (gathered(x_GRE, mesh), None), lambda mesh, _, g_RE: (scattered(g_RE, mesh),))


def to_host(x) -> np.ndarray:
    """The whole array on every process."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def same_everywhere(values: Iterable[str | bytes]) -> bool:
    """Whether all processes of the run have the same values."""
    from jax.experimental import multihost_utils

    digest = hashlib.sha256()
    for value in values:
        digest.update(hashlib.sha256(value.encode() if isinstance(value, str) else value).digest())
    found = multihost_utils.process_allgather(np.frombuffer(digest.digest(), np.uint32))
    return bool((found == found[0]).all())


# --------------------------------------------------------------------------------------------------------- several hosts

# If a process dies, the others end after this many seconds. Otherwise they would wait for it for ever.
HEARTBEAT_SECONDS = 30


def start_processes(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Join this process to the others of the run. Call it before anything uses a device.

    On TPU pods, SLURM, Open MPI and Kubernetes JAX finds all three by itself; by hand, `coordinator` is HOST:PORT of the first
    process, `processes` their number and `process` the number of this one. UserError if the processes do not find each other.
    """
    given = [coordinator, processes, process]
    if any(x is not None for x in given) and None in given:
        raise UserError("--coordinator, --processes and --process belong together: give all three, or none on a known cluster")
    try:
        jax.distributed.initialize(
            coordinator, processes, process, initialization_timeout=300, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except (RuntimeError, ValueError) as error:
        if coordinator is None and "should be defined" in str(error):
            raise UserError(
                "--distributed found no TPU pod, SLURM step, Open MPI job (before version 5) or Kubernetes job (which needs "
                "the package kubernetes) around it; give --coordinator, --processes and --process"
            ) from None
        where = coordinator or "the cluster's coordinator"
        raise UserError(f"the processes did not come together at {where}: {' '.join(str(error).split())[:300]}") from error
