"""The report of `zett inspect` about the rows of a model as one HTML page, by the template rows.html.jinja beside this file."""

from zett.inspect.page import filled
from zett.inspect.rows_terminal import head_lines, row_cells

NUMBERS = ("id", "cosine", "norm", "deviations", "nearest of")  # heads of columns of numbers


def rows_page(report: dict) -> str:
    """HTML, self-contained; names of tokens are escaped."""
    sides = [_side(name, found, report["kinds"]) for name, found in report["sides"].items()]
    return filled("rows.html.jinja", report=report, lines=head_lines(report), sides=sides, right=NUMBERS)


def _side(name: str, found: dict, kinds: dict[str, str]) -> dict:
    norm, tables = found["norm"], []
    for kind in filter(lambda kind: found[kind]["number"], kinds):
        heads, rows = row_cells(found[kind])
        more = found[kind]["number"] - len(rows)
        title = f"{name.capitalize()} rows: {kind.replace('_', ' ')}"
        tables.append({"name": title, "heads": heads, "rows": rows, "more": f"{more:,}" if more else ""})
    low, high = (f"{quartile:.4g}" for quartile in norm["quartiles"])
    numbers = [(words, f"{found[kind]['number']:,}") for kind, words in kinds.items()]
    return {"name": name, "median": f"{norm['median']:.4g}", "low": low, "high": high, "kinds": numbers, "tables": tables}
