"""Settings of a method as text: `k=64,donor=DIR` -> checked values of a dataclass's fields."""

import dataclasses
import typing

from zett.errors import UserError
from zett.values import checked, nearest, parse


def settings_of(cls, text: str, where: str, given: dict | None = None) -> dict:
    """Values for the fields of the dataclass `cls` from `text`, and from `given` Python values.

    A first part without a known name and "=" is the field that `cls.first` names, so that "hypernet:DIR" is enough. UserError
    for an unknown field, with the nearest, and for a value that is not of the field's type. where: for the message.
    """
    hints = {field.name: typing.get_type_hints(cls)[field.name] for field in dataclasses.fields(cls)}
    values: dict = {}
    for number, part in enumerate(text.split(",") if text else []):
        name, equals, value = part.partition("=")
        first = getattr(cls, "first", None)
        if number == 0 and first is not None and not (equals and name in hints):
            name, value = first, part
        elif not equals:
            raise UserError(f"{where}: {part!r} is not SETTING=VALUE; {_known(hints)}")
        if name in values:
            raise UserError(f"{where}: {name} is given twice")
        values[name] = parse(value, hints[name]) if name in hints else value
    values |= given or {}
    for name in values:
        if name not in hints:
            raise UserError(f"{where} has no setting {name!r}; {nearest(name, hints) if hints else 'it has none'}")
    return {name: checked(value, hints[name], f"{where}: {name}") for name, value in values.items()}


def _known(hints: dict) -> str:
    return f"its settings are {', '.join(hints)}" if hints else "it has no settings"
