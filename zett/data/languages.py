"""Texts by language: a text source with the code of each language put in."""

import re
from collections.abc import Sequence

from zett.errors import UserError

# https://huggingface.co/datasets/wikimedia/wikipedia: a config for each of some 320 languages, by Wikipedia's code.
WIKIPEDIA = "hf:wikimedia/wikipedia:20231101.{}"


def language_source(codes: Sequence[str], source: str = WIKIPEDIA) -> str:
    """A text source with as much text of each language as of the others, as far as there is. UserError for what is no code.

    source: of one language, with "{}" for its code.
    """
    if "{}" not in source:
        raise UserError(f"languages_from is {source!r}; it has to have {{}} in the place of a language's code")
    for code in codes:
        if not re.fullmatch(r"[A-Za-z][\w-]*", code):
            raise UserError(f"languages: {code!r} is no code of a language, such as 'de'")
    return "|".join(source.replace("{}", code) for code in dict.fromkeys(codes))
