"""Texts framed as turns of a chat."""

import dataclasses
import functools

import pytest

from zett.data.documents import Files
from zett.data.turns import Turns, conversations, framed_text


@dataclasses.dataclass(frozen=True)
class Read:
    """A document that is there."""

    text: str
    __name__ = "read"

    def __call__(self):
        return self.text


def contents(text: str, limit: int) -> list[list[str]]:
    found = conversations(text, limit)
    assert all(m["role"] == ("user", "assistant")[i % 2] for messages in found for i, m in enumerate(messages))
    return [[message["content"] for message in messages] for messages in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b\nc\n\nd\n", [["a b\nc", "d"]]),
        ("a\n \t\n\n    indented\n\nleft out", [["a", "    indented"]]),
        ("a\n\nb\n\nc\n\nd\n\ne\n\nf", [["a", "b", "c", "d"], ["e", "f"]]),
        ("one line\nand another\n", [["one line", "and another"]]),
        ("one line alone", [["one", "line alone"]]),
        ("A sentence of words. Another one of them! The last.", [["A sentence of words.", "Another one of them!"]]),
        ("A sentence that goes on for long", [["A sentence that goes", "on for long"]]),
        ("word", []),
        ("a-word-that-is-longer-than-that and", [["a-word-that-is-longe", "and"]]),
        (" \n\n ", []),
    ],
)
def test_paragraphs_become_messages(text, expected):
    assert contents(text, 20) == expected


def write(found):
    return ["".join(f"<{m['role']}>{m['content']}<end>" for m in messages) for messages in found]


def test_documents_in_turns():
    documents = Files("three", tuple((Read(text),) for text in ("a\n\nb", "", "c d\n\ne")))
    frame = functools.partial(framed_text, limit=9, write=write)
    turns = Turns(documents, frame, "template")
    assert list(turns) == turns[0:3] == ["<user>a<end><assistant>b<end>", "", "<user>c d<end><assistant>e<end>"]
    assert len(turns) == 3 and turns.name == "three, in turns"
    others = (
        documents,
        Turns(documents, frame, "another"),
    )
    assert len({turns.fingerprint(), *(other.fingerprint() for other in others)}) == 3
