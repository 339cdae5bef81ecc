"""What public functions make of their arguments. Nothing heavy is imported here."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from zett.errors import UserError


def several(given: str | Path | Iterable[str | Path]) -> list:
    """The items of a list; a single string or path is a list of one, not of its letters."""
    return [given] if isinstance(given, str | os.PathLike) else list(given)


def named_folders(given: str | Path | Iterable[str | Path] | Mapping[str, str | Path]) -> dict[str, str | Path]:
    """Folders by the names that they are given, or by their own. UserError where two have the same."""
    if isinstance(given, Mapping):
        return dict(given)
    named: dict[str, str | Path] = {}
    for folder in several(given):
        name = Path(folder).name
        if name in named:
            raise UserError(
                f"two folders are called {name!r}: {named[name]} and {folder}; give names: {{'en': DIR, 'fr': DIR}}"
            )
        named[name] = folder
    return named


def renamed(name: str, given: Any, old: str, old_given: Any) -> Any:
    """The value of the argument `name`, which may be given by its `old` name. None is none. UserError for both."""
    if given is not None and old_given is not None:
        raise UserError(f"{name} is {given!r}, and {old}, its old name, is {old_given!r}; give {name} alone")
    return old_given if given is None else given
