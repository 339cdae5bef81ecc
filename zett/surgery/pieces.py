"""SentencePiece's own files, which some programs (converters to GGUF, for example) read instead of tokenizer.json.

They are messages of protocol buffers. Only the pieces are touched, each of which is copied as it is; what is not known here
stays as well.
"""

from collections.abc import Iterator
from pathlib import Path

from zett.surgery.edit import VocabularyEdit

PIECE, TRAINER = 1, 2  # fields of the model
# Fields of the trainer's settings that name pieces by their numbers, and what they are if they are absent.
ROLES = {40: 0, 41: 1, 42: 2, 43: -1}  # unknown, begin, end, padding
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types


def edited_pieces(file: Path, vocab: dict[str, int], edit: VocabularyEdit) -> bytes | None:
    """The content of a SentencePiece model with the pieces that stay; None if it cannot follow the edit.

    vocab: ids by text in tokenizer.json. It cannot where numbers are not those of tokenizer.json, where one that the settings
    name changes, or where there are new tokens, since merges are not written down in such a file.
    """
    try:
        fields = list(_fields(file.read_bytes()))
        pieces = [next(_of(1, message)).decode("utf-8") for message in _of(PIECE, file.read_bytes())]
        trainer = next(_of(TRAINER, file.read_bytes()), b"")
        roles = ROLES | {number: _signed(value) for number, value in _fields(trainer) if number in ROLES}
    except (OSError, ValueError, IndexError, StopIteration, TypeError):
        return None  # something else under this name
    if edit.new or not pieces or any(vocab.get(text) != i for i, text in enumerate(pieces)):
        return None
    if any(edit.id(i) != i for i in roles.values() if i >= 0 and i < len(pieces)):
        return None
    kept, place = bytearray(), 0
    for number, value in fields:
        if number == PIECE:
            place += 1
            if edit.id(place - 1) is None:
                continue
        kept += _written(number, value)
    return bytes(kept)


def _of(number: int, message: bytes) -> Iterator[bytes]:
    return (value for field, value in _fields(message) if field == number and isinstance(value, bytes))


def _fields(message: bytes) -> Iterator[tuple[int, bytes | int | tuple[int, bytes]]]:
    """(field, value) of a message: bytes of what has a length, numbers of varints, (wire type, bytes) of the rest."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(message):
            raise ValueError("the file is cut off")
        part = message[at : at + size]
        yield number, part if kind == BYTES else (kind, part)
        at += size


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _signed(value) -> int:
    return value - 2**64 if value >= 2**63 else value


def _written(number: int, value: bytes | int | tuple[int, bytes]) -> bytes:
    if isinstance(value, int):
        return _as_varint(number << 3 | VARINT) + _as_varint(value)
    if isinstance(value, tuple):
        return _as_varint(number << 3 | value[0]) + value[1]
    return _as_varint(number << 3 | BYTES) + _as_varint(len(value)) + value


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
