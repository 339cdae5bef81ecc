"""What a GPU does with training steps of real shapes, beside what a dry run predicts; emission and evaluation. Random weights.

    benchmarks/gpu.sh                                  # all of it, at most 8 minutes, into benchmarks/results/gpu.json
    python -m benchmarks.gpu --small                   # tiny shapes, on a CPU, too: whether all of it runs
    python -m benchmarks.gpu --parts smollm2 flags --output smollm2.json

Parts, each in processes of its own and with a share of the time; one that fails is recorded and stops no other:

- rates: large products and copies, beside the shares of peak and bandwidth that zett/plan/time.py has
- smollm2, mistral: a step as training now computes it, profiled, and as it was when it was first measured. Mistral-7B's shape
  is whole where the device has 70 GB of memory, else a quarter of its layers and texts
- emission, evaluation: 50,000 rows of SmolLM2's hypernetwork; a text of SmolLM2's body with such a table
- smollm2-variants, mistral-variants: attention, chunks of the loss, remat, microbatches, dtype of activations, unrolled layers
- flags: the SmolLM2 step under options of XLA

"predicted" are seconds and memory by zett/plan. tflop_per_second counts what the result needs (zett/plan/flops.py), mfu is its
share of the device's bfloat16 peak.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import SEED, arguments, processor
from zett.files.jsonfile import write_json
from zett.files.provenance import environment

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "benchmarks" / "results" / "gpu.json"
SECONDS = 470  # of all parts together; the rest of 8 minutes is for what is around them
# Part: the most seconds it gets. They go in this order, and the last ones get what is left.
PARTS = {
    "rates": 40, "smollm2": 130, "mistral": 180, "emission": 60, "evaluation": 60, "smollm2-variants": 200,
    "mistral-variants": 150, "flags": 100,
}  # fmt: skip
# Options of XLA, by what they are to save; each has a process of its own.
FLAGS = {
    "graphs": "--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,CUDNN,CONDITIONAL,WHILE",
    "slices": "--xla_gpu_enable_dynamic_slice_fusion=true",
    "triton": "--xla_gpu_enable_triton_gemm=false",
}


def in_a_process(part: str, seconds: float, small: bool, flags: str = "") -> dict:
    """What `benchmarks.gpu_parts` says of a part. It prints its findings so far after each of them; the last ones count."""
    command = [sys.executable, "-m", "benchmarks.gpu_parts", part, f"{seconds:.0f}", *(["--small"] if small else [])]
    settings = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()} if flags else {}
    if small:
        settings["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # it is compiling that would take the time
    clock, failed, code = time.perf_counter(), "", 0
    try:
        done = subprocess.run(command, cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=seconds)
        out, errors, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:
        out, errors = (x.decode(errors="replace") if isinstance(x, bytes) else x or "" for x in (error.stdout, error.stderr))
        failed = f"stopped after {seconds:.0f} s"
    if code:
        failed = "out of memory" if code == -9 or "RESOURCE_EXHAUSTED" in errors else errors.strip()[-600:] or f"code {code}"
    lines = [line for line in out.splitlines() if line.startswith("{")]
    found = json.loads(lines[-1]) if lines else {}
    return found | {"wall_seconds": round(time.perf_counter() - clock, 1)} | ({"failed": failed} if failed else {})


def measured(part: str, seconds: float, small: bool) -> dict:
    """A part; "flags" is several processes."""
    if part != "flags":
        return in_a_process(part, seconds, small)
    clock, runs = time.perf_counter(), {}
    for name, flags in FLAGS.items():
        left = seconds - (time.perf_counter() - clock)
        runs[name] = in_a_process("step", left, small, flags) | {"flags": flags} if left > 20 else {"failed": "no time left"}
    device = next((run["device"] for run in runs.values() if "device" in run), None)
    return {"device": device, "runs": {name: next(iter(run.pop("runs", {}).values()), {}) | run for name, run in runs.items()}}


def run_parts(parts: list[str], seconds: float, small: bool, output: Path | None) -> dict:
    """All parts, one after the other. The report is written after each of them."""
    report: dict = {"device": None, "parts": {}}
    started = time.perf_counter()
    for part in parts:
        left = seconds - (time.perf_counter() - started)
        if left < 10:
            report["parts"][part] = {"failed": "no time left"}
        else:
            report["parts"][part] = measured(part, min(PARTS[part], left), small)
        report["device"] = report["parts"][part].pop("device", None) or report["device"]
        print("\n".join(lines(part, report["parts"][part])), flush=True)
        if output is not None and report["device"] is not None:  # of what has run nowhere there is nothing to keep
            write_json(output, report | about(small))
    return report | about(small)


def about(small: bool) -> dict:
    """What is to know about the machine. The device belongs to the parts, so it is not asked here."""
    found = environment()
    return {"small": small, "seed": SEED, "processor": processor(), "versions": found.get("versions")}


def lines(part: str, found: dict) -> list[str]:
    """A part as a table."""
    runs = found.get("runs", {})
    rows = [f"\n{part}  ({found.get('wall_seconds', 0):.0f} s)" + (f"  FAILED: {found['failed']}" if "failed" in found else "")]
    for name, run in runs.items():
        if "seconds" not in run:
            rows.append(f"  {name:28} FAILED: {str(run.get('failed'))[:160]}")
            continue
        cells = [f"{1e3 * run['seconds']:9.2f} ms"]
        if predicted := run.get("predicted"):
            cells.append(f"predicted {1e3 * predicted['seconds']:8.2f} ms")
        if run.get("mfu") is not None:
            cells.append(f"mfu {run['mfu']:6.1%}")
        cells += [f"{run[key]:10.1f} {unit}" for key, unit in UNITS.items() if run.get(key) is not None]
        rows.append(f"  {name:28} " + "  ".join(cells))
    for name, run in runs.items():
        for kind, share in run.get("profile", {}).get("kinds", {}).items():
            rows.append(f"    {name}: {kind:20} {share:6.1%}")
    return rows


UNITS = {
    "tokens_per_second": "tokens/s", "rows_per_second": "rows/s", "tflop_per_second": "TFLOP/s", "gigabytes_per_second": "GB/s",
    "peak_gigabytes": "GB", "compile_seconds": "s compiling",
}  # fmt: skip


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--small", action="store_true", help="tiny shapes, of which nothing is written without --output")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of all parts together")
    args = parser.parse_args()
    output = args.output or (None if args.small else OUTPUT)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
    report = run_parts(args.parts, args.seconds, args.small, output)
    if output is None:
        print(json.dumps(report, indent=2))
    if all("failed" in part and "runs" not in part for part in report["parts"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
