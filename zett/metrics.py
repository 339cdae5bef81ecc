"""Progress and metrics: a bar in a terminal, lines elsewhere, JSON lines in the workdir. Never blocks the device."""

import json
import sys
import time
from pathlib import Path


class Metrics:
    """Receives each step's metrics as device arrays and reads them one logging interval later, when they are long done."""

    def __init__(self, workdir: Path, *, steps: int, start: int, log_every: int, tokens_per_step: int):
        import jax
        from tqdm import tqdm

        self.main = jax.process_index() == 0
        self._file = (workdir / "metrics.jsonl").open("a") if self.main else None
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=steps,
            initial=start,
            unit="step",
            disable=not (self.main and self._terminal),
            dynamic_ncols=True,
            smoothing=0.1,
        )
        self._log_every, self._steps, self._tokens = log_every, steps, tokens_per_step
        self._pending: tuple[int, dict] | None = None
        self._clock, self._clock_step = time.perf_counter(), start
        self._excluded = 0.0
        self.latest: dict[str, float] = {}

    def step(self, step: int, values: dict) -> None:
        """Note the metrics of step number `step` (1 is the first)."""
        self._bar.update(1)
        if step % self._log_every and step != self._steps:
            return
        self.flush()
        self._pending = (step, values)

    def flush(self) -> None:
        """Write what is pending."""
        if self._pending is None:
            return
        step, values = self._pending
        self._pending = None
        scalars = {name: float(value) for name, value in values.items()}
        now = time.perf_counter()
        seconds = max(now - self._clock - self._excluded, 1e-9)
        rate = (step - self._clock_step) / seconds
        self._clock, self._clock_step, self._excluded = now, step, 0.0
        if rate > 0:
            scalars |= {"steps_per_s": rate, "tokens_per_s": rate * self._tokens}
        self.latest = scalars
        self._write({"step": step, **scalars})
        shown = {k: f"{scalars[k]:.4g}" for k in ("loss", "bits_per_byte", "tokens_per_s") if k in scalars}
        if self._terminal:
            self._bar.set_postfix(shown, refresh=False)
        elif self.main:
            left = (self._steps - step) / rate if rate > 0 else 0
            text = "  ".join(f"{k} {v}" for k, v in shown.items())
            print(f"step {step}/{self._steps}  {text}  left {_duration(left)}", file=sys.stderr, flush=True)

    def evaluation(self, step: int, values: dict[str, float], seconds: float) -> None:
        """Record an evaluation; its time does not count in the training rate."""
        self._excluded += seconds
        self._write({"step": step, **{f"eval/{k}": v for k, v in values.items()}})
        self.say(f"step {step}  " + "  ".join(f"{k} {v:.4f}" for k, v in values.items()))

    def say(self, text: str) -> None:
        if self.main:
            self._bar.write(text, file=sys.stderr)

    def _write(self, record: dict) -> None:
        if self._file is not None:
            self._file.write(json.dumps({"time": round(time.time(), 3), **record}) + "\n")
            self._file.flush()

    def close(self) -> None:
        self.flush()
        self._bar.close()
        if self._file is not None:
            self._file.close()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
