"""A `Report` as a picture."""

import math
import textwrap

from zett.evaluate.results import Report
from zett.evaluate.windows import text_words

# Okabe and Ito's colours, which people with any colour vision tell apart; hypernetworks in strong ones, baselines in others.
_OURS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9")
_BASELINE = {"fvt": "#E69F00", "weighted": "#B8860B", "first_last": "#F2CF8D", "mean": "#8C8C8C", "random": "#BDBDBD"}
INK, SOFT, FAINT, _WORSE = "#222222", "#666666", "#DDDDDD", "#B4232A"
_LANE, _GAP_INCHES = 0.165, 0.24  # inches that a method takes, and that two targets are apart


def figure(report: Report):
    """A matplotlib Figure: ratio to the original by target and method, and sequence lengths beside it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [textwrap.wrap(t.name, 26) for t in report.targets]
    # A row of lanes for each target, in inches, so that neither methods nor long names touch one another.
    tall = [max(_LANE * len(report.methods), 0.18 * len(lines)) + _GAP_INCHES for lines in names]
    middles = [sum(tall[:n]) + size / 2 for n, size in enumerate(tall)]
    title = textwrap.wrap(f"{report.model} with tokenizers it was not trained with", 68)
    columns = max(1, min(len(report.methods), 80 // (5 + max(map(len, report.methods), default=1))))
    legend = 0.22 * -(-len(report.methods) // columns)  # inches
    fig = Figure(figsize=(10, sum(tall) + 0.3 * len(title) + legend + 1.1), layout="constrained")
    FigureCanvasAgg(fig)
    ratios, lengths = fig.subplots(1, 2, sharey=True, width_ratios=[3.4, 1])
    handles = _draw_ratios(ratios, report, middles)
    _draw_lengths(lengths, report, middles)
    ratios.set_yticks(middles, ["\n".join(lines) for lines in names], color=INK)
    ratios.set_ylim(sum(tall), 0)
    for axes in (ratios, lengths):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(FAINT)
        axes.tick_params(axis="both", length=0, labelcolor=INK)
        axes.set_axisbelow(True)
        axes.set_title(axes.get_title("left"), loc="left", fontsize=10, color=INK, pad=8 + 72 * legend)
    ratios.legend(handles=handles, ncols=columns, loc="lower left", bbox_to_anchor=(-0.01, 1), borderaxespad=0.1, frameon=False,
                  fontsize=9, handlelength=1.2, handleheight=0.8, columnspacing=1.4, labelcolor=INK)  # fmt: skip
    fig.suptitle("\n".join(title), x=0.012, ha="left", color=INK, fontsize=14, weight="bold")
    bits, text = report.original["bits_per_byte"], report.text
    number = f": {bits:.3f} {report.unit}" if report.lower_is_better else ""
    foot = (
        f"1× is the original model with its own tokenizer{number}. "
        f"Text: {text_words(text, short=True)}, in windows of up to {text['window_bytes']}. Whiskers: one standard error."
    )
    fig.supxlabel("\n".join(textwrap.wrap(foot, 150)), x=0.012, ha="left", color=SOFT, fontsize=8.5)
    return fig


def styles(report: Report) -> dict[str, dict]:
    """How the bars of each method look."""
    methods, baselines = report.methods, report.baselines
    ours = [m for m in methods if m not in baselines]
    # More hypernetworks than colours are told apart by hatching.
    hatches = (None, "////", "....", "xxxx")
    of_ours = {
        m: {"facecolor": _OURS[i % len(_OURS)], "hatch": hatches[i // len(_OURS) % len(hatches)], "edgecolor": "white"}
        for i, m in enumerate(ours)
    }
    return of_ours | {m: {"facecolor": _BASELINE.get(m, "#A0A0A0")} for m in methods if m in baselines}


def _draw_ratios(axes, report: Report, middles: list[float]) -> list:
    """Bars from 1×, a lane for each method; returns what the legend shows."""
    from matplotlib.patches import Patch

    looks, methods = styles(report), report.methods
    ends = [
        end
        for t in report.targets
        for s in t.scores.values()
        for end in (s.ratio, s.ratio - s.ratio_error, s.ratio + s.ratio_error)
        if math.isfinite(end) and end > 0
    ]
    low, high = min([1.0, *ends]), max([1.02, *ends])
    if report.lower_is_better:
        _ratio_axis(axes, low, high)
    else:
        axes.set_xlim(0, 1.27)
    axes.axvline(1, color=INK, linewidth=1.2, zorder=3)
    digits, sign = 3 if high < 1.1 else 2, 1 if report.lower_is_better else -1
    for middle, target in zip(middles, report.targets):
        fvt = target.scores.get("fvt")
        for lane, method in enumerate(methods):
            score, y = target.scores[method], middle + (lane - (len(methods) - 1) / 2) * _LANE
            ours = method not in report.baselines
            finite = math.isfinite(score.ratio)
            worse = ours and finite and fvt is not None and sign * (score.ratio - fvt.ratio) > 0
            ends = [1.0]
            if finite:
                axes.barh(y, score.ratio - 1, left=1, height=0.82 * _LANE, linewidth=0, zorder=2, **looks[method])
                error = min(score.ratio_error, 0.999 * score.ratio)  # a logarithmic axis has no place for 0
                axes.errorbar(score.ratio, y, xerr=[[error], [score.ratio_error]], ecolor=INK, elinewidth=0.8, zorder=4)
                ends += [score.ratio + score.ratio_error]
            text = f"{score.ratio:.{digits}f}×" if score.ratio < 100 else f"{score.ratio:,.0f}×"
            label = {"fontsize": 7.5, "va": "center_baseline", "weight": "bold" if ours else "normal"}
            label["color"] = _WORSE if worse or not finite else looks[method]["facecolor"] if ours else SOFT
            words = f"{text}, worse than fvt" if worse else text if finite else "no number"
            axes.annotate(words, (max(ends), y), (4, 0), textcoords="offset points", **label)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    how = "over the original's, on a logarithmic scale; further left" if report.lower_is_better else "(share); further right"
    axes.set_title(f"{report.unit} {how} is better", loc="left")
    return [Patch(label=m, linewidth=0, **looks[m]) for m in methods]


def _ratio_axis(axes, low: float, high: float) -> None:
    """A logarithmic axis from `low` to `high` with room for the labels of bars, and ticks whose labels do not touch."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    span = math.log(high / low)
    left, right = low * math.exp(-0.02 * span), high * math.exp(0.27 * span)
    axes.set_xlim(left, right)
    steps = [1, 1.01, 1.02, 1.03, 1.05, 1.1, 1.2, 1.3, 1.5, 2, 3, 4, 5, 7]
    ticks = [step * 10.0**power for power in range(-3, 7) for step in (steps if power == 0 else (1, 1.5, 2, 3, 5, 7))]
    ticks += [0.8, 0.9, 0.95, 0.98]
    kept = [1.0]
    for tick in sorted((t for t in ticks if left <= t <= right), key=lambda t: abs(math.log(t))):
        if all(abs(math.log(tick / other)) > math.log(right / left) / 11 for other in kept):
            kept.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(sorted(kept)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}×"))


def _draw_lengths(axes, report: Report, middles: list[float]) -> None:
    values = [t.relative_length for t in report.targets]
    axes.barh(middles, values, height=0.24, color="#A9C4D6")
    axes.axvline(1, color=INK, linewidth=1.2)
    for y, value in zip(middles, values):
        label = {"textcoords": "offset points", "va": "center_baseline", "fontsize": 8.5, "color": INK}
        axes.annotate(f"{value:.2f}×", (max(value, 1), y), (5, 0), **label)
    axes.set_xlim(0, max([1, *values]) * 1.45)
    axes.set_xticks([0, 1], ["0", "1×"])
    axes.set_title("tokens in the text", loc="left")
    axes.tick_params(axis="y", labelleft=False)
