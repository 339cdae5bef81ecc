"""What a run takes and whether its config is right, from shapes alone: `train.py --dry_run`. No weights, texts or network."""

import dataclasses
import math
import textwrap

import jax

from zett.config import Config
from zett.errors import UserError
from zett.inspect.terminal import WIDTH, columns
from zett.lms.weights import body_shardings
from zett.mesh import AXES, check_batch, mesh_sizes
from zett.plan import machine
from zett.plan.choose import GIB, USABLE, Run, choice, is_open, smallest
from zett.plan.devices import DEVICES, Device
from zett.plan.memory import abstract_mesh, fullest
from zett.plan.shapes import BaseShapes, Checks, How
from zett.plan.time import BANDWIDTH, KERNEL_SECONDS, PRODUCTS
from zett.recipes import recipe_class
from zett.train.metrics import check_trackers
from zett.values import nearest

UTILISATION = 0.4  # share of a CPU's rate of products, an assumption which the report states


def _check_mesh(config: Config, devices: int) -> tuple[int, int, int]:
    sizes = mesh_sizes(config.mesh, devices)
    check_batch(sizes[0] * sizes[1], config.data.batch_size, config.train.microbatches or 1)
    return sizes


# -------------------------------------------------------------------------------------------------------------- report


def plan(config: Config, *, devices: int | None = None, device: str | None = None) -> dict:
    """What a run takes, for `tables` or as JSON, in bytes, FLOPs and seconds.

    devices: their number (None: that of this machine, or if config.mesh does not fit it, the fewest that the mesh needs).
    device: the name of one of `DEVICES`, or "cpu", this machine's, which is measured (None: all of them).
    "fault" in the result is everything that is wrong with the config, or empty. If nothing can be counted, it is a UserError.
    """
    known = {d.name: d for d in DEVICES}
    if device is not None and device not in (*known, "cpu"):
        raise UserError(f"--device {device!r} is not known; {nearest(device, [*known, 'cpu'])}")
    recipe, checks = recipe_class(config.recipe), Checks()
    checks(check_trackers, config.train.track)
    recipe.check(config, checks)
    shapes = checks(recipe.shapes, config)
    fixed = [size for size in dataclasses.astuple(config.mesh) if size != -1]
    least = math.prod(fixed)
    number = devices or (least if len(fixed) == 3 or jax.device_count() % least else jax.device_count())
    sizes = checks(_check_mesh, config, number)
    base = shapes and shapes.base
    fits = base and sizes and checks(body_shardings, base.family, base.config, base.body, abstract_mesh(sizes))
    if not fits:
        raise UserError(checks.fault)
    run = Run(config, shapes)
    chosen = DEVICES if device is None else (known[device],) if device in known else ()
    how = _how(run, chosen[0], sizes)[0] if len(chosen) == 1 else How.of(config)
    parts = run.parts(sizes, how)
    phase, total = fullest(parts)
    work = shapes.work
    return {
        "task": config.recipe,
        "base": base.name,
        "parameters": {
            "body": sum(map(math.prod, base.body.values())),
            "vocabulary": sum(map(math.prod, base.table.values())),
            "trained": sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes.trained)),
        },
        "mesh": dict(zip(AXES, sizes)),
        "memory": [{"part": p.name, "bytes": p.bytes, "counted": phase in p.phases} for p in parts if p.bytes],
        "memory_total": total,
        "flops": {field.name: getattr(work, field.name) for field in dataclasses.fields(work)},
        "steps": config.train.steps,
        "tokens_per_step": config.data.batch_size * config.data.length,
        "microbatches": how.microbatches,
        "remat": [how.remat, how.remat_hypernet],
        "left_open": is_open(config),
        "rows": shapes.rows,
        "devices": [*(_on_device(run, d, sizes) for d in chosen), *_on_cpu(run, device)],
        "notes": list(shapes.notes),
        "fault": checks.fault,
        "unchecked": list(dict.fromkeys(checks.unchecked)),
    }


def _how(run: Run, device: Device, sizes: tuple[int, int, int]) -> tuple[How, bool]:
    """How the run's steps are computed on such devices, and whether they fit."""
    found = choice(run, device, sizes)
    return found or smallest(run, device, sizes), found is not None


def _on_device(run: Run, device: Device, sizes: tuple[int, int, int]) -> dict:
    how, fits = _how(run, device, sizes)
    step = run.step_seconds(sizes, how, device)
    row = {"name": device.name, "memory_gib": device.memory, "fits": fits, "step_seconds": step, **_words(how)}
    row["share_of_peak"] = run.shapes.work.total / math.prod(sizes) / device.peak / step
    return row | {"memory": run.memory(sizes, how), "fewest": _fewest(run, device)}


def _words(how: How) -> dict:
    return {"microbatches": how.microbatches, "remat": [how.remat, how.remat_hypernet]}


def _on_cpu(run: Run, wanted: str | None) -> list[dict]:
    """A row for the CPU of this machine, as one device whatever the mesh is. Empty if it is not wanted or not there."""
    cpu = machine.cpu(run.config.train.dtype) if wanted in (None, "cpu") else None
    if cpu is None:
        return []
    one = (1, 1, 1)
    how, fits = _how(run, cpu, one)
    seconds, fewest = run.shapes.work.total / (cpu.peak * UTILISATION), None
    if fits:
        fewest = {"number": 1, "mesh": dict.fromkeys(AXES, 1), **_words(how), "step_seconds": seconds}
    row = {"name": cpu.name, "memory_gib": cpu.memory, "fits": fits, "step_seconds": seconds, **_words(how)}
    return [row | {"memory": run.memory(one, how), "fewest": fewest, "measured": cpu.peak, "what": cpu.kinds[0]}]


def _fewest(run: Run, device: Device) -> dict | None:
    """The fewest devices, a power of two, that hold the run, and the mesh that sends least between them; None if none do."""
    batch, number, wanted = run.config.data.batch_size, 1, run.config.train.microbatches
    while batch % number == 0:
        # With many devices, microbatches get too few rows to be cut, so there are fewer of them.
        microbatches = min(wanted, batch // number)
        for fsdp in [2**power for power in range(number.bit_length()) if batch % (number * max(microbatches, 1)) == 0]:
            sizes = (number // fsdp, fsdp, 1)
            how = choice(_with_microbatches(run, microbatches), device, sizes) if _divides(run.shapes.base, sizes) else None
            if how is not None:
                found = {"number": number, "mesh": dict(zip(AXES, sizes)), **_words(how)}
                return found | {"step_seconds": run.step_seconds(sizes, how, device)}
        number *= 2
    return None


def _with_microbatches(run: Run, number: int) -> Run:
    train = dataclasses.replace(run.config.train, microbatches=number)
    return Run(dataclasses.replace(run.config, train=train), run.shapes)


def _divides(base: BaseShapes, sizes: tuple[int, int, int]) -> bool:
    try:
        body_shardings(base.family, base.config, base.body, abstract_mesh(sizes))
    except UserError:
        return False
    return True


def tables(report: dict) -> str:
    """Plain text for the terminal."""
    number = math.prod(report["mesh"].values())
    counts = [("body", report["parameters"]["body"]), ("vocabulary", report["parameters"]["vocabulary"])]
    counts += [("trained", report["parameters"]["trained"])]
    mesh = ", ".join(f"{name} {size}" for name, size in report["mesh"].items())
    unit, of_unit = ("GiB", GIB) if report["memory_total"] >= 4 * GIB else ("MiB", 2**20)
    parts = [
        (p["part"], _amount(p["bytes"] / of_unit), "" if p["counted"] else "not at the same time") for p in report["memory"]
    ]
    work = report["flops"]
    total = sum(work.values())
    much, of_much = ("TFLOP", 1e12) if total >= 1e12 else ("GFLOP", 1e9)
    arithmetic = [(name.replace("_", " "), _number(n / of_much), f"{n / total:.0%}") for name, n in work.items() if n]
    heads = ("device", "GiB", f"{number}: s a step", "run", "", "the fewest that hold it", "s a step", "run")
    blocks = [
        columns((report["base"], "parameters"), [(name, f"{n:,}") for name, n in counts], right=(1,)),
        columns((f"on {f'each of {number} devices' if number > 1 else 'one device'} ({mesh})", unit, ""),
                [*parts, ("at most", _amount(report["memory_total"] / of_unit), "")], right=(1,)),
        columns(("a step", much, ""), [*arithmetic, ("in all", _number(total / of_much), "")], right=(1, 2)),
        columns(heads, [_hardware(d, report) for d in report["devices"]], right=(1, 2, 3, 6, 7)),
        _notes(report),
    ]  # fmt: skip
    return "\n\n".join(blocks)


def _hardware(d: dict, report: dict) -> tuple[str, ...]:
    """A device's row: on the devices of the report's mesh, and on the fewest that hold the run."""
    steps, least, fewest = report["steps"], d["fewest"], ("does not fit", "", "")
    given = (*_times(d["step_seconds"], steps), "" if d["fits"] else "too small")
    if "measured" in d and math.prod(report["mesh"].values()) > 1:
        given = ("", "", "")  # there is one
    if least is not None:
        how = [f"{name} {size}" for name, size in least["mesh"].items() if size > 1]
        how += [f"microbatches {least['microbatches']}"] if least["microbatches"] != report["microbatches"] else []
        fewest = (": ".join(filter(None, [str(least["number"]), ", ".join(how)])), *_times(least["step_seconds"], steps))
    return d["name"], f"{d['memory_gib']:g}", *given, *fewest


def _number(x: float) -> str:
    """At least three digits, and no exponent for large numbers."""
    return f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"


def _amount(x: float) -> str:
    """An amount of memory. What is not zero is never written as 0.00."""
    return f"{x:,.2f}" if x >= 0.005 else "<0.01"


def _times(seconds: float, steps: int) -> tuple[str, str]:
    # A step that short waits for other things than arithmetic.
    return _number(seconds) if seconds >= 0.001 else "<0.001", _duration(seconds * steps)


def _duration(seconds: float) -> str:
    """In the unit that leaves one to three digits before the point."""
    for unit, size, least in (("days", 86400, 48 * 3600), ("h", 3600, 2 * 3600), ("min", 60, 120)):
        if seconds >= least:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 1 else "<1 s"


def _notes(report: dict) -> str:
    seen, steps = report["tokens_per_step"] * report["steps"], report["steps"]
    lines = [
        f"{steps:,} step{'s' * (steps > 1)} of {report['tokens_per_step']:,} tokens: "
        f"{f'{seen / 1e9:,.2f}e9' if seen >= 1e9 else f'{seen:,}'} tokens seen",
        f"Estimates of the step alone, without evaluations and waiting. They rest on two steps measured on one H100: products "
        f"at {PRODUCTS:.0%} of the bfloat16 peak, {BANDWIDTH:.0%} of the memory's bandwidth, {KERNEL_SECONDS * 1e6:.1f} us a "
        f"kernel; other devices by their peak and bandwidth, and what devices send to one another is left out. {USABLE:.0%} of "
        f"the memory usable (on GPUs: XLA_PYTHON_CLIENT_MEM_FRACTION={USABLE})",
    ]
    if report["left_open"]:
        lines.append(
            f"The parts above are with microbatches {report['microbatches']}, remat {report['remat'][0]}, remat_hypernet "
            f"{report['remat'][1]}; what the config leaves open is chosen for each device"
        )
    lines += [
        f"cpu: the one at hand ({d['what']}), at {UTILISATION:.0%} of its rate of matrix products, measured just now: "
        f"{d['measured'] / 1e9:,.0f} GFLOP a second"
        for d in report["devices"]
        if "measured" in d
    ]
    lines += report["notes"]
    if report["unchecked"]:
        lines.append("Not checked, since it is not on this machine: " + ", ".join(report["unchecked"]))
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)
