"""What a tokenizer puts around a text, and its chat template."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from zett.errors import UserError

if TYPE_CHECKING:
    from zett.vocab.vocabulary import Vocabulary

# Parts of a chat template that look like special tokens.
_IN_TEMPLATE = re.compile(r"<\|[^|<>\s]+\|>|<｜[^｜<>\s]+｜>|<(?:start|end)_of_\w+>|</?tool_\w+>|\[/?[A-Z]+(?:_[A-Z]+)*\]")


def around(vocab: "Vocabulary") -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids that the tokenizer puts before and after a text."""
    if vocab.tokenizer is None:
        return (), ()
    whole, text = (vocab.tokenizer.encode("a", add_special_tokens=special).ids for special in (True, False))
    if len(whole) <= len(text):
        return (), ()
    at = next((i for i in range(len(whole) - len(text) + 1) if whole[i : i + len(text)] == text), 0)
    return tuple(whole[:at]), tuple(whole[at + len(text) :])


def chat_template(folder: Path | None) -> str | None:
    """The chat template in a tokenizer's folder, or None; of several, the default one. UserError if it cannot be read."""
    if folder is None:
        return None
    for name in ("chat_template.jinja", "tokenizer_config.json", "chat_template.json"):
        file = folder / name
        if not file.is_file():
            continue
        try:
            text = file.read_bytes().decode("utf-8")
            template = text if file.suffix == ".jinja" else json.loads(text).get("chat_template")
        except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
            raise UserError(f"{file} holds no chat template that can be read: {error}") from None
        if isinstance(template, list):
            named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
            template = named.get("default", next(iter(named.values()), None))
        if isinstance(template, str):
            return template
    return None


def missing_in_template(template: str | None, tokenizer) -> list[str]:
    """Texts in a chat template that look like special tokens but are no tokens of the tokenizer, in order of appearance."""
    return [name for name in dict.fromkeys(_IN_TEMPLATE.findall(template or "")) if tokenizer.token_to_id(name) is None]
