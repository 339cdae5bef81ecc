"""Work that is cut to the time that there is: what a machine has taken so far says what the rest will take."""

import time


class Pace:
    """Seconds from its making to the end of `seconds`."""

    def __init__(self, seconds: float):
        self.seconds, self._start = seconds, time.perf_counter()

    @property
    def spent(self) -> float:
        return time.perf_counter() - self._start

    @property
    def left(self) -> float:
        return self.seconds - self.spent


def clamped(number: float, limits: tuple[int, int], step: int = 1) -> int:
    """`number` made whole, a multiple of `step`, and not beyond the limits."""
    return max(limits[0], min(limits[1], int(number) // step * step))
