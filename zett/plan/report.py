"""What a run takes and whether its config is right, from shapes alone: `train.py --dry_run`. No weights, texts or network."""

import dataclasses
import functools
import math
import textwrap
from collections.abc import Callable
from pathlib import Path

import jax

from zett import flops, hub
from zett.config import Config, nearest
from zett.data.text import check_source
from zett.errors import UserError
from zett.evaluate.targets import parse_target
from zett.hypernet import load_hypernet
from zett.inspect.terminal import WIDTH, columns
from zett.lms.shapes import hf_config_of
from zett.lms.weights import body_shardings
from zett.memory import PIECES, Base, Run, abstract_mesh, base_of, fullest, memory, run_of
from zett.mesh import AXES, check_batch, mesh_sizes
from zett.metrics import check_trackers
from zett.tasks.hypernet import check_init
from zett.vocab import load_tokenizer

# What is assumed of machines; the report says so.
UTILISATION = 0.4  # share of a device's peak
USABLE = 0.9  # share of a device's memory
GIB = 2**30


def _check_mesh(config: Config, devices: int) -> tuple[int, int, int]:
    sizes = mesh_sizes(config.mesh, devices)
    check_batch(sizes[0] * sizes[1], config.data.batch_size, config.train.microbatches)
    return sizes


# -------------------------------------------------------------------------------------------------------------- report


def plan(config: Config, *, devices: int | None = None, device: str | None = None) -> dict:
    """What a run takes, for `tables` or as JSON, in bytes, FLOPs and seconds.

    devices: how many (None: as many as there are here, or if config.mesh does not fit them, as it has at least). device: the
    name of one of `flops.DEVICES` (None: all of them). "fault" is what is wrong with the config, all of it, or empty; UserError
    with it where nothing can be counted.
    """
    known = {d.name: d for d in flops.DEVICES}
    if device is not None and device not in known:
        raise UserError(f"--device {device!r} is not known; {nearest(device, known)}")
    checks = _Checks()
    checks(check_trackers, config.train.track)
    _check_sources(checks, config)
    base = checks(_check_base, config)
    fixed = [size for size in dataclasses.astuple(config.mesh) if size != -1]
    least = math.prod(fixed)
    number = devices or (least if len(fixed) == 3 or jax.device_count() % least else jax.device_count())
    sizes = checks(_check_mesh, config, number)
    fits = base and sizes and checks(body_shardings, base.family, base.config, base.body, abstract_mesh(sizes))
    if not fits:
        raise UserError(checks.fault)
    run = run_of(config, base)
    parts_of = functools.cache(functools.partial(memory, run))
    parts = parts_of(sizes, config.train.microbatches)
    phase, total = fullest(parts)
    work = step_flops(run)
    chosen = flops.DEVICES if device is None else (known[device],)
    return {
        "task": config.task,
        "base": base.name,
        "parameters": {
            "body": sum(map(math.prod, base.body.values())),
            "vocabulary": sum(map(math.prod, base.table.values())),
            "trained": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(run.trained)),
        },
        "mesh": dict(zip(AXES, sizes)),
        "memory": [{"part": p.name, "bytes": p.bytes, "counted": phase in p.phases} for p in parts if p.bytes],
        "memory_total": total,
        "flops": {field.name: getattr(work, field.name) for field in dataclasses.fields(work)},
        "steps": config.train.steps,
        "tokens_per_step": config.data.batch_size * config.data.length,
        "microbatches": config.train.microbatches,
        "rows": run.typical,
        "devices": [
            {
                "name": d.name,
                "memory_gib": d.memory,
                "fits": total <= USABLE * d.memory * GIB,
                "step_seconds": work.total / (number * d.peak * UTILISATION),
                "fewest": _fewest(run, parts_of, d, work.total),
            }
            for d in chosen
        ],
        "fault": checks.fault,
        "unchecked": list(dict.fromkeys(checks.unchecked)),
    }


def _fewest(run: Run, parts_of: Callable, device: flops.Device, work: float) -> dict | None:
    """The fewest devices, a power of two, that hold the run, and the mesh that sends least between them; None if none do."""
    batch, number = run.config.data.batch_size, 1
    while batch % number == 0:
        # With many devices a microbatch of few rows is too small to be cut.
        microbatches = min(run.config.train.microbatches, batch // number)
        for fsdp in [2**power for power in range(number.bit_length()) if batch % (number * microbatches) == 0]:
            sizes = (number // fsdp, fsdp, 1)
            if _divides(run.base, sizes) and fullest(parts_of(sizes, microbatches))[1] <= USABLE * device.memory * GIB:
                seconds = work / (number * device.peak * UTILISATION)
                mesh = dict(zip(AXES, sizes))
                return {"number": number, "mesh": mesh, "microbatches": microbatches, "step_seconds": seconds}
        number *= 2
    return None


def _divides(base: Base, sizes: tuple[int, int, int]) -> bool:
    try:
        body_shardings(base.family, base.config, base.body, abstract_mesh(sizes))
    except UserError:
        return False
    return True


def tables(report: dict) -> str:
    """Plain text for the terminal."""
    number, steps = math.prod(report["mesh"].values()), report["steps"]
    counts = [("body", report["parameters"]["body"]), ("vocabulary", report["parameters"]["vocabulary"])]
    counts += [("trained", report["parameters"]["trained"])]
    mesh = ", ".join(f"{name} {size}" for name, size in report["mesh"].items())
    parts = [(p["part"], f"{p['bytes'] / GIB:.2f}", "" if p["counted"] else "not at the same time") for p in report["memory"]]
    work = report["flops"]
    total = sum(work.values())
    arithmetic = [(name.replace("_", " "), f"{n / 1e12:,.3g}", f"{n / total:.0%}") for name, n in work.items() if n]
    hardware = []
    for d in report["devices"]:
        given = (*_times(d["step_seconds"], steps), "" if d["fits"] else "too small")
        least, fewest = d["fewest"], ("does not fit", "", "")
        if least is not None:
            how = [f"{name} {size}" for name, size in least["mesh"].items() if size > 1]
            how += [f"microbatches {least['microbatches']}"] if least["microbatches"] != report["microbatches"] else []
            fewest = (": ".join(filter(None, [str(least["number"]), ", ".join(how)])), *_times(least["step_seconds"], steps))
        hardware.append((d["name"], str(d["memory_gib"]), *given, *fewest))
    heads = ("device", "GiB", f"{number}: s a step", "run", "", "the fewest that hold it", "s a step", "run")
    blocks = [
        columns((report["base"], "parameters"), [(name, f"{n:,}") for name, n in counts], right=(1,)),
        columns((f"on each of {number} devices ({mesh})", "GiB", ""),
                [*parts, ("at most", f"{report['memory_total'] / GIB:.2f}", "")], right=(1,)),
        columns(("a step", "TFLOP", ""), [*arithmetic, ("in all", f"{total / 1e12:,.3g}", "")], right=(1, 2)),
        columns(heads, hardware, right=(1, 2, 3, 6, 7)),
        _notes(report),
    ]  # fmt: skip
    return "\n\n".join(blocks)


def _times(seconds: float, steps: int) -> tuple[str, str]:
    hours = seconds * steps / 3600
    return f"{seconds:.3g}", f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} h"


def _notes(report: dict) -> str:
    seen = report["tokens_per_step"] * report["steps"]
    lines = [
        f"{report['steps']:,} steps of {report['tokens_per_step']:,} tokens: {seen / 1e9:,.2f}e9 tokens seen",
        f"Estimates: {UTILISATION:.0%} of the device's bfloat16 peak, which small models do not reach; {USABLE:.0%} of its "
        f"memory usable (on GPUs: XLA_PYTHON_CLIENT_MEM_FRACTION={USABLE}); the step alone, without evaluations and waiting",
    ]
    if report["task"] == "hypernet":
        lines.append(f"{report['rows']:,} rows predicted in a typical step, of {PIECES} source tokens each")
    if report["unchecked"]:
        lines.append("Not checked, since it is not on this machine: " + ", ".join(report["unchecked"]))
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)
