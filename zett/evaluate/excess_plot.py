"""Where bits are lost, as a picture."""

import textwrap

from zett.evaluate.plot import FAINT, INK, SOFT, styles
from zett.evaluate.results import Report

_LANE, _GAP = 0.15, 0.12  # inches of a method's bar, and between two classes
KINDS = {"pieces": "by pieces of the original's tokenizer", "content": "by what tokens spell"}


def excess_figure(report: Report):
    """A matplotlib Figure: for each target, excess bits per byte by class and method; None if nobody asked for it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = [(target.name, target.excess) for target in report.targets if target.excess]
    if not found:
        return None
    slot = _LANE * len(report.methods) + _GAP
    first = [next(iter(excess.values())) for _, excess in found]
    tall = [max(len(one.pieces), len(one.content)) * slot + 0.7 for one in first]
    columns = max(1, min(len(report.methods), 80 // (5 + max(map(len, report.methods)))))
    legend = 0.22 * -(-len(report.methods) // columns)  # inches
    title = textwrap.wrap(f"{report.model}: where bits are lost", 68)
    fig = Figure(figsize=(10, sum(tall) + 0.3 * len(title) + legend + 0.6), layout="constrained")
    FigureCanvasAgg(fig)
    grid = fig.subplots(len(found), 2, squeeze=False, sharex="row", height_ratios=tall)
    for n, (row, (target, excess)) in enumerate(zip(grid, found)):
        for axes, kind in zip(row, KINDS):
            handles = _draw(axes, excess, kind, report, slot)
            name = "\n".join(textwrap.wrap(f"{target}, {KINDS[kind]}", 60))
            axes.set_title(name, loc="left", fontsize=10, color=INK, pad=6 + (72 * legend if n == 0 else 0))
    grid[0, 0].legend(handles=handles, ncols=columns, loc="lower left", bbox_to_anchor=(-0.01, 1), borderaxespad=0.1,
                      frameon=False, fontsize=9, columnspacing=1.4, labelcolor=INK)  # fmt: skip
    fig.suptitle("\n".join(title), x=0.012, ha="left", color=INK, fontsize=14, weight="bold")
    foot = f"Bits for each byte of the text beyond the original's {report.original['bits_per_byte']:.3f}; share of the tokens."
    fig.supxlabel(foot, x=0.012, ha="left", color=SOFT, fontsize=8.5)
    return fig


def _draw(axes, excess: dict, kind: str, report: Report, slot: float) -> list:
    """Bars of all methods for each class; returns what the legend shows."""
    from matplotlib.patches import Patch

    looks, methods = styles(report), list(excess)
    classes = [getattr(found, kind) for found in excess.values()]
    tokens = max(sum(one.tokens for one in classes[0]), 1)
    for lane, (method, of_method) in enumerate(zip(methods, classes)):
        places = [n * slot + (lane - (len(methods) - 1) / 2) * _LANE for n in range(len(of_method))]
        axes.barh(places, [one.bits for one in of_method], height=0.85 * _LANE, linewidth=0, **looks[method])
    names = [f"{one.name} {one.tokens / tokens:.0%}" for one in classes[0]]
    axes.set_yticks([n * slot for n in range(len(names))], names, color=INK, fontsize=9)
    axes.set_ylim((len(names) - 0.5) * slot, -0.5 * slot)
    axes.axvline(0, color=INK, linewidth=1)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.tick_params(axis="both", length=0, labelcolor=INK, labelsize=9)
    return [Patch(label=method, linewidth=0, **looks[method]) for method in methods]
