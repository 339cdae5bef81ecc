"""A `Report` for people and programs: a table in the terminal, report.json, report.png."""

import dataclasses
import math
from pathlib import Path

from zett.evaluate import BASELINES, Report, Score, TargetResult
from zett.files.jsonfile import write_json

JSON_NAME, PLOT_NAME = "report.json", "report.png"


def save(report: Report, folder: str | Path) -> list[Path]:
    """Write report.json and report.png into `folder`, made if missing; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / JSON_NAME, dataclasses.asdict(report))
    temporary = folder / f".{PLOT_NAME}.tmp"
    try:
        figure(report).savefig(temporary, dpi=160, format="png")
        temporary.rename(folder / PLOT_NAME)
    finally:
        temporary.unlink(missing_ok=True)
    return [folder / JSON_NAME, folder / PLOT_NAME]


def load(path: str | Path) -> Report:
    """The report in a folder that `save` wrote, or in a report.json."""
    import json

    path = Path(path)
    content = json.loads((path / JSON_NAME if path.is_dir() else path).read_text())
    for target in content["targets"]:
        target["scores"] = {name: Score(**score) for name, score in target["scores"].items()}
    return Report(**{**content, "targets": [TargetResult(**target) for target in content["targets"]]})


# -------------------------------------------------------------------------------------------------------------- terminal

# Columns of a method as (heading, width, text of a score), from most to least; the table drops some until it fits.
_BITS = ("bpb", 6, lambda s: f"{s.bits_per_byte:.3f}")
_RATIO = ("ratio", 6, lambda s: f"{s.ratio:.3f}")
_ERROR = ("", 6, lambda s: f"±{s.ratio_error:.3f}")
_GAP = ("gap", 5, lambda s: "-" if s.fvt_gap_left is None else f"{s.fvt_gap_left:.0%}")
_LAYOUTS = (
    ([_BITS, _RATIO, _ERROR, _GAP], [_BITS, _RATIO]),
    ([_BITS, _RATIO, _ERROR, _GAP], [_RATIO]),
    ([_RATIO, _ERROR, _GAP], [_RATIO]),
    ([_RATIO, _GAP], [_RATIO]),
)


def table(report: Report, width: int = 110) -> str:
    """Plain text: a row for each target, the columns of a method side by side; narrower than `width` if that is possible."""
    for ours, baselines in _LAYOUTS:
        columns = {name: baselines if name in BASELINES else ours for name in report.methods}
        lines = _lines(report, columns)
        if max(map(len, lines)) <= width:
            break
    text, original = report.text, report.original
    source = f"{text['source']} ({text['split']})" if text["source"] else "given text"
    head = [
        f"{_name(report)}: {original['bits_per_byte']:.3f} {measure(report)} with its own tokenizer "
        f"({original['vocab_size']} entries, {original['tokens_per_byte']:.3f} tokens per byte)",
        f"text: {source}, {text['bytes']} bytes in {text['windows']} windows of up to {text['window_bytes']}",
        "",
    ]
    notes = ["", f"ratio: {measure(report)} over the original's, ± one standard error"]
    notes[-1] += "; gap: share of what FVT loses that is still lost" if "fvt" in report.methods else ""
    for target in report.targets:
        if target.bytes_lost > 0:
            why = f" ({', '.join(target.losses)})" if target.losses else ""
            notes.append(f"* {target.name} drops {_percent(target.bytes_lost)} of the bytes{why}; bits are over all bytes")
    return "\n".join([*head, *lines, *notes])


def measure(report: Report) -> str:
    """What was measured, in words; reports of earlier versions do not say."""
    return report.settings.get("measure", "bits per byte")


def _name(report: Report) -> str:
    return Path(report.base["name"]).name or report.base["name"]


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else f"{share:.2g}"


def _lines(report: Report, columns: dict[str, list]) -> list[str]:
    marks = {t.name: t.name + ("*" if t.bytes_lost > 0 else "") for t in report.targets}
    first = max(len("target"), *map(len, marks.values())) if marks else len("target")
    names, heads = [" " * (first + 22)], [f"{'target':<{first}}  vocab  tok/B length"]
    for method, cells in columns.items():
        wide = sum(size for _, size, _ in cells) + len(cells) - 1
        names.append(f"{method[:wide]:─^{wide}}")
        heads.append(" ".join(f"{heading:>{size}}" for heading, size, _ in cells))
    lines = ["  ".join(names), "  ".join(heads)]
    lines.append("─" * max(map(len, lines)))
    for t in report.targets:
        row = [f"{marks[t.name]:<{first}} {t.vocab_size:>6} {t.tokens_per_byte:>6.3f} {t.relative_length:>6.0%} "]
        for method, cells in columns.items():
            row.append(" ".join(f"{text(t.scores[method]):>{size}}" for _, size, text in cells))
        lines.append("  ".join(row))
    return lines


# ------------------------------------------------------------------------------------------------------------------ plot

# Okabe and Ito's colours, which people with any colour vision tell apart; hypernetworks in strong ones, baselines in others.
_OURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
_BASELINE = {"fvt": "#E69F00", "mean": "#8C8C8C", "random": "#BDBDBD"}
_MARKER = {"fvt": "s", "mean": "D", "random": "X"}
_INK, _FAINT = "#222222", "#DDDDDD"
_WHITE_EDGE = {"markeredgecolor": "white", "markeredgewidth": 0.8}


def figure(report: Report):
    """A matplotlib Figure: ratio to the original by target and method, and sequence lengths beside it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = len(report.targets)
    fig = Figure(figsize=(10, 1.9 + 0.62 * rows), layout="constrained")
    FigureCanvasAgg(fig)
    ratios, lengths = fig.subplots(1, 2, sharey=True, width_ratios=[3.4, 1])
    _draw_ratios(ratios, report)
    _draw_lengths(lengths, report)
    ratios.set_yticks(range(rows), [t.name for t in report.targets], color=_INK)
    ratios.set_ylim(rows - 0.45, -0.75)
    for axes in (ratios, lengths):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(_FAINT)
        axes.tick_params(axis="both", length=0, labelcolor=_INK)
    bits, text = report.original["bits_per_byte"], report.text
    fig.suptitle(
        f"{_name(report)} with tokenizers it was not trained with", x=0.012, ha="left", color=_INK, fontsize=14, weight="bold"
    )
    source = text["source"] or "given text"
    fig.supxlabel(
        f"1× is the original model with its own tokenizer: {bits:.3f} {measure(report)} "
        f"on {text['bytes'] / 1024:.0f} KiB of held-out text ({source}), in windows of {text['window_bytes']} bytes",
        x=0.012, ha="left", color="#666666", fontsize=8.5,
    )  # fmt: skip
    return fig


def _styles(methods: list[str]) -> dict[str, dict]:
    ours = [m for m in methods if m not in BASELINES]
    styles = {m: {"color": _OURS[i % len(_OURS)], "marker": "o", "markersize": 10} for i, m in enumerate(ours)}
    styles |= {m: {"color": _BASELINE[m], "marker": _MARKER[m], "markersize": 7} for m in methods if m in BASELINES}
    return styles


def _draw_ratios(axes, report: Report) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    styles = _styles(report.methods)
    every = [score.ratio for t in report.targets for score in t.scores.values()]
    axes.set_xscale("log")
    low, high = min(0.97, *every) if every else 0.97, max([1.1, *every])
    axes.set_xlim(low * 0.985, high * (high / low) ** 0.06)
    axes.axvline(1, color=_INK, linewidth=1.2, zorder=1)
    best_ours = [m for m in report.methods if m not in BASELINES]
    for y, target in enumerate(report.targets):
        scores = target.scores
        axes.axhline(y, color=_FAINT, linewidth=0.8, zorder=0)
        if best_ours and "fvt" in scores:  # what the hypernetwork gains over the best simple method
            best = min((scores[m].ratio, m) for m in best_ours)
            axes.plot([best[0], scores["fvt"].ratio], [y, y], color=styles[best[1]]["color"], alpha=0.3, linewidth=5, zorder=2,
                      solid_capstyle="butt")  # fmt: skip
        for method, score in scores.items():
            style = {**styles[method], "ecolor": styles[method]["color"], "zorder": 4 if method in best_ours else 3}
            axes.errorbar(score.ratio, y, xerr=score.ratio_error, elinewidth=1, linestyle="none", **_WHITE_EDGE, **style)
        for i, method in enumerate(best_ours or report.methods[:1]):
            # Above and below by turns: two hypernetworks are often close together.
            up = 12 if i % 2 == 0 else -13
            label = {"color": styles[method]["color"], "fontsize": 8.5, "weight": "bold", "ha": "center", "va": "center"}
            label["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            axes.annotate(
                f"{scores[method].ratio:.2f}×", (scores[method].ratio, y), (0, up), textcoords="offset points", **label
            )
    ticks = [t for t in (1, 1.1, 1.2, 1.5, 2, 3, 4, 5, 7, 10, 15, 20, 30) if low <= t <= high * 1.05]
    # Labels of neighbouring ticks must not touch.
    room = math.log(high / low) / 14
    kept: list[float] = []
    for tick in ticks:
        if not kept or math.log(tick / kept[-1]) > room:
            kept.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(kept))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
    axes.grid(axis="x", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title(f"{measure(report)}, relative to the original", loc="left", fontsize=10, color=_INK, pad=24)
    handles = [axes.plot([], [], linestyle="none", markeredgecolor="white", label=m, **styles[m])[0] for m in report.methods]
    axes.legend(handles=handles, ncols=max(len(handles), 1), loc="lower left", bbox_to_anchor=(-0.01, 1.0), frameon=False,
                fontsize=9, handletextpad=0.1, columnspacing=1.2, borderaxespad=0.1, labelcolor=_INK)  # fmt: skip


def _draw_lengths(axes, report: Report) -> None:
    values = [t.relative_length for t in report.targets]
    axes.barh(range(len(values)), values, height=0.36, color="#A9C4D6")
    axes.axvline(1, color=_INK, linewidth=1.2)
    for y, value in enumerate(values):
        label = {"textcoords": "offset points", "va": "center", "fontsize": 8.5, "color": _INK}
        axes.annotate(f"{value:.2f}×", (max(value, 1), y), (5, 0), **label)
    axes.set_xlim(0, max([1, *values]) * 1.3)
    axes.set_xticks([0, 1], ["0", "1×"])
    axes.set_title("sequence length", loc="left", fontsize=10, color=_INK, pad=24)
    axes.tick_params(axis="y", labelleft=False)
