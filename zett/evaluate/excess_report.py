"""Where bits are lost, as tables in the terminal."""

from zett.evaluate.results import ClassExcess, Excess, Report, TargetResult
from zett.inspect.terminal import columns

SHOWN = 10  # of the worst tokens; the JSON has more
_LONGEST = 30  # characters of a token, or of its pieces
_NOTES = """\
Under a method: what the tokens of a class cost beyond what the original needs for the same bytes, in bits for each byte
of the text; the classes of either kind add up to "all". each: in bits a token. Where the original cuts a piece of text
otherwise, its excess is shared among the tokens by what they cost."""


def excess_tables(report: Report) -> str:
    """For each target its classes of tokens by all methods, and which tokens cost most by the first; "" if nobody asked."""
    found = [(target, target.excess) for target in report.targets if target.excess]
    parts = [part for target, excess in found for part in (_classes(target, excess, report), _worst(target, excess))]
    return "\n\n".join([*parts, _NOTES]) if parts else ""


def _classes(target: TargetResult, excess: dict[str, Excess], report: Report) -> str:
    size, first = report.text["bytes"], next(iter(excess.values()))
    tokens = sum(one.tokens for one in first.pieces)
    rows = [_row("all", [ClassExcess("all", tokens, found.bits) for found in excess.values()], tokens, size)]
    for kind in ("pieces", "content"):
        same = zip(*(getattr(found, kind) for found in excess.values()))
        rows += [("",), *(_row(of_class[0].name, of_class, tokens, size) for of_class in same)]
    heads = [target.name, "tokens", "", *(head for name in excess for head in (name, "each"))]
    return columns(heads, [(*row, *[""] * (len(heads) - len(row))) for row in rows], right=range(1, len(heads)))


def _row(name: str, of_class: list[ClassExcess] | tuple[ClassExcess, ...], tokens: int, size: int) -> tuple[str, ...]:
    """A class by all methods. tokens: of all classes. size: bytes of the text."""
    number = of_class[0].tokens
    cells = (cell for one in of_class for cell in (f"{one.bits:.4f}", f"{one.bits * size / number:.2f}" if number else "-"))
    return name, f"{number:,}", f"{number / max(tokens, 1):.0%}", *cells


def _worst(target: TargetResult, excess: dict[str, Excess]) -> str:
    method, found = next(iter(excess.items()))
    heads = (f"{target.name}, {method}: costs most", "in the original's pieces", "times", "bits", "each")
    rows = [
        (_brief(t.token), _brief("|".join(t.pieces)), f"{t.count:,}", f"{t.bits:.1f}", f"{t.bits / t.count:.2f}")
        for t in found.worst[:SHOWN]
    ]
    return columns(heads, rows, right=(2, 3, 4)) if rows else f"{target.name}, {method}: no token costs more"


def _brief(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
