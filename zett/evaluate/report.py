"""A `Report` as a table in the terminal."""

import textwrap

from zett.evaluate.excess_report import excess_tables
from zett.evaluate.results import Report
from zett.evaluate.windows import text_words

# Columns of a method as (heading, width, text of a score), from most to least; the table drops some until it fits.
_BITS = ("bpb", 6, lambda s: f"{s.bits_per_byte:.3f}")
_RATIO = ("ratio", 6, lambda s: f"{s.ratio:.3f}")
_ERROR = ("", 6, lambda s: f"±{s.ratio_error:.3f}")
_GAP = ("gap", 5, lambda s: "-" if s.fvt_gap_left is None else f"{s.fvt_gap_left:.0%}")
_SHARE = ("share", 6, lambda s: f"{s.bits_per_byte:.0%}")
_SHARE_ERROR = ("", 5, lambda s: f"±{s.ratio_error:.0%}")
_LAYOUTS = (
    ([_BITS, _RATIO, _ERROR, _GAP], [_BITS, _RATIO]),
    ([_BITS, _RATIO, _ERROR, _GAP], [_RATIO]),
    ([_RATIO, _ERROR, _GAP], [_RATIO]),
    ([_RATIO, _GAP], [_RATIO]),
)


def table(report: Report, width: int = 110) -> str:
    """Plain text: a row for each target, the columns of a method side by side; narrower than `width` if that is possible.

    Below it what else the task says, and where bits are lost, if that was asked for.
    """
    shares = [([_SHARE, _SHARE_ERROR], [_SHARE, _SHARE_ERROR]), ([_SHARE, _SHARE_ERROR], [_SHARE])]
    for ours, baselines in _LAYOUTS if report.lower_is_better else shares:
        columns = {name: baselines if name in report.baselines else ours for name in report.methods}
        lines = _lines(report, columns)
        if max(map(len, lines)) <= width:
            break
    text, original = report.text, report.original
    vocabulary = f"({original['vocab_size']} entries, {original['tokens_per_byte']:.3f} tokens per byte)"
    if report.lower_is_better:
        what = f"{original['bits_per_byte']:.3f} {report.unit} with its own tokenizer {vocabulary}"
        notes = ["", f"ratio: {report.unit} over the original's, ± one standard error"]
        notes[-1] += "; gap: share of what FVT loses that is still lost" if "fvt" in report.methods else ""
    else:
        what = f"as with its own tokenizer {vocabulary}"
        notes = ["", f"share: {report.unit}, ± one standard error"]
    head = [
        f"{report.model}: {what}",
        *textwrap.wrap(f"text: {text_words(text)}, in {text['windows']:,} windows of up to {text['window_bytes']}", width),
        "",
    ]
    for target in report.targets:
        if target.bytes_lost > 0:
            why = f" ({', '.join(target.losses)})" if target.losses else ""
            notes.append(f"* {target.name} drops {_percent(target.bytes_lost)} of the bytes{why}; bits are over all bytes")
    where = excess_tables(report)
    return "\n".join([*head, *lines, *notes, *_details(report), *(["", where] if where else [])])


def _details(report: Report) -> list[str]:
    """What else the task says, a line for each target and method; nothing if it says nothing."""
    said = {"original": report.original.get("details", {})}
    said |= {f"{t.name}, {method}": score.details for t in report.targets for method, score in t.scores.items()}
    columns = list(dict.fromkeys(name for details in said.values() for name in details))
    if not columns:
        return []
    first = max(map(len, said))
    heads = [name.replace("_", " ").replace("bits per byte", "bits/B") for name in columns]
    lines = ["", " " * first + "  " + "  ".join(heads)]
    for row, details in said.items():
        cells = (f"{details[name]:.3f}" if name in details else "-" for name in columns)
        lines.append(f"{row:<{first}}  " + "  ".join(f"{cell:>{len(head)}}" for head, cell in zip(heads, cells)))
    return lines


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
