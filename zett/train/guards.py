"""What ends a training before its last step: signals, its time, no more gain, and gradients that stay non-finite."""

import collections
import signal
import time
from pathlib import Path

import jax
import numpy as np

from zett.config import Config, TrainConfig, to_dict
from zett.errors import UserError
from zett.files.jsonfile import write_json


class SkipGuard:
    """Stops a run whose gradient stays non-finite. It looks at a step two steps later, so that the device never waits."""

    def __init__(self, config: Config, workdir: Path):
        self._config, self._file = config, workdir / "not_finite.json"
        self._pending: collections.deque = collections.deque()

    def note(self, step: int, in_row: jax.Array, flush: bool) -> None:
        self._pending.append((step, in_row))
        while len(self._pending) > (0 if flush else 2):
            step, in_row = self._pending.popleft()
            if int(in_row) >= self._config.train.max_skipped:
                self._stop(step, int(in_row))

    def _stop(self, step: int, count: int) -> None:
        # Config and step are enough to make a batch again: the recipe's `batch(step)` depends on nothing else.
        steps = list(range(step - count + 1, step + 1))
        write_json(self._file, {"seed": self._config.seed, "steps": steps, "config": to_dict(self._config)})
        raise UserError(
            f"the gradient was not finite in {count} steps in a row, {steps[0]} to {step}; the parameters are those of before. "
            f"{self._file} says which batches they were. Lower the learning rate, or start from an earlier checkpoint"
        )


class StopSignal:
    """After the first Ctrl-C or SIGTERM, `requested` is true, and the loop stops after its step. A second Ctrl-C acts at once.

    Several processes have to stop after the same step. JAX's own service notices a SIGTERM on any of them, and chooses which
    step that is.
    """

    def __init__(self):
        self._requested = False
        self._number = None
        self._previous = {}
        if jax.process_count() > 1:
            return
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        except ValueError:
            pass  # not in the main thread (as in a notebook's worker), where signals cannot be handled

    def requested(self, step: int) -> bool:
        if jax.process_count() > 1 and not self._requested:
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(step):
                self._requested, self._number = True, signal.SIGTERM
        return self._requested

    def _note(self, number, frame):
        self._requested, self._number = True, number
        self.restore()

    def exception(self) -> BaseException:
        # SIGTERM means preemption, and to save was all that was asked. After Ctrl-C the shell has to see an interrupt.
        return SystemExit(0) if self._number == signal.SIGTERM else KeyboardInterrupt()

    def restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)


class Limit:
    """Ends a run whose time is over, or which has stopped getting better; see config.train.minutes and .patience.

    With a limit of time, updates are multiplied by `rate()`: 1 in the first half, then down to 0. Where nothing is gained in
    the first half, the second begins.
    """

    PARTS = 8  # of the time, after each of which the run is evaluated
    GAIN = 0.001

    def __init__(self, settings: TrainConfig):
        self._seconds, self._patience = 60 * settings.minutes, settings.patience
        if self._seconds and jax.process_count() > 1:
            raise UserError(
                f"config.train.minutes is {settings.minutes}; with several processes, each with a clock, it has to be 0"
            )
        self._start: float | None = None
        self._seen, self._best, self._without_gain = 0, float("inf"), 0

    def begin(self) -> None:
        """The first step is done, and all is compiled."""
        self._start = self._start or time.perf_counter()

    @property
    def _share(self) -> float:
        """Of the time, what is over."""
        if not self._seconds or self._start is None:
            return 0.0
        return (time.perf_counter() - self._start) / self._seconds

    def rate(self) -> dict[str, np.float32]:
        """A part of the batch; none without a limit of time."""
        return {"rate": np.float32(min(1.0, max(2 - 2 * self._share, 0.0)))} if self._seconds else {}

    def due(self) -> bool:
        """Whether a part of the time has just ended."""
        part = int(self._share * self.PARTS)
        new, self._seen = part > self._seen, max(part, self._seen)
        return new

    def evaluated(self, score: float, seconds: float) -> None:
        """Note an evaluation, and how long it took."""
        if self._start is not None:
            self._start += seconds
        gained = score < self._best * (1 - self.GAIN)
        self._without_gain = 0 if gained else self._without_gain + 1
        self._best = min(score, self._best)
        if self._converged() and 0 < self._share < 0.5:
            # At a lower rate there is more to gain: the second half begins at once, and takes as long as what is over.
            self._seconds, self._without_gain = 2 * self._share * self._seconds, 0

    def _converged(self) -> bool:
        return 0 < self._patience <= self._without_gain

    def over(self) -> bool:
        return self._share >= 1 or self._converged()
