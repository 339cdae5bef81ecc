"""`--config FILE[:ARG] --config.a.b=value` -> `Config`, with the syntax of ml_collections.config_flags.

Unlike there, fields that the file leaves out can be set too, and types come from the dataclasses of zett/config.py, so that
None and tuples work; a mistake is one line that names the field.
"""

import dataclasses
import importlib.util
import traceback
import typing
from collections.abc import Iterable
from pathlib import Path

from zett.config import RENAMED, Config, both_names, from_dict, to_dict
from zett.errors import UserError
from zett.values import checked, nearest, parse


def split_overrides(argv: list[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
    """Take `--config.a.b=value`, `--config.a.b value` and `--[no]config.flag` out of `argv`.

    Returns the rest, and pairs such as ("a.b", "value"), with None where the value is missing. UserError for a field that is
    given under two names.
    """
    rest: list[str] = []
    overrides: list[tuple[str, str | None]] = []
    spelled: dict[str, str] = {}  # fields, under which of their names they are given
    remaining = iter(argv)
    for argument in remaining:
        flag, equals, value = argument.partition("=")
        name = flag.lstrip("-")
        if not flag.startswith("-") or not name.startswith(("config.", "noconfig.")):
            rest.append(argument)
            continue
        given = name.split(".", 1)[1]
        path = RENAMED.get(given, given)
        if spelled.setdefault(path, given) != given:
            raise UserError(both_names(next(old for old in (given, spelled[path]) if old in RENAMED), "the command line"))
        if name.startswith("noconfig."):
            overrides.append((path, "false"))
        elif equals:
            overrides.append((path, value))
        elif _hint(path) is bool:
            overrides.append((path, "true"))  # as in absl, a boolean flag does not take the next word
        else:
            overrides.append((path, next(remaining, None)))
    return rest, overrides


def load_config(spec: str, overrides: Iterable[tuple[str, str | None]] = ()) -> Config:
    """The checked config of a file with `get_config()`, which returns a ConfigDict, a dict or a `Config`; "FILE:ARG" calls
    `get_config(ARG)`.

    Raises UserError for a file that cannot be loaded, an unknown field or a value of the wrong type.
    """
    from ml_collections import ConfigDict, config_dict

    values = _get_config(spec)
    if isinstance(values, Config):
        values = to_dict(values)
    if not isinstance(values, ConfigDict):
        values = ConfigDict(values)
    _use_new_names(values)
    for path, text in overrides:
        _override(values, path, text)
    try:
        return from_dict(values)
    except config_dict.RequiredValueError as error:
        raise UserError(f"{spec} leaves a required field open: {error}") from None


def _use_new_names(values) -> None:
    """Give fields of a ConfigDict that have names of earlier versions the present ones. UserError for a field with both."""
    from ml_collections import ConfigDict

    for old, new in RENAMED.items():
        *section, old_field = old.split(".")
        place, field = values.get(section[0]) if section else values, new.split(".")[-1]
        if not isinstance(place, ConfigDict) or old_field not in place:
            continue
        if field in place:
            raise UserError(both_names(old))
        with place.unlocked():
            # With what it refers to, so that a reference follows overrides under its new name, too.
            place[field] = dict(place.items(preserve_field_references=True))[old_field]
            del place[old_field]


def _get_config(spec: str):
    file, _, argument = spec.partition(":")
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"no such config file: {path}{_similar_file(path)}")
    module_spec = importlib.util.spec_from_file_location("zett_run_config", path)
    if module_spec is None or module_spec.loader is None:
        raise UserError(f"{path} is not a Python file; a config file defines get_config()")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"{path} does not define get_config()")
        return module.get_config(argument) if argument else module.get_config()
    except UserError:
        raise
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
        where = f"{path}, line {lines[-1]}" if lines else str(path)
        raise UserError(f"{where}: {type(error).__name__}: {error}") from error


def _similar_file(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    return "; " + nearest(path.name, [p.name for p in path.parent.glob("*.py")] or ["none"], f"{path.parent}/")


def _hint(path: str):
    """The type of the field at "a.b", or UserError."""
    hint: typing.Any = Config
    where = "config"
    for name in path.split("."):
        if not dataclasses.is_dataclass(hint):
            raise UserError(f"{where}.{name} does not exist; {where} holds a value, not fields")
        fields = [f.name for f in dataclasses.fields(hint)]
        if name not in fields:
            raise UserError(f"{where}.{name} does not exist; {nearest(name, fields, where + '.')}{_elsewhere(name)}")
        hint = typing.get_type_hints(hint)[name]
        where = f"{where}.{name}"
    return hint


def _elsewhere(name: str) -> str:
    """A hint at sections that have a field called exactly `name`."""
    hints = typing.get_type_hints(Config)
    found = [s for s, h in hints.items() if dataclasses.is_dataclass(h) and name in {f.name for f in dataclasses.fields(h)}]
    return "".join(f" (there is config.{section}.{name})" for section in found)


def _override(values, path: str, text: str | None) -> None:
    from ml_collections import ConfigDict

    where = f"config.{path}"
    hint = _hint(path)
    if dataclasses.is_dataclass(hint):
        raise UserError(f"{where} is a section; set a field of it, such as --{where}.{dataclasses.fields(hint)[0].name}=VALUE")
    if text is None:
        raise UserError(f"--{where} needs a value: --{where}=VALUE")
    # Checked here already: ConfigDict has its own idea of types, and of fewer of them.
    value = checked(parse(text, hint), hint, where)
    *sections, name = path.split(".")
    for section in sections:
        if section not in values:
            with values.unlocked():
                values[section] = ConfigDict()
        values = values[section]
    with values.unlocked(), values.ignore_type():
        values[name] = value
