"""Conversations as chat data sets have them: from files, and from data sets by their name."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from zett.data.chats import check_chats, framed_chat, open_chats
from zett.errors import UserError
from zett.progress import shown


def turns(*contents, system=None):
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system else []) + messages


ROWS = [
    {"messages": turns("a question", "an answer"), "source": "one"},
    {"messages": turns("q", "a", "another\n\none", "b", "no answer"), "complete": False},
    {"messages": turns("q", "cut o", system="be short"), "complete": False},
    {"messages": turns("no answer")},
    {"messages": [{"role": "tool", "content": "x"}, *turns("q", "a")]},
    {"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": "a"}]},
    {"messages": "text"},
]


def write(found):
    return ["".join(f"<{m['role']}>{m['content'].strip()}<end>\n" for m in messages) for messages in found]


FRAMED = [
    "<user>a question<end>\n<assistant>an answer<end>\n",
    "<user>q<end>\n<assistant>a<end>\n<user>another\n\none<end>\n<assistant>b<end>\n",  # what was cut off is not the answer
    "<system>be short<end>\n<user>q<end>\n<assistant>cut o",
]


def jsonl(path, rows=ROWS):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    return path


def test_jsonl(tmp_path, capsys):
    with shown():
        chats = open_chats(str(jsonl(tmp_path / "chats.jsonl")))
    assert [framed_chat(text, write) for text in chats] == FRAMED
    assert "4 of 7 conversations left out" in capsys.readouterr().err


def test_parquet_and_folders(tmp_path):
    rows = [{"messages": row["messages"]} for row in ROWS[:2]]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    jsonl(tmp_path / "b.jsonl", ROWS[2:3])
    chats = open_chats(str(tmp_path))
    assert [framed_chat(text, write) for text in chats] == FRAMED
    assert chats.fingerprint() != open_chats(str(tmp_path / "b.jsonl")).fingerprint()


def test_data_sets(tmp_path):
    """A folder in the form of the Hub's, up to a number of bytes."""
    rows = [{"conversation": turns("a question", f"answer {i}")} for i in range(50)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train.parquet")
    chats = open_chats(f"hf:{tmp_path}?column=conversation", stream_bytes=1000)
    assert framed_chat(chats[3], write) == "<user>a question<end>\n<assistant>answer 3<end>\n"
    assert sum(len(text.encode()) for text in chats[:-1]) < 1000 <= sum(len(text.encode()) for text in chats)


def test_sources_are_checked(tmp_path):
    assert check_chats("hf:someone/chats") == ["someone/chats"] and check_chats(str(jsonl(tmp_path / "a.jsonl"))) == []
    with pytest.raises(UserError, match="no such file or folder"):
        check_chats(str(tmp_path / "b.jsonl"))


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ('{"messages": [\n', "line 1: not JSON"),
        ("[]\n", "line 1: expected a JSON object, not"),
        ('{"text": "a"}\n', "no column 'messages'; columns: text"),
        ('{"messages": []}\n', "no conversation with an answer"),
    ],
)
def test_bad_files(tmp_path, content, error):
    (tmp_path / "chats.jsonl").write_text(content)
    with pytest.raises(UserError, match=error):
        open_chats(str(tmp_path / "chats.jsonl"))


def test_other_files(tmp_path):
    (tmp_path / "chats.txt").write_text("a text")
    with pytest.raises(UserError, match=r"conversations are in \.jsonl and \.parquet files"):
        open_chats(str(tmp_path / "chats.txt"))
