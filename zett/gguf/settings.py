"""Settings of a GGUF file, each read by its type, with errors that name file and key."""

from typing import Any

import numpy as np

from zett.errors import UserError
from zett.gguf.header import Header


class Settings:
    """The settings below `prefix` ("llama."). What was asked for is remembered, so that the rest can be refused."""

    def __init__(self, header: Header, prefix: str):
        self.file, self.prefix = header.file, prefix
        self.values = {k.removeprefix(prefix): v for k, v in header.values.items() if k.startswith(prefix)}
        self.asked: set[str] = set()

    def _get(self, name: str, default: Any, kinds: type | tuple[type, ...], what: str) -> Any:
        self.asked.add(name)
        if name not in self.values:
            if default is Settings.NEEDED:
                raise UserError(f"{self.file} has no setting {self.prefix}{name!s}; a model of this kind needs it")
            return default
        value = self.values[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            shown = f"an array of {len(value):,}" if isinstance(value, list | np.ndarray) else repr(value)
            raise UserError(f"{self.file}: {self.prefix}{name} is {shown}; it has to be {what}")
        return value

    NEEDED: Any = object()

    def whole(self, name: str, default: Any = NEEDED) -> Any:
        """A whole number; of an array with one number for each layer, the one that all layers have."""
        value = self._get(name, default, (int, np.ndarray), "a whole number")
        if not isinstance(value, np.ndarray):
            return value
        if value.dtype.kind not in "iu" or len(set(value.tolist())) != 1:
            raise UserError(f"{self.file}: {self.prefix}{name} differs from layer to layer, which is not computed here")
        return int(value[0])

    def number(self, name: str, default: Any = NEEDED) -> Any:
        """A number; one of 32 bits as the decimal number that it was."""
        value = self._get(name, default, (int, float), "a number")
        return float(f"{value:.7g}") if isinstance(value, float) else value

    def text(self, name: str, default: Any = NEEDED) -> Any:
        return self._get(name, default, str, "a text")

    def flag(self, name: str, default: Any = NEEDED) -> Any:
        return self._get(name, default, bool, "true or false")

    def flags(self, name: str) -> list[bool]:
        found = self._get(name, Settings.NEEDED, list, "an array of truth values")
        if found and not isinstance(found[0], bool):
            raise UserError(f"{self.file}: {self.prefix}{name} is an array of texts; it has to be one of truth values")
        return found

    def texts(self, name: str, default: Any = NEEDED) -> Any:
        found = self._get(name, default, list, "an array of texts")
        if found and not isinstance(found[0], str):
            raise UserError(f"{self.file}: {self.prefix}{name} is an array of truth values; it has to be one of texts")
        return found

    def numbers(self, name: str, default: Any = NEEDED) -> Any:
        return self._get(name, default, np.ndarray, "an array of numbers")

    def check_known(self, ignored: set[str]) -> None:
        """UserError for settings that were not asked for and would change what the model computes."""
        off = (0, False, "", "none")
        unknown = [
            name
            for name, value in self.values.items()
            if name not in self.asked | ignored and not (isinstance(value, int | float | str) and value in off)
        ]
        if unknown:
            names = ", ".join(self.prefix + name for name in sorted(unknown)[:8])
            raise UserError(f"{self.file} has settings that are not known here, and it would be computed wrongly: {names}")
