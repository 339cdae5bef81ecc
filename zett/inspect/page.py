"""The report of `zett inspect` as one HTML page: no scripts, nothing loaded, light and dark."""

import math
from collections.abc import Callable, Sequence
from html import escape

from zett.inspect.terminal import facts, one_piece_words, premium_rows
from zett.inspect.warnings import HEADINGS

# Okabe and Ito's colours, which people with any colour vision tell apart.
_STYLE = """
:root { --paper: #fdfdfc; --ink: #1d2023; --soft: #62686e; --line: #dfe2e5; --panel: #f2f3f5; --old: #0072b2; --new: #d55e00;
  --mark: #b4232a; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181a; --ink: #e6e8ea; --soft: #9aa1a8; --line: #33383d; --panel: #212427; --old: #56b4e9; --new: #e69f00;
    --mark: #ff8a80; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.1rem; margin: 2.6rem 0 .6rem; }
h1 span, code { overflow-wrap: anywhere; }
p { margin: .3rem 0; }
.old { color: var(--old); }
.new { color: var(--new); }
.soft, th { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
td, th { padding: .32rem .7rem .32rem 0; border-bottom: 1px solid var(--line); vertical-align: top; text-align: left; }
th { font-weight: 500; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
table.facts td { width: 50%; }
table.facts td:first-child { width: auto; min-width: 9rem; color: var(--soft); }
code { font: .88em ui-monospace, "Cascadia Mono", Menlo, Consolas, monospace; background: var(--panel); border-radius: 4px;
  padding: .08em .32em; white-space: pre-wrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .7rem; margin: 1.3rem 0; }
.tile { background: var(--panel); border-radius: 8px; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.45rem; font-weight: 600; }
.tile span { color: var(--soft); font-size: .85rem; }
ul.warnings { list-style: none; padding: 0; }
ul.warnings li { border-left: 3px solid var(--mark); padding: .1rem 0 .1rem .9rem; margin: .8rem 0; }
ul.warnings b { display: block; font-size: .8rem; letter-spacing: .04em; text-transform: uppercase; color: var(--mark); }
ul.warnings .low { border-color: var(--line); }
ul.warnings .low b { color: var(--soft); }
ul.warnings em { display: block; font-style: normal; color: var(--soft); }
summary { cursor: pointer; color: var(--soft); margin: .4rem 0; }
.legend span { margin-right: 1.2em; font-size: .88rem; }
.legend span::before { content: ""; display: inline-block; width: .7em; height: .7em; border-radius: 2px; margin-right: .4em;
  background: currentColor; }
svg { display: block; width: 100%; height: auto; margin: .4rem 0; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); }
svg text.soft { fill: var(--soft); }
svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--soft); }
svg .old { fill: var(--old); }
svg .new { fill: var(--new); }
svg .link { stroke: var(--line); stroke-width: 3; }
.narrow { display: none; }
@media (max-width: 40rem) {
  body { padding: 1.4rem 1rem 3rem; }
  .wide { display: none; }
  .narrow { display: block; }
  td, th { padding-right: .5rem; }
  th.n { white-space: normal; vertical-align: bottom; }
  .scroll td:first-child, .scroll th:first-child { position: sticky; left: 0; background: var(--paper); }
  table.facts tr { display: grid; grid-template-columns: 1fr 1fr; border-bottom: 1px solid var(--line); padding: .3rem 0; }
  table.facts td, table.facts th { border: 0; width: auto; padding-block: 0; overflow-wrap: anywhere; }
  table.facts td:first-child, table.facts th:first-child { grid-column: 1 / -1; position: static; font-size: .82rem; }
}
"""
WIDTH, NARROW = 880, 390  # of plots, in their own units: each is drawn for wide screens and for phones, so that text is legible
GENERATOR = '<meta name="generator" content="zett inspect">'  # by which a page is known that may be replaced


def page(report: dict) -> str:
    """HTML, self-contained; all text that comes from tokenizers and files is escaped."""
    old, new = report["source"], report["target"]
    sections = [_head(report), _warnings(report["warnings"]), _facts(old, new), _pieces(report), _lengths(old, new)]
    if report["text"]:
        sections.append(_texts(report["text"]))
    if report["premium"]:
        sections.append(_premium(report["premium"]))
    sections += [_special(report["special"], report["advice"]), _unreachable(old, new)]
    title = escape(f"{_short(new['name'])} for a model with {_short(old['name'])}")
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n{GENERATOR}\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{title}</title>\n<style>{_STYLE}</style>\n'
        + "\n".join(filter(None, sections))
        + "\n</html>\n"
    )


def _short(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1]


def _head(report: dict) -> str:
    old, new, pair = report["source"], report["target"], report["pair"]
    tiles = [
        (f"{old['ids']:,} → {new['ids']:,}", "ids"),
        (f"{pair['shared_of_target']:.0%}", "of the target's tokens are tokens of the source"),
        (f"{pair['mean_pieces']:.2f}", "source pieces in a target token, on average"),
    ]
    if report["text"]:
        tiles.append((f"{report['text']['all']['relative_length']:.0%}", "of the source's length for the given text"))
    boxes = "".join(f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>' for value, what in tiles)
    names = [f'<span class="{side}">{escape(_short(t["name"]))}</span>' for side, t in (("old", old), ("new", new))]
    return (
        f"<h1>{names[1]} for a model with {names[0]}</h1>\n"
        f'<p class="soft">source {_code(old["name"])} target {_code(new["name"])}</p>\n<div class="tiles">{boxes}</div>'
    )


def _warnings(warnings: list[dict]) -> str:
    if not warnings:
        return "<h2>What to know</h2>\n<p>Nothing to warn of.</p>"
    items = (
        f'<li class="{w["severity"]}"><b>{HEADINGS[w["severity"]]} {escape(w["topic"])}</b>{escape(w["what"])}'
        f"<em>{escape(w['do'])}</em></li>"
        for w in warnings
    )  # fmt: skip
    return f'<h2>What to know</h2>\n<ul class="warnings">{"".join(items)}</ul>'


def _facts(old: dict, new: dict) -> str:
    rows = "".join(f"<tr><td>{escape(a)}<td>{escape(b)}<td>{escape(c)}" for a, b, c in facts(old, new))
    cuts = [" ".join(_code(p.replace(" ", "␣").replace("\n", "⏎")) for p in t["cut_sample"]) for t in (old, new)]
    rows += f'<tr class="cut"><td>a text, as it is cut<td>{cuts[0]}<td>{cuts[1]}'
    head = '<tr><th><th class="old">source<th class="new">target'
    return f'<h2>The two tokenizers</h2>\n<div class="scroll"><table class="facts">{head}{rows}</table></div>'


def _pieces(report: dict) -> str:
    pair, tokens = report["pair"], report["target"]["tokens"]
    size, counts = pair["max_pieces"], {int(n): c for n, c in pair["pieces_per_token"].items()}
    bars = [(str(n), [counts.get(n, 0) / tokens]) for n in range(1, size + 1)]
    bars.append((f"more than {size}", [sum(c for n, c in counts.items() if n > size) / tokens]))
    longest = " ".join(_code(f"{t['token']} {t['pieces']}") for t in pair["longest"])
    note = f"<p class='soft'>Longer than a hypernetwork reads (S = {size}), with their pieces: {longest}</p>" if longest else ""
    text = f"{pair['shared']:,} tokens are in both, {pair['shared_of_source']:.0%} of the source's."
    how = one_piece_words(pair)
    note += f"<p class='soft'>{escape(how)}.</p>" if how else ""
    plot = _both(columns_plot, bars, ["new"], "source pieces in a token")
    return f"<h2>Target tokens in source pieces</h2>\n<p>{text}</p>\n{plot}{note}"


def _lengths(old: dict, new: dict) -> str:
    most = 16
    counts = [{int(n): c for n, c in t["bytes_per_token"].items()} for t in (old, new)]
    sizes = [t["tokens"] for t in (old, new)]
    bars = [(str(n), [c.get(n, 0) / size for c, size in zip(counts, sizes)]) for n in range(1, most + 1)]
    bars.append((f"more than {most}", [sum(v for n, v in c.items() if n > most) / s for c, s in zip(counts, sizes)]))
    return f"<h2>Bytes in a token</h2>\n{_LEGEND}\n{_both(columns_plot, bars, ['old', 'new'], 'bytes')}"


def _texts(text: dict) -> str:
    languages = sorted(text["languages"].items(), key=lambda item: item[1]["relative_length"])
    points = [(name, (t["source_tokens_per_byte"], t["target_tokens_per_byte"])) for name, t in languages]
    heads = ["text", "bytes", "source tokens", "target tokens", "length", "shared", "longer than S", "unknown"]
    rows = [
        [name, f"{t['bytes']:,}", f"{t['source_tokens']:,}", f"{t['target_tokens']:,}", f"{t['relative_length']:.0%}",
         f"{t['target_shared_share']:.0%}", f"{t['target_longer_share']:.2%}", f"{t['target_unknown']:,}"]
        for name, t in [*languages, *([("all", text["all"])] if len(languages) > 1 else [])]
    ]  # fmt: skip
    return (
        f"<h2>Tokens per byte of text</h2>\n{_LEGEND}\n{_both(dots_plot, points, start=0.0)}\n"
        f"{_table(heads, rows)}\n<p class='soft'>length: target tokens over source tokens; shared, longer than S, unknown: "
        "of the target's tokens.</p>"
    )


def _premium(premium: dict) -> str:
    languages = sorted(premium["languages"].items(), key=lambda item: -item[1]["target"])
    points = [(name, (p["source"], p["target"])) for name, p in languages]
    heads, rows = premium_rows(languages)
    reference = escape(premium["reference"])
    return (
        f"<h2>Token premium</h2>\n<p>Tokens for the same content, relative to {reference} (1).</p>\n{_LEGEND}\n"
        f"{_both(dots_plot, points, start=1.0)}\n<details><summary>Numbers</summary>{_table(heads, rows)}</details>"
    )


def _special(tokens: list[dict], advice: dict) -> str:
    listed = [t for t in tokens if not t["reserved"]][:200]
    rows = [
        ["" if t["id"] is None else str(t["id"]), t["text"], t["role"], t["fate"], t["source_text"] or "", t["reason"]]
        for t in listed
    ]
    rest = len(tokens) - len(listed)
    note = f"<p class='soft'>{rest} more are not listed: reserved ones, and what is beyond 200.</p>" if rest else ""
    body = "".join(
        f'<tr><td class="n">{i}<td>{_code(text)}<td>{escape(role)}<td>{fate}<td>{_code(of) if of else ""}<td>{escape(why)}'
        for i, text, role, fate, of, why in rows
    )
    head = '<tr><th class="n">id<th>token<th>role<th>its row<th>of the source\'s<th>why'
    explained = (
        "copied: the source's row of the same token; paired: of another one, for the reason given; predicted: no counterpart, "
        "made up; dropped: in the source only."
    )
    table = f'<div class="scroll"><table>{head}{body}</table></div>'
    advised = f"<p>Recommended: {_code('--special ' + advice['mode'])}, because {escape(advice['why'])}.</p>"
    return f"<h2>Special tokens</h2>\n{advised}\n{table}\n{note}<p class='soft'>{explained}</p>"


def _unreachable(old: dict, new: dict) -> str:
    parts = []
    for side, t in (("source", old), ("target", new)):
        if t["unreachable"]["count"]:
            shown = " ".join(map(_code, t["unreachable"]["examples"]))
            parts.append(f"<p>{t['unreachable']['count']:,} of the {side}: {shown}</p>")
    return "<h2>Tokens that come out of no text</h2>\n" + "\n".join(parts) if parts else ""


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column is text, the others are numbers."""
    head = "".join(f"<th{'' if n == 0 else ' class=n'}>{escape(h)}" for n, h in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(f"<td{'' if n == 0 else ' class=n'}>{escape(c)}" for n, c in enumerate(row)) for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}{body}</table></div>'


# ----------------------------------------------------------------------------------------------------------------- plots

_LEGEND = '<p class="legend"><span class="old">source</span><span class="new">target</span></p>'


_TEXT = 7  # the most that a character takes in plots, on average, in their units


def _both(plot: Callable[..., str], *given, **settings) -> str:
    sizes = (("wide", WIDTH), ("narrow", NARROW))
    return "".join(f'<div class="{name}">{plot(*given, **settings, across=across)}</div>' for name, across in sizes)


def columns_plot(bars: Sequence[tuple[str, Sequence[float]]], sides: Sequence[str], label: str, *, across: int = WIDTH) -> str:
    """SVG: shares as upright bars, one for each of `sides` ("old", "new") at every label."""
    height, left, bottom = 240, 44, 44
    right = across - 6
    top = max([share for _, shares in bars for share in shares] + [0.01])
    step = _step(top / 4)
    scale = (height - bottom - 16) / top
    slot = (right - left) / len(bars)
    width = min(slot * 0.74 / len(sides), 46)
    # As many labels as there is room for, the last among them.
    every = math.ceil(_TEXT * max(len(_brief(name)) for name, _ in bars) / slot)
    parts = [_svg(across, height)]
    for n in range(int(top / step + 1e-9) + 1):
        y = height - bottom - n * step * scale
        tick = f"{100 * n * step:g}%"
        parts.append(f'<line class="grid" x1="{left}" x2="{across}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="soft" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    for n, (name, shares) in enumerate(bars):
        middle = left + slot * (n + 0.5)
        for k, (side, share) in enumerate(zip(sides, shares)):
            x = middle + (k - len(sides) / 2) * width
            size = share * scale
            box = f'x="{x:.1f}" y="{height - bottom - size:.1f}" width="{width - 1:.1f}" height="{size:.1f}"'
            parts.append(
                f'<rect class="{side}" {box} rx="1.5"><title>{escape(name)} {escape(label)}: {share:.2%}</title></rect>'
            )
            if len(sides) == 1 and share > 0 and slot > _TEXT * len(_percent(share)):
                y = height - bottom - size - 5
                parts.append(f'<text class="soft" x="{middle:.1f}" y="{y:.1f}" text-anchor="middle">{_percent(share)}</text>')
        if (len(bars) - 1 - n) % every == 0:
            parts.append(
                f'<text x="{middle:.1f}" y="{height - bottom + 17}" text-anchor="middle">{escape(_brief(name))}</text>'
            )
    middle = left + (across - left) / 2
    parts.append(f'<text class="soft" x="{middle}" y="{height - 6}" text-anchor="middle">{escape(label)}</text></svg>')
    return "".join(parts)


def _brief(name: str) -> str:
    return name.replace("more than ", ">")


def dots_plot(rows: Sequence[tuple[str, Sequence[float]]], *, start: float, across: int = WIDTH) -> str:
    """SVG: a row for each name with the source's and the target's value as two dots on a line."""
    line, foot = 22, 30
    left = 22 + _TEXT * max([len(name[:18]) for name, _ in rows], default=0)
    height = line * len(rows) + foot + 6
    low = min([start] + [value for _, values in rows for value in values])
    high = max([value for _, values in rows for value in values] + [start + 0.1]) * 1.03
    scale = (across - left - 20) / (high - low)
    step = _step((high - low) / (across / 73))
    axis = left + (start - low) * scale
    parts = [_svg(across, height), f'<line class="axis" x1="{axis:.1f}" x2="{axis:.1f}" y1="0" y2="{height - foot}"/>']
    for n in range(math.ceil(low / step - 1e-9), int(high / step + 1e-9) + 1):
        x = left + (n * step - low) * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - foot}"/>')
        parts.append(f'<text class="soft" x="{x:.1f}" y="{height - foot + 18}" text-anchor="middle">{n * step:g}</text>')
    for n, (name, values) in enumerate(rows):
        y = line * n + line / 2 + 2
        xs = [left + (value - low) * scale for value in values]
        parts.append(f'<text x="{left - 14}" y="{y + 4:.1f}" text-anchor="end">{escape(name[:18])}</text>')
        parts.append(f'<line class="link" x1="{min(xs):.1f}" x2="{max(xs):.1f}" y1="{y}" y2="{y}"/>')
        for side, x, value in zip(("old", "new"), xs, values):
            parts.append(
                f'<circle class="{side}" cx="{x:.1f}" cy="{y}" r="5"><title>{escape(name)}: {value:.3f}</title></circle>'
            )
    return "".join(parts) + "</svg>"


def _svg(across: int, height: float) -> str:
    return f'<svg viewBox="0 0 {across} {height}" role="img">'


def _percent(share: float) -> str:
    return (
        f"{share:.0%}" if share == 0 or share >= 0.095 else f"{share:.1%}" if share >= 0.001 else "<0.1%".replace("<", "&lt;")
    )


def _step(least: float) -> float:
    """The next round number: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * m for m in (1, 2, 5, 10) if power * m >= least - 1e-12)
