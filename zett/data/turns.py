"""Text framed as the turns of a chat, so that special tokens occur where a chat model reads and writes them."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence

from zett.data.chats import Conversation
from zett.data.documents import Documents

EXCHANGES = 2  # of a conversation, at most: a question and an answer each
RECIPE = 1  # part of the fingerprint; to be raised when conversations are made differently

_BLANK = re.compile(r"\n(?:[ \t]*\n)+")  # what comes after it may be indented
# Where a paragraph is cut that is too long for a message, the best places first: after lines and sentences, and after words.
_PLACES = (re.compile(r"(?<=\n)|(?<=[.!?][ \n])"), re.compile(r"(?<=[ \n])"))


class Turns(Documents):
    """Documents, each framed by `frame`, which `key` identifies together with the documents."""

    def __init__(self, documents: Documents, frame: Callable[[str], str], key: str):
        self.name = f"{documents.name}, in turns"
        self._documents, self._frame, self._key = documents, frame, key

    def __len__(self) -> int:
        return len(self._documents)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self._frame(text) for text in self._documents[index]]
        return self._frame(self._documents[index])

    def fingerprint(self) -> str:
        made = f"{self._documents.fingerprint()} {RECIPE} {self._key}"
        return hashlib.sha256(made.encode()).hexdigest()


def framed_text(text: str, limit: int, write: Callable[[Sequence[Conversation]], list[str]]) -> str:
    """A text whose paragraphs are messages of at most `limit` characters: one asks, and the next one answers.

    write: the texts of some conversations, by a chat template. A text without two words gives "".
    """
    return "".join(write(conversations(text, limit)))


def conversations(text: str, limit: int) -> list[Conversation]:
    """A text's paragraphs, or parts of them, in turns; the last one is left out if it has no answer."""
    parts = [part for paragraph in _BLANK.split(text) for part in _parts(paragraph, limit)]
    if len(parts) == 1:
        parts = _halves(parts[0])
    number = len(parts) // 2 * 2
    messages = [{"role": ("user", "assistant")[i % 2], "content": part} for i, part in enumerate(parts[:number])]
    return [messages[start : start + 2 * EXCHANGES] for start in range(0, number, 2 * EXCHANGES)]


def _parts(paragraph: str, limit: int) -> Iterator[str]:
    """A paragraph in parts of at most `limit` characters; a word that is longer is cut off."""
    current = ""
    for unit in _units(paragraph, limit):
        if current and len(current) + len(unit.rstrip()) > limit:
            yield current.strip("\n").rstrip()
            current = ""
        current += unit
    if current.strip():
        yield current.strip("\n").rstrip()


def _halves(part: str) -> list[str]:
    """Cut between lines if there are several, else between words."""
    separator = "\n" if "\n" in part else " "
    pieces = part.split(separator)
    middle = len(pieces) // 2
    return [separator.join(pieces[:middle]), separator.join(pieces[middle:])] if middle else []


def _units(paragraph: str, limit: int) -> Iterator[str]:
    sentences, words = _PLACES
    for unit in sentences.split(paragraph):
        if len(unit.rstrip()) <= limit:
            yield unit
        else:
            yield from (word[:limit] for word in words.split(unit))
