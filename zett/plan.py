"""What a run takes and whether its config is right, from shapes alone: `train.py --dry_run`. No weights, texts or network."""

import dataclasses
import functools
import math
import textwrap
from collections.abc import Callable
from pathlib import Path

import jax

from zett import flops, machine
from zett.belongs import check_belongs
from zett.config import Config, nearest
from zett.data.sources import check_source
from zett.errors import UserError
from zett.evaluate.targets import parse_target
from zett.files import hub
from zett.hypernet import load_hypernet
from zett.inspect.terminal import WIDTH, columns
from zett.lms.known import hf_config_of
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


# -------------------------------------------------------------------------------------------------------------- checks


class _Checks:
    """Collects what is wrong, so that all of it is told at once, and what cannot be checked without a network."""

    def __init__(self):
        self.faults: list[str] = []
        self.unchecked: list[str] = []

    def __call__(self, check: Callable, *args):
        try:
            return check(*args)
        except UserError as error:
            self.faults.append(str(error))
            return None

    @property
    def fault(self) -> str:
        return "; ".join(dict.fromkeys(self.faults))


def _check_sources(checks: _Checks, config: Config) -> None:
    """Texts, tokenizers and hypernetworks that the run reads."""
    specs = [config.data.source, *([config.data.valid_source] if config.data.valid_source else [])]
    if config.task == "hypernet":
        specs += config.sampler.sources
        if not config.train.eval_targets:
            checks.faults.append("config.train.eval_targets is empty; name a tokenizer to evaluate on, such as bpe-8k")
        for spec in config.train.eval_targets:
            checks(_check_target, checks, spec)
        if config.init is not None:
            checks(_check_init, checks, config)
    for spec in dict.fromkeys(specs):
        checks.unchecked += [f"data set {name}" for name in checks(check_source, spec) or []]


def check_inputs(config: Config) -> None:
    """UserError with all that is wrong with what a run reads, as far as it can be told without reading much of it.

    Evaluation targets on the Hub are read, since a run that cannot evaluate would end at its first evaluation.
    """
    checks = _Checks()
    _check_sources(checks, config)
    for spec in config.train.eval_targets if config.task == "hypernet" else ():
        if f"tokenizer {spec}" in checks.unchecked:
            checks(load_tokenizer, spec)
    if checks.faults:
        raise UserError(checks.fault)


def _check_target(checks: _Checks, spec: str) -> None:
    if parse_target(spec) is None:
        _check_folder(checks, "tokenizer", spec, "config.train.eval_targets", load_tokenizer)


def check_targets(config: Config) -> None:
    """UserError, with all of them, for evaluation targets that do not exist; those on the Hub are read, others not."""
    if config.task != "hypernet":
        return
    if not config.train.eval_targets:
        raise UserError("config.train.eval_targets is empty; name a tokenizer to evaluate on, such as bpe-8k")
    checks = _Checks()
    for spec in config.train.eval_targets:
        if checks(_check_target, checks, spec) is None and f"tokenizer {spec}" in checks.unchecked:
            checks(load_tokenizer, spec)
    if checks.fault:
        raise UserError(checks.fault)


def _check_init(checks: _Checks, config: Config) -> None:
    trained = _check_folder(checks, "hypernetwork", str(config.init), "config.init", load_hypernet)
    if trained is not None:
        check_init(config, trained)
        check_belongs(config.base, str(config.init))


def _check_folder(checks: _Checks, kind: str, name: str, where: str, load: Callable):
    """What `load` makes of a local folder; None if it may be on the Hub."""
    if name == "pico" or Path(name).expanduser().exists():
        return load(name)
    if not hub.is_name(name):
        raise UserError(f"{where} names {name!r}, which is neither a folder nor a name on the Hub")
    checks.unchecked.append(f"{kind} {name}")
    return None


def _check_base(config: Config) -> Base:
    base = _base(config)
    if not base.causal and (config.task == "lm" or not base.config.head):
        what = "a bidirectional encoder" if config.task == "lm" else "an encoder without a masked-language-model head"
        raise UserError(f"{base.name} is {what}, which config.task {config.task!r} cannot train with")
    if config.task == "hypernet" and config.hypernet.bias and "bias" not in base.table:
        raise UserError(f"config.hypernet.bias is True, but {base.name} has no output bias")
    if config.data.length > base.config.room:
        raise UserError(f"config.data.length is {config.data.length}; {base.name} has positions for {base.config.room} tokens")
    return base


def _check_mesh(config: Config, devices: int) -> tuple[int, int, int]:
    sizes = mesh_sizes(config.mesh, devices)
    check_batch(sizes[0] * sizes[1], config.data.batch_size, config.train.microbatches)
    return sizes


def _base(config: Config) -> Base:
    name = config.base if config.task == "hypernet" else config.init
    if name is not None:
        return base_of(name, hf_config_of(name))
    m = config.model
    return base_of(m.name, {
        "model_type": "llama", "vocab_size": config.tokenizer.vocab_size, "hidden_size": m.hidden_size,
        "intermediate_size": m.intermediate_size, "num_hidden_layers": m.num_layers, "num_attention_heads": m.num_heads,
        "num_key_value_heads": m.num_kv_heads, "max_position_embeddings": 2048, "tie_word_embeddings": False,
    })  # fmt: skip


def step_flops(run: Run) -> flops.StepFlops:
    """Of a typical step."""
    config, base = run.config, run.base
    shape = {"batch": config.data.batch_size, "length": config.data.length, "rows": run.typical, "targets": run.targets}
    if config.task == "lm":
        return flops.body_step(base.body, base.config, trained=config.train.trained == "all", **shape)
    pieces = round(run.typical * (PIECES + bool(config.hypernet.languages)))
    distinct = min(run.sources, pieces)
    return flops.hypernet_step(base.body, base.config, run.hypernet, pieces=pieces, distinct=distinct, **shape)


# -------------------------------------------------------------------------------------------------------------- report


def plan(config: Config, *, devices: int | None = None, device: str | None = None) -> dict:
    """What a run takes, for `tables` or as JSON, in bytes, FLOPs and seconds.

    devices: how many (None: as many as there are here, or if config.mesh does not fit them, as it has at least). device: the
    name of one of `flops.DEVICES`, or "cpu", the one at hand, which is measured (None: all of them).
    "fault" is what is wrong with the config, all of it, or empty; UserError with it where nothing can be counted.
    """
    known = {d.name: d for d in flops.DEVICES}
    if device is not None and device not in (*known, "cpu"):
        raise UserError(f"--device {device!r} is not known; {nearest(device, [*known, 'cpu'])}")
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
    chosen = flops.DEVICES if device is None else (known[device],) if device in known else ()
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
            *(_on_device(d, _fewest(run, parts_of, d, work.total), work.total, number, total) for d in chosen),
            *_on_cpu(run, parts_of, work.total, device),
        ],
        "fault": checks.fault,
        "unchecked": list(dict.fromkeys(checks.unchecked)),
    }


def _on_device(device: flops.Device, fewest: dict | None, work: float, number: int, total: float) -> dict:
    return {
        "name": device.name,
        "memory_gib": device.memory,
        "fits": total <= USABLE * device.memory * GIB,
        "step_seconds": work / (number * device.peak * UTILISATION),
        "fewest": fewest,
    }


def _on_cpu(run: Run, parts_of: Callable, work: float, wanted: str | None) -> list[dict]:
    """A row for the CPU at hand, of which there is one, whatever the mesh. Empty if it is not wanted or not there."""
    cpu = machine.cpu(run.config.train.dtype) if wanted in (None, "cpu") else None
    if cpu is None:
        return []
    microbatches = run.config.train.microbatches
    row = _on_device(cpu, None, work, 1, fullest(parts_of((1, 1, 1), microbatches))[1])
    if row["fits"]:
        seconds = row["step_seconds"]
        row["fewest"] = {"number": 1, "mesh": dict.fromkeys(AXES, 1), "microbatches": microbatches, "step_seconds": seconds}
    return [row | {"measured": cpu.peak, "what": cpu.kinds[0]}]


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
    """Three digits or more, and no exponent for what is large."""
    return f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"


def _amount(x: float) -> str:
    """Of memory, where nothing that is there is 0.00."""
    return f"{x:,.2f}" if x >= 0.005 else "<0.01"


def _times(seconds: float, steps: int) -> tuple[str, str]:
    # Below that, arithmetic is not what a step waits for.
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
        f"Estimates: {UTILISATION:.0%} of the device's bfloat16 peak, which small models do not reach; {USABLE:.0%} of its "
        f"memory usable (on GPUs: XLA_PYTHON_CLIENT_MEM_FRACTION={USABLE}); the step alone, without evaluations and waiting",
    ]
    lines += [
        f"cpu: the one at hand ({d['what']}), for whose peak its rate of matrix products was measured just now, "
        f"{d['measured'] / 1e9:,.0f} GFLOP a second"
        for d in report["devices"]
        if "measured" in d
    ]
    if report["task"] == "hypernet":
        lines.append(f"{report['rows']:,} rows predicted in a typical step, of {PIECES} source tokens each")
    if report["unchecked"]:
        lines.append("Not checked, since it is not on this machine: " + ", ".join(report["unchecked"]))
    return "\n".join(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)
