"""What the benchmarks share: arguments, clocks, memory, and a report that names the machine, the versions and the seed."""

import argparse
import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from zett.files.jsonfile import write_json
from zett.files.provenance import environment

SEED = 0  # of all random numbers


def arguments(description: str | None, *, repeats: int | None = None) -> argparse.ArgumentParser:
    """A parser with --output, and with --repeats where there is a default for it."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if repeats is not None:
        parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--output", type=Path, help="a JSON file to write the report to")
    return parser


def finish(report: dict, output: Path | None) -> None:
    """Print the report with what is to know about the machine; write it to `output`."""
    about = {"seed": SEED, "processor": processor(), "load_average": os.getloadavg()[1], **environment()}
    report = report | about
    print(json.dumps(report, indent=2))
    if output:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_json(output, report)


def processor() -> str:
    """Its name; on systems that do not tell it, the architecture."""
    info = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return name[1] if name else platform.processor() or platform.machine()


def median_seconds(repeats: int, **calls: Callable[[], object]) -> dict[str, float]:
    """Medians of calls that take turns, after one round that is not counted. JAX's work has to be awaited by the call."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats + 1):
        for name, call in calls.items():
            clock = time.perf_counter()
            call()
            if repeat:
                seconds[name].append(time.perf_counter() - clock)
    return {name: statistics.median(values) for name, values in seconds.items()}


# -------------------------------------------------------------------------------------------- memory, which Linux tells

HAS_PEAK = Path("/proc/self/clear_refs").exists()


def held_bytes() -> int:
    """What this process holds now."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most that this process has held since it began or called `forget_peak`. What is mapped from files counts."""
    return _status("VmHWM")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _status(field: str) -> int:
    # Not the peak that the parent of a process is told, which counts the parent's own memory at the fork.
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def measured(call: Callable[[], object]) -> tuple[dict, object]:
    """Seconds of processors and of the clock, and the result."""
    clock, cpu = time.perf_counter(), time.process_time()
    result = call()
    return {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - clock}, result


def with_memory(call: Callable[[], object]) -> tuple[dict, object]:
    """The same, with the memory that is held at most: beside what was held, and by the whole process."""
    if not HAS_PEAK:
        return measured(call)
    held = held_bytes()
    forget_peak()
    numbers, result = measured(call)
    return numbers | {"MB": (peak_bytes() - held) / 1e6, "MB_of_the_process": peak_bytes() / 1e6}, result
