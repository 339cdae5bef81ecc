"""What ends a training before its last step: signals, and gradients that stay non-finite."""

import collections
import signal
from pathlib import Path

import jax

from zett.config import Config, to_dict
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
