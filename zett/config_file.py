"""`--config FILE[:ARG] --config.a.b=value` -> `Config`, with the syntax of ml_collections.config_flags.

Unlike there, fields that the file leaves out can be set too, and types come from the dataclasses of zett/config.py, so that
None and tuples work; a mistake is one line that names the field.
"""

import ast
import dataclasses
import importlib.util
import traceback
import types
import typing
from collections.abc import Iterable
from pathlib import Path

from zett import config as config_lib
from zett.errors import UserError


def split_overrides(argv: list[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
    """Take `--config.a.b=value`, `--config.a.b value` and `--[no]config.flag` out of `argv`.

    Returns the rest, and pairs such as ("a.b", "value"), with None where the value is missing.
    """
    rest: list[str] = []
    overrides: list[tuple[str, str | None]] = []
    remaining = iter(argv)
    for argument in remaining:
        flag, equals, value = argument.partition("=")
        name = flag.lstrip("-")
        if not flag.startswith("-") or not name.startswith(("config.", "noconfig.")):
            rest.append(argument)
            continue
        path = name.split(".", 1)[1]
        if name.startswith("noconfig."):
            overrides.append((path, "false"))
        elif equals:
            overrides.append((path, value))
        elif _hint(path) is bool:
            overrides.append((path, "true"))  # as in absl, a boolean flag does not take the next word
        else:
            overrides.append((path, next(remaining, None)))
    return rest, overrides


def load_config(spec: str, overrides: Iterable[tuple[str, str | None]] = ()) -> config_lib.Config:
    """The checked config of a file with `get_config()`; "FILE:ARG" calls `get_config(ARG)`.

    Raises UserError for a file that cannot be loaded, an unknown field or a value of the wrong type.
    """
    from ml_collections import ConfigDict, config_dict

    values = _get_config(spec)
    if not isinstance(values, ConfigDict):
        values = ConfigDict(values)
    for path, text in overrides:
        _override(values, path, text)
    try:
        return config_lib.from_dict(values)
    except config_dict.RequiredValueError as error:
        raise UserError(f"{spec} leaves a required field open: {error}") from None


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
    return "; " + config_lib.nearest(path.name, [p.name for p in path.parent.glob("*.py")] or ["none"], f"{path.parent}/")


def _hint(path: str):
    """The type of the field at "a.b", or UserError."""
    hint: typing.Any = config_lib.Config
    where = "config"
    for name in path.split("."):
        if not dataclasses.is_dataclass(hint):
            raise UserError(f"{where}.{name} does not exist; {where} holds a value, not fields")
        fields = [f.name for f in dataclasses.fields(hint)]
        if name not in fields:
            raise UserError(f"{where}.{name} does not exist; {config_lib.nearest(name, fields, where + '.')}{_elsewhere(name)}")
        hint = typing.get_type_hints(hint)[name]
        where = f"{where}.{name}"
    return hint


def _elsewhere(name: str) -> str:
    """A hint at sections that have a field called exactly `name`."""
    hints = typing.get_type_hints(config_lib.Config)
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
    value = config_lib.checked(_parse(text, hint), hint, where)
    *sections, name = path.split(".")
    for section in sections:
        if section not in values:
            with values.unlocked():
                values[section] = ConfigDict()
        values = values[section]
    with values.unlocked(), values.ignore_type():
        values[name] = value


def _parse(text: str, hint):
    """`text` as a value of type `hint`; text that is none stays as it is, for the check to report."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        if text in ("None", "none", ""):
            return None
        return _parse(text, next(h for h in typing.get_args(hint) if h is not type(None)))
    if origin is tuple:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = tuple(part.strip() for part in text.strip("()[]").split(",") if part.strip())
        if not isinstance(value, (tuple, list)):
            value = (value,)
        return tuple(_parse(v, typing.get_args(hint)[0]) if isinstance(v, str) else v for v in value)
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
