"""Tokens that only the files beside tokenizer.json name. Transformers appends them when it loads a tokenizer's folder.

They are read and numbered here as Transformers 5 does it, so that each of them gets a row; without one, the model would fail.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zett.files.jsonfile import json_or_empty

# In Transformers' order. Other settings that end in "_token" come after these, and extra special tokens last.
ROLE_SETTINGS = tuple(f"{role}_token" for role in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))
EXTRA, NAMED = "extra_special_tokens", "model_specific_special_tokens"


def append_named(tokenizer: Any, folder: Path, rows: int | None = None) -> None:
    """Add to a `tokenizers.Tokenizer` the tokens that it lacks and the files in `folder` name.

    rows: how many rows the model has whose tokenizer it is, if any; a token that would have no row is left out.
    """
    added = tokenizer.get_added_tokens_decoder()
    number = max(tokenizer.get_vocab_size(with_added_tokens=False), *(i + 1 for i in added), 0)  # as the library counts
    for token in _named(_settings(folder), tokenizer.padding, added):
        if token.content and tokenizer.token_to_id(token.content) is None and (rows is None or number < rows):
            tokenizer.add_tokens([token])
            number += 1


def role_files(folder: Path) -> tuple[str, str]:
    """The files that give special tokens by role. Where they differ, the last one counts."""
    files = ("special_tokens_map.json", "tokenizer_config.json")
    # In Transformers the older file counts, unless the newer one, tokenizer_config.json, lists all tokens.
    return files if "added_tokens_decoder" in json_or_empty(folder / files[1]) else files[::-1]


def _settings(folder: Path) -> dict:
    """tokenizer_config.json with the entries of the older files, which Transformers reads if it lists no tokens itself."""
    settings = json_or_empty(folder / "tokenizer_config.json")
    if "additional_special_tokens" in settings and not settings.get(EXTRA):
        settings[EXTRA] = settings.pop("additional_special_tokens")
    own = [key for key, value in settings.items() if _is_own(key) and isinstance(value, str)]
    if named := {key: settings.pop(key) for key in own} | _pop_dict(settings, EXTRA):
        settings[NAMED] = named
    if "added_tokens_decoder" not in settings:
        _add_older_files(settings, folder)
    if EXTRA not in settings:
        settings[EXTRA] = settings.get("additional_special_tokens")
    return settings


def _add_older_files(settings: dict, folder: Path) -> None:
    for key, value in json_or_empty(folder / "special_tokens_map.json").items():
        if key == EXTRA and isinstance(value, list) and isinstance(settings.get(key), list):
            value = settings[key] + value
        settings[key] = value | {"special": True} if isinstance(value, dict) and "content" in value else value
    if named := _pop_dict(settings, EXTRA):
        settings[NAMED] = settings.get(NAMED, {}) | named
    special = {_text(value) for value in [*map(settings.get, ROLE_SETTINGS), *_list(settings.get(EXTRA))]}
    settings["added_tokens_decoder"] = {
        i: {"content": text, "normalized": text not in special, "special": text in special}
        for text, i in json_or_empty(folder / "added_tokens.json").items()
        if isinstance(i, int)
    }


def _is_own(key: str) -> bool:
    return key.endswith("_token") and key not in ROLE_SETTINGS


def _pop_dict(settings: dict, key: str) -> dict:
    return settings.pop(key) if isinstance(settings.get(key), dict) else {}


def _named(settings: dict, padding: dict | None, added: dict) -> Iterator[Any]:
    """All named tokens, as `tokenizers.AddedToken`s in the order of appending; the tokenizer has some of them already."""
    roles = {key: settings[key] for key in ROLE_SETTINGS if key in settings}
    if padding is not None:
        roles.setdefault("pad_token", padding["pad_token"])
    own = {key: value for key, value in settings.items() if _is_own(key)} | _pop_dict(settings, NAMED)
    by_role = [*map(roles.get, ROLE_SETTINGS), *own.values()]
    listed = settings["added_tokens_decoder"] if isinstance(settings.get("added_tokens_decoder"), dict) else {}
    by_text = {token.content: token for token in added.values()}
    for key in sorted((key for key in listed if str(key).isdecimal()), key=int):
        if (token := _token(listed[key], special=False)) is not None:
            by_text[token.content] = token
    for value in by_role + _list(settings[EXTRA]):
        if (token := _token(value, special=True)) is not None:
            by_text.setdefault(token.content, token)
    # Listed tokens come first, by id. A token with a role is special even if the list says otherwise.
    for token in by_text.values():
        token.special |= token.content in map(_text, by_role)
        yield token


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _token(value: Any, *, special: bool) -> Any:
    """The `tokenizers.AddedToken` that a file describes, or None. special: whether it is special if the file does not say."""
    import tokenizers

    if (text := _text(value)) is None:
        return None
    if isinstance(value, str):
        return tokenizers.AddedToken(text, special=special)
    flags = {key: bool(value[key]) for key in ("single_word", "lstrip", "rstrip", "normalized") if key in value}
    return tokenizers.AddedToken(text, special=bool(value.get("special", special)), **flags)
