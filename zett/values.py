"""Values of settings: their ranges and types, from Python or as text."""

import ast
import dataclasses
import difflib
import math
import numbers
import types
import typing

from zett.errors import UserError


@dataclasses.dataclass(frozen=True)
class Within:
    """The range of a number: from `low` to `high`; `above`, `below`: without `low`, without `high`. No NaN is in any.

    The ends are far beyond what has a use, but not so far that a slip of the keyboard takes all memory or never ends.
    """

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: typing.Any) -> bool:
        if not isinstance(value, numbers.Real):
            return False
        number = typing.cast(float, value)
        low = self.low < number if self.above else self.low <= number
        return low and (number < self.high if self.below else number <= self.high)

    def __str__(self) -> str:
        low = f"greater than {self.low:,}" if self.above else f"at least {self.low:,}"
        return f"{low} and {'less than' if self.below else 'at most'} {self.high:,}"


SEED = Within(0, 2**32 - 1)


def check_seed(seed, where: str = "seed") -> None:
    """UserError unless `seed` is one that random numbers can start from."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed not in SEED:
        raise UserError(f"{where} is {seed!r}; it has to be a whole number, {SEED}")


def check_count(value, where: str) -> None:
    """UserError unless `value` is a whole number from 1 on."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise UserError(f"{where} is {value!r}; it has to be a whole number, at least 1")


def nearest(name: str, valid, prefix: str = "") -> str:
    """A hint that names the valid choice closest to `name`, or all of them."""
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f"did you mean {prefix}{close[0]}?" if close else f"there are {', '.join(sorted(valid))}"


def from_dict(values, cls, where: str):
    """The dataclass `cls` from a ConfigDict or dict. UserError names an unknown or ill-typed field and what would be right."""
    values = dict(values.items())
    fields = {f.name: f for f in dataclasses.fields(cls)}
    built = {}
    hints = typing.get_type_hints(cls)
    for name, value in values.items():
        if name not in fields:
            raise UserError(f"{where}.{name} does not exist; {nearest(name, fields, where + '.')}")
        built[name] = checked(value, hints[name], f"{where}.{name}")
    return cls(**built)


def checked(value, hint, where: str):
    """`value` if it is of type `hint`, else UserError.

    Whole numbers are ints or floats, and lists tuples, as asked for.
    """
    if dataclasses.is_dataclass(hint):
        if not hasattr(value, "items"):
            raise UserError(f"{where} is {value!r}; it has to hold fields such as {where}.{dataclasses.fields(hint)[0].name}")
        return from_dict(value, hint, where)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        if value not in typing.get_args(hint):
            raise UserError(f"{where} is {value!r}; it has to be one of {', '.join(map(repr, typing.get_args(hint)))}")
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
        origin = typing.get_origin(hint)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, (tuple, list)):
            raise UserError(f"{where} is {value!r}; it has to be a tuple")
        return tuple(checked(v, typing.get_args(hint)[0], f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 10**300 else math.inf * (1 if value > 0 else -1)
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)  # 1e3
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        what = "a whole number, such as 1000 or 1e3" if hint is int else f"of type {hint.__name__}"
        raise UserError(f"{where} is {value!r} ({type(value).__name__}); it has to be {what}")
    return value


def parse(text: str, hint):
    """`text` as a value of type `hint`; text that is none stays as it is, for the check to report."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if text in ("None", "none", ""):
            return None
        return parse(text, next(h for h in typing.get_args(hint) if h is not type(None)))
    if origin is tuple:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = tuple(part.strip() for part in text.strip("()[]").split(",") if part.strip())
        if not isinstance(value, (tuple, list)):
            value = (value,)
        return tuple(parse(v, typing.get_args(hint)[0]) if isinstance(v, str) else v for v in value)
    if hint is bool:
        return {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}.get(text.lower(), text)
    if hint in (int, float):
        try:
            return int(text, 0) if hint is int else float(text)
        except ValueError:
            pass
        try:
            return float(text)  # 1e3 is a whole number, too
        except ValueError:
            return text
    return text
