"""Tokens whose rows are told rather than found: `--map TOKEN=TEXT` says which text of the base model a token stands for."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from zett.arguments import several
from zett.errors import UserError
from zett.values import nearest
from zett.vocab.pairing import mapped_pieces

if TYPE_CHECKING:
    from zett.vocab.vocabulary import Vocabulary

# A target token, and the text of the base model that it stands for.
Mapped = Mapping[str, str] | Sequence[str]


def with_map(target: "Vocabulary", source: "Vocabulary", given: Mapped) -> "Vocabulary":
    """The target with tokens that stand for texts of the source. given: texts by token, or "TOKEN=TEXT" each.

    The text is cut as the source tokenizer cuts it, special tokens included. A token whose text is one source token gets that
    token's row; of several, the method makes a row, as it does for an ordinary token of these pieces. UserError for what is no
    token of the target or no text of the source.
    """
    if not given:
        return target
    mapped: dict[int, str] = {}
    pairs = list(given.items()) if isinstance(given, Mapping) else [_split(entry, target) for entry in several(given)]
    for token, text in pairs:
        i = target.tokenizer.token_to_id(token)
        if i is None or not text:
            raise _wrong(f"{token}={text}", target)
        if i in mapped:
            raise UserError(f"map gives the token {token!r} two texts, {mapped[i]!r} and {text!r}; leave one of them out")
        mapped[i] = text
    result, unknown = dataclasses.replace(target, mapped=mapped), _unknown(source)
    for i, pieces in mapped_pieces(result, source).items():
        token = target.tokenizer.id_to_token(i)
        if not pieces or (unknown in pieces and mapped[i] != source.tokenizer.id_to_token(unknown)):
            raise UserError(f"map {token}={mapped[i]}: the base model's tokenizer has no tokens for the text {mapped[i]!r}")
        shown = " ".join(repr(source.tokenizer.id_to_token(piece)) for piece in pieces)
        logging.getLogger("zett").info("%r stands for %s of the base model", token, shown)
    return result


def _split(entry: str, target: "Vocabulary") -> tuple[str, str]:
    """Token and text. Either may hold an "=": the token is the shortest that the target has."""
    ends = [i for i, char in enumerate(entry) if char == "="]
    for end in ends:
        if target.tokenizer.token_to_id(entry[:end]) is not None and entry[end + 1 :]:
            return entry[:end], entry[end + 1 :]
    raise _wrong(entry, target)


def _wrong(entry: str, target: "Vocabulary") -> UserError:
    token, _, text = entry.rpartition("=")
    what = "it names no text" if token and not text else f"{token or entry!r} is no token of the tokenizer"
    hint = f" ({nearest(token, target.special)})" if token and text and target.special else ""
    return UserError(f"map {entry}: {what}{hint}; write TOKEN=TEXT, such as '<|im_start|>=<|user|>'")


def _unknown(source: "Vocabulary") -> int | None:
    named = source.format.unknown if source.format is not None else None
    return source.roles.get("unk") if named is None else source.tokenizer.token_to_id(named)
