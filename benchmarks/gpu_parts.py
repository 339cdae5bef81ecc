"""The parts of benchmarks/gpu.py, each run as a process: `python -m benchmarks.gpu_parts PART SECONDS [--small]`.

A part prints, after each thing that it has measured, one line of JSON with all that it has so far.
"""

import contextlib
import dataclasses
import json
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import HAS_PEAK, SEED, forget_peak, peak_bytes
from benchmarks.train_step import draw_forms, make_batch, random_base
from zett.config import Config, from_dict, to_dict
from zett.config_file import load_config
from zett.hypernet.trained import TrainedHypernet
from zett.lms import layers
from zett.lms.layers import activation_dtype
from zett.mesh import global_batch, one_device
from zett.optim import make_optimizer
from zett.plan.choose import chosen
from zett.plan.devices import find_device
from zett.plan.report import plan
from zett.recipes.hypernet import HypernetStep
from zett.table import EmbeddingTable
from zett.train.step import abstract_state, initial_state, make_step

ROOT = Path(__file__).parents[1]
ENOUGH = 70e9  # bytes of memory in which Mistral's whole shape is tried
# The steps as they were when they were first measured, in November 2026.
THEN: dict[str, dict[str, Any]] = {
    "smollm2": {"remat": "none", "remat_hypernet": "none", "loss_chunk": 1024, "microbatches": 1},
    "mistral": {"remat": "dots", "remat_hypernet": "full", "loss_chunk": 1024, "microbatches": 4},
}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "smollm2": {
        "attention xla": {"attention": "xla"}, "loss_chunk 1024": {"loss_chunk": 1024},
        "remat none": {"remat": "none", "remat_hypernet": "none"}, "hypernet kept": {"remat_hypernet": "none"},
        "loss_chunk 4096": {"loss_chunk": 4096}, "microbatches 2": {"microbatches": 2}, "remat full": {"remat": "full"},
        "activations float32": {"activations": "float32"}, "unrolled layers": {"unrolled": 64},  # which compiles for long
    },
    "mistral": {
        "dots and full, 2": {"microbatches": 2, "remat_hypernet": "full"}, "dots and dots, 4": {"microbatches": 4},
        "attention xla": {"attention": "xla", "microbatches": 4}, "loss_chunk 1024": {"loss_chunk": 1024},
    },
}  # fmt: skip


class Step(HypernetStep):
    """The step of a run, with a correction that does not start at zero, and with it the gradient of what comes before."""

    def init(self):
        params = super().init()
        for number, head in params["heads"].items():
            kernel = head["dense"]["kernel"]
            head["dense"]["kernel"] = 0.02 * jax.random.normal(jax.random.key(SEED + number), kernel.shape)
        return params


# ------------------------------------------------------------------------------------------------------------- shapes


def shape_of(name: str, small: bool) -> tuple[Config, int | None, list[str]]:
    """The config of a shape, how many layers its body is cut to, and what was cut."""
    if name == "mistral":
        whole = [("mesh.data", "1"), ("mesh.fsdp", "1"), ("data.parts", "1"), ("train.microbatches", "0")]
        open_ones = [("train.remat", "auto"), ("train.remat_hypernet", "auto")]
        config = load_config(str(ROOT / "configs" / "mistral.py"), whole + open_ones)
    else:
        config = from_dict({
            "base": "HuggingFaceTB/SmolLM2-135M", "data": {"batch_size": 64, "length": 256}, "optim": {"name": "muon"},
            "hypernet": {"width": 768, "layers": 3, "heads": 12, "feed_forward": 1536, "max_pieces": 8},
            "sampler": {"max_size": 8192, "min_size": 4000, "sizes": "fixed", "rows": 0}, "mesh": {"data": 1},
        })  # fmt: skip
    if small:
        return tiny(config), 9, ["everything"]
    if name == "mistral" and memory_limit() < ENOUGH:
        return changed(config, "data", batch_size=32), 8, ["layers", "batch"]
    return config, None, []


def tiny(config: Config) -> Config:
    """The config for a body of width 64, with few texts and rows."""
    folder = Path(tempfile.mkdtemp(prefix="zett-gpu-"))
    hf = {
        "model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 9,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": config.optim.name == "muon",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(hf))
    config = dataclasses.replace(config, base=str(folder))
    config = changed(config, "data", batch_size=4, length=32)
    config = changed(config, "sampler", max_size=512, min_size=300)
    return changed(config, "hypernet", width=64, layers=1, heads=2, feed_forward=96)


def changed(config: Config, section: str, **fields: Any) -> Config:
    values = to_dict(config)
    values[section] |= fields
    return from_dict(values)


def memory_limit() -> float:
    return float((jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0))


# --------------------------------------------------------------------------------------------------------------- steps


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps of one shape, for several settings of `config.train`."""

    config: Config
    layers: int | None
    cut: list[str]
    repeats: int

    @classmethod
    def of(cls, name: str, small: bool) -> "Steps":
        config, number, cut = shape_of(name, small)
        return cls(chosen(config, (1, 1, 1)), number, cut, 3 if small else 5 if name == "mistral" else 20)

    def measure(self, settings: dict[str, Any], profile: bool = False) -> dict:
        """Compiled and run; `settings` of config.train, and "unrolled": up to how many layers are unrolled."""
        settings = dict(settings)
        with unrolled(settings.pop("unrolled", layers.UNROLLED)):
            config = changed(self.config, "train", **settings)
            base = random_base(config, self.layers)
            step, optimizer = Step(config, base, one_device()), make_optimizer(config.optim, config.train.steps)
            state = initial_state(step, optimizer, abstract_state(step, optimizer, step.mesh))
            batch = make_batch(config, base.hf_config["vocab_size"], "lean")
            placed = global_batch(step.mesh, batch, step.batch_specs, config.data.batch_size)
            clock = time.perf_counter()
            compiled = make_step(step, optimizer).lower(state, step.frozen, placed).compile()
            compile_seconds = time.perf_counter() - clock

        def run(state):
            return jax.block_until_ready(compiled(state, step.frozen, placed))[0]

        if HAS_PEAK:
            forget_peak()
        state, seconds = clocked(run, state, self.repeats)
        memory = compiled.memory_analysis()
        flops = step.flops(batch)
        found = {
            "seconds": seconds, "compile_seconds": compile_seconds, "counted_tflop": flops / 1e12,
            "tokens_per_second": step.tokens_per_step / seconds, "tflop_per_second": flops / seconds / 1e12,
            "mfu": share_of_peak(flops / seconds),
            # What the compiler assigns; the peak of the process is that of its largest step so far.
            "planned_gigabytes": (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 1e9,
            "peak_gigabytes": peak_gigabytes(),
            "predicted": None if "layers" in self.cut else prediction(config),
            "settings": setting_words(config, step),
            "cut": self.cut,
        }  # fmt: skip
        return found | ({"profile": tried(lambda: profiled(run, state, compiled.as_text()))} if profile else {})


def tried(f: Callable[[], dict]) -> dict:
    """What `f` gives, or that it failed, which does not spoil what was measured before."""
    try:
        return f()
    except Exception as error:
        return {"failed": words(error)}


def setting_words(config: Config, step: HypernetStep) -> dict:
    names = ("microbatches", "remat", "remat_hypernet", "attention")
    return {name: getattr(config.train, name) for name in names} | {
        "products": step.dtype.name,
        "activations": activation_dtype(config.train.activations, step.dtype).name,
        "loss_chunk": step.objective.terms[0][1].setting.chunk,  # type: ignore[attr-defined]
    }


@contextlib.contextmanager
def unrolled(number: int):
    """Up to `number` layers are unrolled. Longer programs, without the copies that a loop makes of what it keeps."""
    before, layers.UNROLLED = layers.UNROLLED, number
    try:
        yield
    finally:
        layers.UNROLLED = before


def clocked(run: Callable, state, repeats: int) -> tuple[Any, float]:
    """The last state, and the median seconds of a run after the first two."""
    times = []
    for _ in range(repeats + 2):
        clock = time.perf_counter()
        state = run(state)
        times.append(time.perf_counter() - clock)
    return state, statistics.median(times[2:])


def prediction(config: Config) -> dict:
    """What `--dry_run` says of the step on such a device; a typical step of config.sampler."""
    device = find_device(jax.devices()[0].device_kind)
    (row,) = plan(config, devices=1, device=device.name if device else "cpu")["devices"]
    return {"seconds": row["step_seconds"], "gigabytes": row["memory"] / 1e9}


def share_of_peak(rate: float) -> float | None:
    device = find_device(jax.devices()[0].device_kind)
    return None if device is None else rate / device.peak


def peak_gigabytes() -> float | None:
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use") or (peak_bytes() if HAS_PEAK else 0)
    return peak / 1e9 if peak else None


# ------------------------------------------------------------------------------------------------------------- profile

# Kinds of kernels by their names, the first that matches.
KINDS = (
    ("attention", r"fmha|flash|cudnn.*sdpa|mha"),
    ("products", r"gemm|cutlass|cublas|nvjet|matmul|wgmma|dot"),
    ("copies and clearing", r"memcpy|memset|copy|dynamic_(update_)?slice|dynamic-(update-)?slice|transpose|broadcast"),
    ("scatter and gather", r"scatter|gather|sort"),
    ("reductions", r"reduc|softmax"),
    ("elementwise", r"fusion|loop|add|mul|convert|select"),
)


def kind_of(name: str) -> str:
    lower = name.lower()
    return next((kind for kind, pattern in KINDS if re.search(pattern, lower)), "other")


def profiled(run: Callable, state, hlo: str) -> dict:
    """Shares of the time by kind of kernel, and the operations that take most, with where in the program they are from."""
    with tempfile.TemporaryDirectory() as folder:
        jax.profiler.start_trace(folder)
        for _ in range(2):
            state = run(state)
        jax.profiler.stop_trace()
        files = sorted(Path(folder).rglob("*.xplane.pb"))
        if not files:
            return {"failed": "the profiler wrote nothing"}
        return summed_up(list(kernels(jax.profiler.ProfileData.from_file(str(files[-1])))), origins(hlo))


def kernels(data):
    """(name of the kernel, operation of the program, nanoseconds) of all events that a device, or XLA's CPU threads, had."""
    on_device = [plane for plane in data.planes if plane.name.startswith("/device:GPU")]
    for plane in on_device or data.planes:
        for line in plane.lines:
            if on_device and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                operation = str(dict(event.stats).get("hlo_op", ""))
                if operation or on_device:
                    yield event.name, operation, event.duration_ns


def origins(hlo: str) -> dict[str, str]:
    """Where an operation of compiled HLO text is from: the end of its op_name."""
    found = re.findall(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]*)"', hlo, re.M)
    return {name: where[-70:] for name, where in found}


def summed_up(events: list[tuple[str, str, float]], where: dict[str, str], most: int = 12) -> dict:
    kinds: Counter = Counter()
    operations: Counter = Counter()
    for kernel, operation, nanoseconds in events:
        kinds[kind_of(f"{kernel} {operation}")] += nanoseconds
        operations[operation or kernel[:60]] += nanoseconds
    total = sum(kinds.values())
    if not total:
        return {"failed": "the profiler saw no kernels"}
    return {
        "kernels": len(events) // 2,  # of one step
        "busy_seconds": total / 2e9,
        "kinds": {kind: n / total for kind, n in kinds.most_common()},
        "most": [{"operation": op, "share": n / total, "from": where.get(op, "")} for op, n in operations.most_common(most)],
    }


# --------------------------------------------------------------------------------------------------------------- parts


def rates(small: bool):
    """Large products in bfloat16, and copies."""
    size = 256 if small else 8192
    x = jnp.ones((size, size), jnp.bfloat16)
    product = jax.jit(lambda x: jnp.matmul(x, x) * jnp.bfloat16(1 / size))
    yield "products", rate_of(product, x, {"tflop_per_second": 2.0 * size**3 / 1e12})
    long = jnp.zeros(2**20 if small else 2**30, jnp.bfloat16)
    yield "copies", rate_of(jax.jit(lambda x: x + jnp.bfloat16(1)), long, {"gigabytes_per_second": 2 * long.nbytes / 1e9})


def rate_of(f: Callable, x, per_run: dict) -> dict:
    _, seconds = clocked(lambda x: f(x).block_until_ready(), x, 10)
    return {"seconds": seconds} | {name: amount / seconds for name, amount in per_run.items()}


def now_and_then(name: str, small: bool):
    steps = Steps.of(name, small)
    yield "now", lambda: steps.measure({}, profile=True)
    yield "as first measured", lambda: steps.measure(THEN[name])


def variants(name: str, small: bool):
    steps = Steps.of(name, small)
    if small:  # Muon is most of what is compiled
        steps = dataclasses.replace(steps, config=changed(steps.config, "optim", name="adamw"))
    for variant, settings in VARIANTS[name].items():
        yield variant, lambda settings=settings: steps.measure(settings)


def step_alone(small: bool):
    yield "step", lambda: Steps.of("smollm2", small).measure({})


def emission(small: bool):
    """Rows of a SmolLM2 hypernetwork for a vocabulary of 50,000 tokens, taken apart already."""
    config, number, _ = shape_of("smollm2", small)
    base = random_base(config, number)
    step = Step(config, base, one_device())
    rows = [np.asarray(base.table.input)]
    trained = TrainedHypernet(
        config.hypernet, jax.device_get(step.init()), step.hidden_size, step.tied, {"name": "", "fingerprint": None}
    )
    tokens = 1000 if small else 50_000
    forms = draw_forms(len(rows[0]), tokens, config.hypernet.max_pieces)
    for dtype in ("bfloat16", "float32"):
        clock = time.perf_counter()
        trained.predicted(rows, forms, dtype=jnp.dtype(dtype))
        first = time.perf_counter() - clock
        clock = time.perf_counter()
        trained.predicted(rows, forms, dtype=jnp.dtype(dtype))
        seconds = time.perf_counter() - clock
        yield dtype, {"seconds": seconds, "first_seconds": first, "rows_per_second": tokens / seconds}


def evaluation(small: bool):
    """Bits per byte of SmolLM2's body with a table of 50,000 rows, in the tokens of pico, first and again."""
    from zett.evaluate.cutting import byte_windows
    from zett.evaluate.tasks import reading_task
    from zett.lms import load_base_model

    config, number, _ = shape_of("smollm2", small)
    body = random_base(config, number)
    rows = 0.02 * np.random.default_rng(SEED).standard_normal((8192 if small else 50_000, body.config.hidden_size), np.float32)
    model = dataclasses.replace(body, vocab=load_base_model("pico", body=False).vocab, table=EmbeddingTable.of(rows))
    texts = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "zett").rglob("*.py"))]
    windows = byte_windows(texts, count=8 if small else 128)
    task = reading_task(model, dtype=activation_dtype("auto", jnp.dtype("bfloat16")))
    items = task.items(model, windows)
    for name in ("first", "again"):
        clock = time.perf_counter()
        task.score(model, items)
        yield name, {"seconds": time.perf_counter() - clock}


PARTS: dict[str, Callable] = {
    "rates": rates,
    "smollm2": lambda small: now_and_then("smollm2", small),
    "mistral": lambda small: now_and_then("mistral", small),
    "emission": emission,
    "evaluation": evaluation,
    "smollm2-variants": lambda small: variants("smollm2", small),
    "mistral-variants": lambda small: variants("mistral", small),
    "step": step_alone,
}


def run_part(part: str, seconds: float, small: bool) -> dict:
    """All that a part measures. What fails is recorded, and what would begin in its last fifth is left out."""
    first = jax.devices()[0]
    if first.platform == "cpu" and not small:
        raise SystemExit("JAX sees no GPU on this machine; --small tries everything on its CPU")
    report: dict = {"device": {"kind": first.device_kind, "platform": first.platform}, "runs": {}}
    started, findings = time.perf_counter(), PARTS[part](small)
    while True:
        try:
            name, found = next(findings)
        except StopIteration:
            return report
        except Exception as error:  # what a generator has begun cannot go on
            report["runs"][f"run {len(report['runs']) + 1}"] = {"failed": words(error)}
            return report
        if time.perf_counter() - started > 0.8 * seconds and callable(found):
            found = {"failed": "no time left"}
        try:
            report["runs"][name] = found() if callable(found) else found
        except Exception as error:
            report["runs"][name] = {"failed": words(error)}
        print(json.dumps(report), flush=True)


def words(error: Exception) -> str:
    return "out of memory" if "RESOURCE_EXHAUSTED" in str(error) else f"{type(error).__name__}: {error}"[:400]


if __name__ == "__main__":
    print(json.dumps(run_part(sys.argv[1], float(sys.argv[2]), "--small" in sys.argv[3:])), flush=True)
