"""The table and the plot of benchmarks/methods_quality.py."""

import math
import textwrap

import numpy as np

from zett.errors import UserError
from zett.evaluate.statistics import bootstrap_draws

# Okabe and Ito's colours, which people with any colour vision tell apart.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
MARKERS = ("o", "s", "D", "^", "v", "P")
INK, SOFT, FAINT = "#222222", "#666666", "#DDDDDD"
BESIDE = "fvt"  # with which methods are compared
BEGIN, END = "<!-- table: made by benchmarks/methods_quality.py -->", "<!-- end of the table -->"


def beside_fvt(section: dict, method: str, seed: int) -> tuple[float, float] | None:
    """The geometric mean of bits over FVT's, of all targets with both, and its standard error, by windows; None without any."""
    logs, draws_of = [], None
    for target in section["targets"].values():
        cells = target["cells"]
        if method not in cells or BESIDE not in cells:
            continue
        ours, theirs = (np.asarray([float(x) for x in cells[name]["bits"].split()]) for name in (method, BESIDE))
        if draws_of is None:
            draws_of = bootstrap_draws(len(ours), seed)
        logs.append(np.log(np.concatenate([[ours.sum() / theirs.sum()], (draws_of @ ours) / (draws_of @ theirs)])))
    if not logs:
        return None
    mean = np.exp(np.mean(logs, axis=0))
    return float(mean[0]), float(np.std(mean[1:]))


def ordered(sections: list[dict], seed: int) -> list[str]:
    """All methods, the best first: by the mean of what they are beside FVT."""
    names = dict.fromkeys(name for section in sections for target in section["targets"].values() for name in target["cells"])

    def place(name: str) -> float:
        found = [x[0] for section in sections if (x := beside_fvt(section, name, seed)) is not None]
        return float(np.mean(np.log(found))) if found else math.inf

    return sorted(names, key=place)


def markdown(report: dict) -> str:
    return "\n\n".join(_table(name, section, report["seed"]) for name, section in report["sections"].items())


def in_page(page: str, report: dict) -> str:
    """The page with the table of `report` in the place of the one that it has."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"the page has no place for a table, which begins with {BEGIN} and ends with {END}")
    return f"{before}{BEGIN}\n\n{markdown(report)}\n\n{END}{after}"


def _table(name: str, section: dict, seed: int) -> str:
    targets = dict(sorted(section["targets"].items(), key=lambda item: item[1]["vocab_size"]))
    head = ["method", *(f"{target} ({about['vocab_size']:,})" for target, about in targets.items()), "beside FVT", "s", "MB"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for method in ordered([section], seed):
        cells = [about["cells"].get(method) for about in targets.values()]
        ratios = ["" if cell is None else f"{cell['ratio']:.3f} ±{cell['ratio_error']:.3f}" for cell in cells]
        last = [cell for cell in cells if cell is not None][-1]
        beside = beside_fvt(section, method, seed)
        against = "" if beside is None else "1" if method == BESIDE else f"{beside[0]:.3f} ±{beside[1]:.3f}"
        lines.append([method, *ratios, against, f"{last['cpu_seconds']:.1f}", f"{last['MB']:.0f}" if "MB" in last else ""])
    text, original = section["text"], section["original"]["bits_per_byte"]
    lengths = ", ".join(f"{target} {about['relative_length']:.0%}" for target, about in targets.items())
    about = (
        f"**{name}**: {original:.3f} bits per byte with its own tokenizer, on {text['bytes']:,} bytes in windows of up to "
        f"{text['window_bytes']:,}; {'tied' if section['tied'] else 'untied'}. Length in tokens, to its own: {lengths}."
    )
    return about + "\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def figure(report: dict):
    """A matplotlib Figure: a panel for each section, a line for each method, a mark for each target."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sections = report["sections"]
    methods = ordered(list(sections.values()), report["seed"])
    fig = Figure(figsize=(3 + 3.4 * len(sections), 2.2 + 0.27 * len(methods)), layout="constrained")
    FigureCanvasAgg(fig)
    panels = np.atleast_1d(fig.subplots(1, len(sections), sharey=True))
    for axes, (name, section) in zip(panels, sections.items()):
        _draw(axes, section, methods)
        axes.set_title(name, loc="left", fontsize=11, color=INK)
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.09), frameon=False, fontsize=8.5, labelcolor=INK, ncols=1)
    panels[0].set_yticks(range(len(methods)), methods, color=INK)
    panels[0].set_ylim(len(methods) - 0.4, -0.6)
    fig.suptitle("Bits per byte over the original's, with other tokenizers", x=0.012, ha="left", color=INK, weight="bold")
    foot = "1× is the model with its own tokenizer; further left is better; logarithmic scale. Whiskers: one standard error."
    fig.supxlabel("\n".join(textwrap.wrap(foot, 20 * int(fig.get_figwidth()))), x=0.012, ha="left", color=SOFT, fontsize=8.5)
    return fig


def _draw(axes, section: dict, methods: list[str]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    targets = sorted(section["targets"].items(), key=lambda item: item[1]["vocab_size"])
    highest = 1.1
    for number, (name, target) in enumerate(targets):
        lanes = {method: lane for lane, method in enumerate(methods) if method in target["cells"]}
        shift = (number - (len(targets) - 1) / 2) * 0.16
        ratios, errors = ([target["cells"][method][field] for method in lanes] for field in ("ratio", "ratio_error"))
        highest = max([highest, *ratios])
        style = {"color": COLOURS[number % len(COLOURS)], "fmt": MARKERS[number % len(MARKERS)], "label": name}
        axes.errorbar(ratios, [lane + shift for lane in lanes.values()], xerr=errors, markersize=4.5, elinewidth=1, **style)
    axes.set_xscale("log")
    axes.axvline(1, color=INK, linewidth=1)
    kept = [1.0]
    for tick in (1.05, 1.1, 1.2, 1.3, 1.5, 2, 3, 4, 6, 10, 20):
        if tick < 1.05 * highest and math.log(tick / kept[-1]) > math.log(highest) / 9:
            kept.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axes.grid(axis="both", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(axis="both", length=0, labelcolor=INK)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
