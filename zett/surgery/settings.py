"""Ids of tokens in a model's settings: config.json, generation_config.json and those of processors."""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from zett.errors import UserError
from zett.lms.class_defaults import ID_KEY
from zett.surgery.edit import VocabularyEdit
from zett.vocab.adapt import OLD_TOKEN_SETTINGS

BY_TEXT = re.compile(r"(?!label2).+_to_id|vocabulary_map")  # Whisper's lang_to_id: {"<|en|>": 50259}
# Settings about tokens that may be gone: an entry about a token that no longer exists says nothing.
OPTIONAL = {"bad_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens"}


class Gone(Exception):
    """A setting names a token that went."""


def named_ids(settings: dict, rows: int) -> dict[str, list[int]]:
    """The ids that settings cannot do without, by the names of the settings, also in nested ones. rows: see `follow`."""
    found: dict[str, list[int]] = {}

    def note(key: str, old: int) -> int:
        if key.rpartition(".")[2] not in OPTIONAL:
            found.setdefault(key, []).append(old)
        return old

    _mapped(settings, rows, note)
    return found


def follow(settings: dict, edit: VocabularyEdit, rows: int, where: str) -> dict:
    """Settings with the ids of the edited tokenizer.

    rows: how many the model had. Ids that are negative or have no row mean no token and stay; nested settings with another
    vocab_size, such as those of a sound's codes, have ids of their own. UserError if a token is needed that went.
    """

    def new(key: str, old: int) -> int:
        if (found := edit.id(old)) is not None:
            return found
        if key.rpartition(".")[2] in OPTIONAL:
            raise Gone
        raise UserError(f"{where}: {key} is {old}, which has a row but no token, or a token that would go; keep that token")

    return _mapped(settings, rows, new)


def _mapped(settings: dict, rows: int, new: Callable[[str, int], int], path: str = "") -> dict:
    """Settings with `new(name, id)` for each id of a token with a row."""

    def one(key: str, value: Any) -> Any:
        if isinstance(value, list):
            return [one(key, item) for item in value]
        is_id = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < rows
        return new(path + key, value) if is_id else value

    def items() -> Iterator[tuple[str, Any]]:
        for key, value in settings.items():
            if value is None or (isinstance(value, dict) and value.get("vocab_size", rows) != rows):
                yield key, value
            elif key in OLD_TOKEN_SETTINGS:
                yield key, _entries(key, value, one)
            elif isinstance(value, dict) and BY_TEXT.fullmatch(key):
                yield key, {text: one(key, i) for text, i in value.items()}
            elif isinstance(value, dict):
                yield key, _mapped(value, rows, new, f"{path}{key}.")
            else:
                yield key, one(key, value) if ID_KEY.fullmatch(key) else value

    return {key: value for key, value in items() if not (key in OPTIONAL and value == [])}


def _entries(key: str, value: Any, one: Callable[[str, Any], Any]) -> Any:
    """One of the settings that list tokens, without the entries about tokens that went."""
    if not isinstance(value, list):
        return value
    kept = []
    for entry in value:
        with contextlib.suppress(Gone):
            if key in ("sequence_bias", "forced_decoder_ids"):  # [ids, number], and [position, id]
                a, b = entry
                kept.append([one(key, a), b] if key == "sequence_bias" else [a, one(key, b)])
            else:
                kept.append(one(key, entry))
    return kept
