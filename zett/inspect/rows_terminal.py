"""The report of `zett inspect` about the rows of a model as tables for the terminal."""

import textwrap

from zett.inspect.terminal import WIDTH, columns

SHOWN = 8  # rows of a kind


def rows_tables(report: dict) -> str:
    """Plain text, up to WIDTH wide."""
    parts = ["\n".join(textwrap.wrap(line, WIDTH)) for line in head_lines(report)]
    for side, found in report["sides"].items():
        norm = found["norm"]
        low, high = norm["quartiles"]
        parts.append(f"{side} rows: norms {norm['median']:.4g} (median), half of them from {low:.4g} to {high:.4g}")
        rows = [(words, f"{found[kind]['number']:,}") for kind, words in report["kinds"].items()]
        parts.append(columns((f"{side} rows", "number"), rows, right=(1,)))
        parts += [_listed(side, kind, found[kind]) for kind in report["kinds"] if found[kind]["number"]]
    return "\n\n".join(parts) + "\n"


def head_lines(report: dict) -> list[str]:
    """What is looked at, and what to know of its donor."""
    model = report["model"]
    made = f", made by zett {model['command']}" if model["command"] else ""
    made += f" ({model['method']})" if model["method"] else ""
    tied = "; they are its output rows, too" if model["tied"] else ""
    lines = [f"{model['name']}: {model['ids']:,} rows of {model['width']:,} numbers{made}{tied}"]
    return lines + ([f"Donor: {report['donor']}."] if report["donor"] else [])


def row_cells(kind: dict) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of a kind."""
    heads = {"token": "token", "id": "id", "neighbour": "is like", "cosine": "cosine", "norm": "norm",
             "deviations": "deviations", "count": "nearest of"}  # fmt: skip
    formats = {"cosine": "{:.4f}", "norm": "{:.4g}", "deviations": "{:+.1f}", "count": "{:,}"}
    keys = [key for key in heads if key in kind["rows"][0]]
    return [heads[key] for key in keys], [[formats.get(key, "{}").format(row[key]) for key in keys] for row in kind["rows"]]


def _listed(side: str, name: str, kind: dict) -> str:
    heads, rows = row_cells(kind)
    more = kind["number"] - len(rows[:SHOWN])
    table = columns([f"{side}, {name.replace('_', ' ')}", *heads[1:]], rows[:SHOWN], right=range(1, len(heads)))
    return table + (f"\n{more:,} more" if more else "")
