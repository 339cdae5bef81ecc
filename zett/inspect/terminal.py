"""The report of `zett inspect` as tables for the terminal."""

import textwrap
import unicodedata
from collections.abc import Sequence

from zett.inspect.warnings import HEADINGS
from zett.vocab.bytes import UTF8_BYTES

WIDTH = 112
_BAR = 40  # characters of the longest bar


def tables(report: dict) -> str:
    """Plain text, up to WIDTH wide."""
    old, new, pair = report["source"], report["target"], report["pair"]
    parts = [_facts(old, new), _pieces(pair, new["tokens"]), _special(report["special"], report["advice"])]
    if report["text"]:
        parts.append(_texts(report["text"]))
    if report["premium"]:
        parts.append(_premium(report["premium"]))
    parts.append(_warnings(report["warnings"]))
    return "\n\n".join(parts) + "\n"


def facts(old: dict, new: dict) -> list[tuple[str, str, str]]:
    """Rows of the table of facts: (what, the source's, the target's)."""
    rows = [
        ("ids", _ids),
        ("kind", lambda t: t["kind"]),
        ("normaliser", lambda t: "; ".join(t["normaliser"]) or "none: text stays as it is"),
        ("pre-tokeniser cuts", lambda t: "; ".join(t["pre_tokeniser"])),
        ("adds or rereads", lambda t: "; ".join(t["rules"]) or "nothing"),
        ("loses", lambda t: ", ".join(t["losses"]) or "nothing"),
        ("around a text", lambda t: " ".join([*t["before_text"], "…", *t["after_text"]]) if _framed(t) else "nothing"),
        ("numbers", lambda t: f"{t['digits']['scheme']}: {'|'.join(t['digits']['example'])}"),
        ("bytes per token", lambda t: f"{t['mean_bytes']:.2f} on average, by entry"),
        ("single bytes", lambda t: _single_bytes(t["single_bytes"])),
        ("tokens over spaces", lambda t: f"{t['with_inner_space']:,}"),
        ("same bytes twice", lambda t: f"{t['duplicates']:,}"),
        ("unreachable", lambda t: _unreachable(t["unreachable"])),
        ("chat template", lambda t: "yes" if t["chat_template"] else "none"),
    ]  # fmt: skip
    return [(what, text(old), text(new)) for what, text in rows]


def _ids(t: dict) -> str:
    others = t["without_text"] - t["special"]
    return f"{t['ids']:,}: {t['tokens']:,} tokens of text, {t['special']} special" + (f", {others:,} others" if others else "")


def _single_bytes(number: int) -> str:
    every = len(UTF8_BYTES)
    return f"all {every} that occur in UTF-8 are tokens" if number == every else f"{number} of the {every} in UTF-8 are tokens"


def one_piece_words(pair: dict) -> str:
    """Why the number of tokens in one piece is not the number of tokens in both; "" if it is."""
    ways = (
        ("repeated", "again with the same bytes"), ("normalised", "that are one after the source's normaliser"),
        ("bytes", "single bytes that the source has no token for"), ("cut", "less, which the source itself cuts"),
    )  # fmt: skip
    parts = [f"{pair['one_piece'][way]:,} {words}" for way, words in ways if pair["one_piece"][way]]
    if not parts:
        return ""
    return f"{pair['pieces_per_token'].get('1', 0):,} in 1 piece: {pair['shared']:,} in both, {', '.join(parts)}"


def _framed(t: dict) -> bool:
    return bool(t["before_text"] or t["after_text"])


def _unreachable(lost: dict) -> str:
    if not lost["count"]:
        return "none"
    reasons = ", ".join(f"{reason}: {count:,}" for reason, count in lost["by_reason"].items())
    return f"{lost['count']:,} ({reasons}), such as {' '.join(lost['examples'][:5])}"


def _facts(old: dict, new: dict) -> str:
    rows = [("", "source: " + old["name"], "target: " + new["name"]), *facts(old, new)]
    first = max(len(row[0]) for row in rows)
    width = (WIDTH - first - 6) // 2
    lines = []
    for what, *texts in rows:
        cells = [_wrapped(text, width) for text in texts]
        for n in range(max(map(len, cells))):
            left, right = (cell[n] if n < len(cell) else "" for cell in cells)
            lines.append(f"{what if n == 0 else '':<{first}}   {pad(left, width)}   {right}".rstrip())
        if not what:
            lines.append("─" * WIDTH)
    return "\n".join(lines)


def _pieces(pair: dict, tokens: int) -> str:
    share = f"{pair['shared']:,} tokens are in both: {pair['shared_of_target']:.0%} of the target's, "
    lines = [f"{share}{pair['shared_of_source']:.0%} of the source's. Target tokens in source pieces:", ""]
    size, counts = pair["max_pieces"], {int(n): c for n, c in pair["pieces_per_token"].items()}
    longer = sum(c for n, c in counts.items() if n > size)
    bars = [(str(n), counts.get(n, 0)) for n in range(1, size + 1)] + [(f">{size}", longer)]
    most = max([count for _, count in bars] + [1])
    for label, count in bars:
        lines.append(f"{label:>5}  {count:>9,} {count / tokens:>6.1%}  {'█' * round(_BAR * count / most)}".rstrip())
    lines += textwrap.wrap(one_piece_words(pair), WIDTH, initial_indent=" " * 7, subsequent_indent=" " * 9)
    if pair["longest"]:
        lines.append("       the longest: " + ", ".join(f"{t['token']} ({t['pieces']})" for t in pair["longest"][:5]))
    return "\n".join(lines)


def _special(tokens: list[dict], advice: dict) -> str:
    known = [t for t in tokens if not t["reserved"] and (t["fate"] != "predicted" or t["role"])]
    rows = [(_id(t), t["text"], t["role"], t["fate"], t["source_text"] or "", t["reason"]) for t in known]
    rest = len(tokens) - len(known)
    table = columns(("id", "special token", "role", "row", "of the source's", "why"), rows, right=(0,))
    table += f"\n{rest} more are reserved, or have neither a role nor a partner" if rest else ""
    text = f"recommended: --special {advice['mode']}: {advice['why']}"
    return "\n".join([table, *textwrap.wrap(text, WIDTH, subsequent_indent="  ")])


def _id(token: dict) -> str:
    return "-" if token["id"] is None else str(token["id"])


def _texts(text: dict) -> str:
    rows = []
    entries = [*text["languages"].items(), ("all", text["all"])] if len(text["languages"]) > 1 else text["languages"].items()
    for name, t in entries:
        numbers = (t["source_tokens_per_byte"], t["target_tokens_per_byte"])
        shares = f"{t['target_shared_share']:.0%}", f"{t['target_longer_share']:.2%}", f"{t['target_unknown']:,}"
        rows.append((name, f"{t['bytes']:,}", *(f"{n:.3f}" for n in numbers), f"{t['relative_length']:.0%}", *shares))
    heads = ("text", "bytes", "source tok/B", "target tok/B", "length", "shared", "long", "unknown")
    notes = "\nlength: target over source tokens; of the target's tokens: shared with the source, longer than S, unknown"
    return columns(heads, rows, right=range(1, 8)) + notes


def _premium(premium: dict) -> str:
    heads, rows = premium_rows(sorted(premium["languages"].items(), key=lambda item: -item[1]["target"]))
    note = f"premium: what a language takes for the same content, relative to {premium['reference']}"
    return columns(heads, rows, right=range(1, len(heads))) + "\n" + note


def premium_rows(languages: Sequence[tuple[str, dict]]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of premiums. Unknown tokens are shown if there are any, since lost text looks cheap."""
    heads = ["language", "pairs", "bytes", "source tokens", "target tokens"]
    rows = [[name, f"{p['pairs']:,}", *(f"{p[k]:.2f}" for k in ("bytes", "source", "target"))] for name, p in languages]
    for side in ("source", "target"):
        if any(p[f"{side}_unknown"] for _, p in languages):
            heads.append(f"{side} unknown")
            for row, (_, p) in zip(rows, languages):
                row.append(f"{p[f'{side}_unknown']:.1%}")
    return heads, rows


def _warnings(warnings: list[dict]) -> str:
    if not warnings:
        return "nothing to warn of"
    lines, severity = ["What to know, the gravest first"], None
    for warning in warnings:
        if warning["severity"] != severity:
            severity = warning["severity"]
            lines.append(HEADINGS[severity])
        text = f"{warning['what']} {warning['do']}"
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"• {warning['topic']}: ", subsequent_indent="  ")
    return "\n".join(lines)


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """A table with a rule under its head; columns `right` are right-aligned."""
    widths = [max(map(_width, column)) for column in zip(heads, *rows)]
    lines = [
        "  ".join(pad(cell, width, right=n in right) for n, (cell, width) in enumerate(zip(row, widths))).rstrip()
        for row in (heads, *rows)
    ]
    return "\n".join([lines[0], "─" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width) or [""]


def _width(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def pad(text: str, width: int, *, right: bool = False) -> str:
    space = " " * max(width - _width(text), 0)
    return space + text if right else text + space
