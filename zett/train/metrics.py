"""Progress and metrics: a bar in a terminal or else lines, and JSON lines in the workdir. The device never waits for them."""

import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

from zett.config import TrainConfig
from zett.errors import UserError
from zett.files.provenance import start_record
from zett.plan.devices import find_device
from zett.progress import EVERY, duration


class Metrics:
    """Gets each step's metrics as device arrays, and reads them one logging interval later, when they are long computed."""

    def __init__(self, workdir: Path, settings: TrainConfig, *, tokens_per_step: int, config: dict):
        import jax

        self.main = jax.process_index() == 0
        self._workdir, self._settings, self._config = workdir, settings, config
        self._tokens = tokens_per_step
        self._trackers: list[Any] = [_TRACKERS[name](workdir, config) for name in settings.track] if self.main else []
        self._terminal = sys.stderr.isatty()
        self._file: Any = None
        self._bar: Any = None
        self._pending: tuple[int, float, dict, float, float] | None = None
        self._latest_step = 0
        self._waited = self._excluded = self._flops = 0.0
        self._devices = jax.device_count()
        device = find_device(jax.devices()[0].device_kind)
        self._peak = None if device is None else device.peak
        self.latest: dict[str, float] = {}

    def start(self, step: int) -> None:
        """Begin after `step` steps. Lines of later steps, left by a run that was killed, are dropped: they will come again."""
        from tqdm import tqdm

        total = None if self._settings.minutes else self._settings.steps
        self._bar = tqdm(
            total=total,
            initial=step,
            unit="step",
            disable=not (self.main and self._terminal),
            dynamic_ncols=True,
            smoothing=0.1,
        )
        if self.main:
            path = self._workdir / "metrics.jsonl"
            if path.exists():
                _keep_until(path, step)
            self._file = path.open("a")
            with (self._workdir / "starts.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, **start_record()}) + "\n")
        if step:
            self.say(f"resumed {self._workdir} at step {step}")
        self._clock, self._clock_step = time.perf_counter(), step
        self._begin = self._clock  # of what config.train.minutes counts
        self._first: tuple[float, int] | None = None  # when the first step was done, and its number
        self._said = self._clock

    def step(self, step: int, values: dict, waited: float, flops: float) -> None:
        """Note the metrics of step number `step` (1 is the first), whose batch was waited for `waited` seconds.

        flops: counted FLOPs of the step, all devices together (zett/plan/flops.py).
        """
        self._bar.update(1)
        self._latest_step = step
        if self._first is None:  # it is done, and took as long as compiling did, which says nothing of the others
            self._begin = self._clock = time.perf_counter()
            self._clock_step, self._excluded = step, 0.0
        else:
            self._waited += waited
            self._flops += flops
        self._sign_of_life(step)
        if step % self._settings.log_every and step != self._settings.steps:
            return
        self.flush()
        self._pending = (step, time.perf_counter(), values, self._waited, self._flops)
        self._waited = self._flops = 0.0

    def _sign_of_life(self, step: int) -> None:
        """Without a terminal, print a line every few seconds until the first metrics come, which may take minutes."""
        now = time.perf_counter()
        since, before = self._first = self._first or (now, step)
        if self.latest or self._terminal or not self.main or now - self._said < EVERY / 2:
            return
        self._said = now
        known = step > before and not self._settings.minutes
        left = f"  left {duration((now - since) / (step - before) * (self._settings.steps - step))}" if known else ""
        print(f"step {self._step_of(step)}{left}", file=sys.stderr, flush=True)

    def _step_of(self, step: int) -> str:
        """With a limit of time, nobody knows how many there will be."""
        return f"{step}" if self._settings.minutes else f"{step}/{self._settings.steps}"

    def flush(self) -> None:
        """Write what is pending."""
        if self._pending is None:
            return
        step, now, values, waited, flops = self._pending
        self._pending = None
        before = time.perf_counter()
        scalars = {name: float(value) for name, value in values.items()}  # this waits until the device has computed the step
        read = time.perf_counter()
        if step == self._latest_step or read - before > 1e-3:  # else it was done long ago
            now = read
        seconds = max(now - self._clock - self._excluded, 1e-9)
        steps = step - self._clock_step
        self._clock, self._clock_step, self._excluded = now, step, 0.0
        rate = steps / seconds
        if steps > 0:
            scalars |= {"steps_per_s": rate, "step_seconds": 1 / rate, "tokens_per_s": rate * self._tokens}
            scalars["waiting_for_data"] = min(waited / seconds, 1.0)
            scalars["tflops_per_s"] = flops / seconds / self._devices / 1e12  # of each device
            if self._peak is not None:
                scalars["mfu"] = scalars["tflops_per_s"] * 1e12 / self._peak
        scalars |= memory()
        self.latest = scalars
        self._write({"step": step, **scalars})
        shown = {k: f"{scalars[k]:.4g}" for k in ("loss", "bits_per_byte", "tokens_per_s", "mfu") if k in scalars}
        if scalars.get("skipped"):
            shown["skipped"] = f"{scalars['skipped']:.0f}"
        if self._terminal:
            self._bar.set_postfix(shown, refresh=False)
        elif self.main:
            left = [(self._settings.steps - step) / rate] if rate > 0 else []
            if self._settings.minutes:
                left.append(max(60 * self._settings.minutes - (now - self._begin), 0))
            if left:
                shown["left"] = duration(min(left))
            text = "  ".join(f"{k} {v}" for k, v in shown.items())
            print(f"step {self._step_of(step)}  {text}", file=sys.stderr, flush=True)

    def evaluation(self, step: int, values: dict[str, float], seconds: float) -> None:
        """Record an evaluation; its time does not count in the training rate."""
        self._excluded += seconds
        self._begin += seconds
        trained = max(time.perf_counter() - self._begin, 0.0) if step else 0.0
        self._write({"step": step, "trained_seconds": round(trained, 3), **{f"eval/{k}": v for k, v in values.items()}})
        self.say(f"step {step}  " + "  ".join(f"{k} {v:.4f}" for k, v in values.items()))

    def say(self, text: str) -> None:
        if self.main:
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr)

    def _write(self, record: dict) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"time": round(time.time(), 3), **record}) + "\n")
            self._file.flush()
        for tracker in self._trackers:
            tracker.write(record)

    def close(self) -> None:
        if self._bar is not None:
            self.flush()
            self._bar.close()
        if self._file is not None:
            self._file.close()
        for tracker in self._trackers:
            tracker.close()


def _keep_until(path: Path, step: int) -> None:
    """Drop the lines of `path` that belong to later steps, and a last line that was not finished."""
    kept = []
    for line in path.read_text(errors="replace").splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError):
            pass
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(kept))
    temporary.rename(path)


def memory() -> dict[str, float]:
    """Peak memory of the fullest local device, or of the process if the devices do not tell (CPUs)."""
    import jax

    peaks = [(d.memory_stats() or {}).get("peak_bytes_in_use", 0) for d in jax.local_devices()]
    if max(peaks):
        return {"device_memory_gb": max(peaks) / 1e9}
    try:
        import resource
    except ImportError:  # Windows
        return {}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"process_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}


# ------------------------------------------------------------------------------------------------------------- tracking


class _TensorBoard:
    def __init__(self, workdir: Path, config: dict):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(workdir / "tensorboard"))
        self._writer.add_text("config", "```\n" + json.dumps(config, indent=2) + "\n```")

    def write(self, record: dict) -> None:
        for name, value in record.items():
            if name not in ("step", "time"):
                self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, workdir: Path, config: dict):
        import hashlib

        import wandb

        # A resumed run goes on under the same id, made from its workdir.
        identity = hashlib.sha256(str(workdir.absolute()).encode()).hexdigest()[:16]
        self._run = wandb.init(project="zett", name=workdir.name, id=identity, resume="allow", dir=str(workdir), config=config)

    def write(self, record: dict) -> None:
        self._run.log({k: v for k, v in record.items() if k not in ("step", "time")}, step=record["step"])

    def close(self) -> None:
        self._run.finish()


_TRACKERS = {"tensorboard": _TensorBoard, "wandb": _WandB}
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


def check_trackers(names: tuple[str, ...]) -> None:
    """UserError if a tracker is asked for that is not installed."""
    for name in names:
        if importlib.util.find_spec(_PACKAGES[name]) is None:
            raise UserError(
                f"config.train.track has {name!r}, but {_PACKAGES[name]} is not installed: pip install {_PACKAGES[name]}"
            )
