"""The plots of the page of `zett inspect`: where everything stands, as numbers that the page's template draws as SVG."""

import dataclasses
import math
from collections.abc import Sequence

# Each plot is drawn twice, in its own units: for wide screens and for phones, so that its text is legible on both.
WIDTH, NARROW = 880, 390
_CHARACTER = 7  # about how wide a character of a plot is, in the same units; few are wider


@dataclasses.dataclass(frozen=True)
class Mark:
    """A text and the place that it belongs to."""

    x: float
    y: float
    text: str


@dataclasses.dataclass(frozen=True)
class Bar:
    """An upright bar from its upper left corner. side: "old" or "new", its colour. hint: what it shows when pointed at."""

    side: str
    x: float
    y: float
    width: float
    height: float
    hint: str


@dataclasses.dataclass(frozen=True)
class Column:
    """All bars over one name. number: the share over a bar that stands alone. name: None where there is no room for it."""

    bars: list[Bar]
    number: Mark | None
    name: Mark | None


@dataclasses.dataclass(frozen=True)
class ColumnsPlot:
    across: int
    height: int
    left: int
    ticks: list[Mark]
    columns: list[Column]
    label: Mark


def columns_plot(
    columns: Sequence[tuple[str, Sequence[float]]], sides: Sequence[str], label: str, *, across: int = WIDTH
) -> ColumnsPlot:
    """Shares as upright bars: (name, a share for each of `sides`, which are "old" or "new")."""
    height, left, bottom = 240, 44, 44
    floor = height - bottom
    top = max([share for _, shares in columns for share in shares] + [0.01])
    step = _round_step(top / 4)
    scale = (floor - 16) / top
    slot = (across - 6 - left) / len(columns)
    width = min(slot * 0.74 / len(sides), 46)
    # As many names as there is room for, the last among them.
    every = math.ceil(_CHARACTER * max(len(_brief(name)) for name, _ in columns) / slot)
    drawn = []
    for n, (name, shares) in enumerate(columns):
        middle = left + slot * (n + 0.5)
        bars = [
            Bar(
                side,
                middle + (k - len(sides) / 2) * width,
                floor - share * scale,
                width - 1,
                share * scale,
                f"{name} {label}: {share:.2%}",
            )
            for k, (side, share) in enumerate(zip(sides, shares))
        ]
        share = _percent(shares[0])
        fits = len(sides) == 1 and shares[0] > 0 and slot > _CHARACTER * len(share)
        number = Mark(middle, floor - shares[0] * scale - 5, share) if fits else None
        named = (len(columns) - 1 - n) % every == 0
        drawn.append(Column(bars, number, Mark(middle, floor + 17, _brief(name)) if named else None))
    ticks = [Mark(left, floor - n * step * scale, f"{100 * n * step:g}%") for n in range(int(top / step + 1e-9) + 1)]
    return ColumnsPlot(across, height, left, ticks, drawn, Mark(left + (across - left) / 2, height - 6, label))


@dataclasses.dataclass(frozen=True)
class Dot:
    """side: "old" or "new", its colour. hint: what it shows when pointed at."""

    side: str
    x: float
    hint: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A name, and beside it, at the height y, the dots of the source and the target with a line between them."""

    name: Mark
    y: float
    dots: list[Dot]


@dataclasses.dataclass(frozen=True)
class DotsPlot:
    across: int
    height: int
    foot: int
    axis: float
    ticks: list[Mark]
    rows: list[Row]


def dots_plot(rows: Sequence[tuple[str, Sequence[float]]], *, start: float, across: int = WIDTH) -> DotsPlot:
    """A row for each (name, values of the source and the target). start: the value at which the axis stands."""
    line, foot = 22, 30
    left = 22 + _CHARACTER * max([len(name[:18]) for name, _ in rows], default=0)
    height = line * len(rows) + foot + 6
    low = min([start] + [value for _, values in rows for value in values])
    high = max([value for _, values in rows for value in values] + [start + 0.1]) * 1.03
    scale = (across - left - 20) / (high - low)
    step = _round_step((high - low) / (across / 73))
    numbers = range(math.ceil(low / step - 1e-9), int(high / step + 1e-9) + 1)
    ticks = [Mark(left + (n * step - low) * scale, height - foot + 18, f"{n * step:g}") for n in numbers]
    drawn = []
    for n, (name, values) in enumerate(rows):
        y = line * n + line / 2 + 2
        dots = [Dot(side, left + (value - low) * scale, f"{name}: {value:.3f}") for side, value in zip(("old", "new"), values)]
        drawn.append(Row(Mark(left - 14, y + 4, name[:18]), y, dots))
    return DotsPlot(across, height, height - foot, left + (start - low) * scale, ticks, drawn)


def _brief(name: str) -> str:
    return name.replace("more than ", ">")


def _percent(share: float) -> str:
    if share and share < 0.001:
        return "<0.1%"
    return f"{share:.0%}" if share == 0 or share >= 0.095 else f"{share:.1%}"


def _round_step(least: float) -> float:
    """The next round number: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= least - 1e-12)
