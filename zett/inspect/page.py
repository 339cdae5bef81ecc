"""The report of `zett inspect` as one HTML page, by the template page.html.jinja beside this file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from zett.inspect.plots import NARROW, WIDTH, columns_plot, dots_plot
from zett.inspect.terminal import facts, one_piece_words, premium_rows
from zett.inspect.warnings import HEADINGS

GENERATOR = '<meta name="generator" content="zett inspect">'  # by which a page is known that may be replaced
MOST_SPECIAL = 200  # special tokens that the page lists
_LONGEST = 16  # bytes of the tokens that have bars of their own


def page(report: dict) -> str:
    """HTML, self-contained; all text that comes from tokenizers and files is escaped."""
    return filled(
        "page.html.jinja",
        report=report,
        headings=HEADINGS,
        facts=facts(report["source"], report["target"]),
        one_piece=one_piece_words(report["pair"]),
        special=[token for token in report["special"] if not token["reserved"]][:MOST_SPECIAL],
        most_special=MOST_SPECIAL,
        pieces_plots=_pieces(report["pair"], report["target"]["tokens"]),
        lengths_plots=_lengths(report["source"], report["target"]),
        **(_text(report["text"]) if report["text"] else {}),
        **(_premium(report["premium"]) if report["premium"] else {}),
    )


def filled(template: str, **values: Any) -> str:
    """A template of this folder, with these values escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "thousands": "{:,}".format,
        "percent": "{:.0%}".format,
        "decimals": lambda number, places: f"{number:.{places}f}",
        "last_part": lambda name: name.rstrip("/").rsplit("/", 1)[-1],
    }
    return environment.get_template(template).render(generator=GENERATOR, **values)


def _twice(plot: Callable[..., Any], *given, **settings) -> list:
    """A plot for wide screens, and for phones."""
    return [plot(*given, **settings, across=across) for across in (WIDTH, NARROW)]


def _pieces(pair: dict, tokens: int) -> list:
    size, counts = pair["max_pieces"], {int(n): c for n, c in pair["pieces_per_token"].items()}
    columns = [(str(n), [counts.get(n, 0) / tokens]) for n in range(1, size + 1)]
    columns.append((f"more than {size}", [sum(c for n, c in counts.items() if n > size) / tokens]))
    return _twice(columns_plot, columns, ["new"], "source pieces in a token")


def _lengths(old: dict, new: dict) -> list:
    counts = [{int(n): c for n, c in t["bytes_per_token"].items()} for t in (old, new)]
    sizes = [t["tokens"] for t in (old, new)]
    columns = [(str(n), [c.get(n, 0) / size for c, size in zip(counts, sizes)]) for n in range(1, _LONGEST + 1)]
    longer = [sum(v for n, v in c.items() if n > _LONGEST) / size for c, size in zip(counts, sizes)]
    return _twice(columns_plot, [*columns, (f"more than {_LONGEST}", longer)], ["old", "new"], "bytes")


def _text(text: dict) -> dict:
    languages = sorted(text["languages"].items(), key=lambda item: item[1]["relative_length"])
    points = [(name, (t["source_tokens_per_byte"], t["target_tokens_per_byte"])) for name, t in languages]
    rows = [
        [name, f"{t['bytes']:,}", f"{t['source_tokens']:,}", f"{t['target_tokens']:,}", f"{t['relative_length']:.0%}",
         f"{t['target_shared_share']:.0%}", f"{t['target_longer_share']:.2%}", f"{t['target_unknown']:,}"]
        for name, t in [*languages, *([("all", text["all"])] if len(languages) > 1 else [])]
    ]  # fmt: skip
    return {"text_plots": _twice(dots_plot, points, start=0.0), "text_rows": rows}


def _premium(premium: dict) -> dict:
    languages = sorted(premium["languages"].items(), key=lambda item: -item[1]["target"])
    points = [(name, (p["source"], p["target"])) for name, p in languages]
    return {"premium_plots": _twice(dots_plot, points, start=1.0), "premium_table": premium_rows(languages)}
