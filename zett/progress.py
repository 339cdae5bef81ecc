"""What is going on, for who waits: lines and bars on stderr.

What is said is logged as INFO of the logger "zett", which Python leaves out. Commands show it (`shown`). A bar is there in
every terminal; elsewhere lines take its place, every few seconds, and only where what is said is shown.
"""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator

LOGGER = logging.getLogger("zett")
EVERY = 5.0  # seconds between two signs of life
_going_on: list[threading.Event] = []  # what beats; where one is within another, lines are about the inner one alone


class _Stderr(logging.Handler):
    """Writes above the bars, to what is stderr at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)
        sys.stderr.flush()


@contextlib.contextmanager
def shown(on: bool = True) -> Iterator[None]:
    """What is said in the block goes to stderr, and what is warned of, which is there anyway."""
    if not on:
        yield
        return
    handler, level, propagate = _Stderr(), LOGGER.level, LOGGER.propagate
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False  # libraries put handlers of their own on the root logger, which would say everything again
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate


def say(text: str) -> None:
    """One line about what begins now."""
    LOGGER.info("%s", text)


@contextlib.contextmanager
def phase(what: str, when: bool = True) -> Iterator[None]:
    """Says what begins; while it goes on, for how long it has. For what cannot tell how far it is. when: whether at all."""
    from tqdm import tqdm

    if not (when and LOGGER.isEnabledFor(logging.INFO)):
        yield
        return
    say(what)
    with tqdm(desc=what, bar_format="{desc}  {elapsed}", delay=1, leave=False, disable=None) as line:
        with _beating(lambda seconds: say(f"{what}: {seconds:.0f} s") if line.disable else line.refresh(), line.disable):
            yield


@contextlib.contextmanager
def bar(total: int, what: str, unit: str) -> Iterator[Callable[[int], object]]:
    """Shows how far something is, and the time left. Yields what is called with the number of units that have been done."""
    from tqdm import tqdm

    with tqdm(total=total, desc=what, unit=unit, delay=1, leave=False, disable=None) as line:
        done = 0

        def advance(number: int) -> None:
            nonlocal done
            done += number
            line.update(number)

        def beat(seconds: float) -> None:
            if not line.disable:
                line.refresh()
            elif done:
                say(f"{what}: {done:,} of {total:,}, {duration(seconds / done * (total - done))} left")
            else:
                say(f"{what}: {seconds:.0f} s")

        if line.disable and not LOGGER.isEnabledFor(logging.INFO):
            yield advance
            return
        with _beating(beat, line.disable):
            yield advance


@contextlib.contextmanager
def _beating(beat: Callable[[float], object], lines: bool | None) -> Iterator[None]:
    """Calls `beat` with the seconds since the beginning: every second, or if it writes lines, less often as they add up."""
    done, clock = threading.Event(), time.perf_counter()

    def run() -> None:
        while not done.wait(_pause(time.perf_counter() - clock) if lines else 1.0):
            if not lines or _going_on[-1:] == [done]:
                beat(time.perf_counter() - clock)

    thread = threading.Thread(target=run, daemon=True)
    _going_on.append(done)
    thread.start()
    try:
        yield
    finally:
        done.set()
        _going_on.remove(done)
        thread.join()


def _pause(seconds: float) -> float:
    return EVERY if seconds < 60 else 6 * EVERY


def duration(seconds: float) -> str:
    """1:02, or with hours 1:00:02."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
