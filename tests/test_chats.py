"""Conversations that a model writes by itself, with a model that writes what it is told to."""

import json
import shutil

import pytest
import tiny
from evaluate.tasks.test_agreement import as_chat, chat_tokenizer, scripted

from zett.chats import Template, write_chats
from zett.data.chats import open_chats
from zett.errors import UserError
from zett.lms.base import load_base_model

TEMPLATE = "{% for m in messages %}{{ '!' if m.role == 'user' else '<|im_start|>' }}{{ m.content }}{% endfor %}<|im_end|>"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tiny.base_folder(tmp_path_factory.mktemp("chat") / "model", dtype="float32", own=chat_tokenizer())
    (as_chat(folder) / "chat_template.jinja").write_text(TEMPLATE)
    return load_base_model(folder)


def told(base, text):
    ids = base.vocab.tokenizer.encode(text).ids
    assert len(set(ids)) == len(ids)
    return scripted(base, ids)


def test_conversations_are_written(base, tmp_path):
    output = write_chats(
        told(base, "!bcd<|im_start|>efgh<|im_end|>"), tmp_path / "new" / "chats.jsonl", number=3, max_tokens=40
    )
    chats = [json.loads(line) for line in output.read_text().splitlines()]
    messages = [{"role": "user", "content": "bcd"}, {"role": "assistant", "content": "efgh"}]
    assert chats == 3 * [{"messages": messages, "complete": True}]
    assert [json.loads(text)["messages"] for text in open_chats(str(output))] == 3 * [messages]
    assert [path.name for path in output.parent.iterdir()] == ["chats.jsonl"]
    with pytest.raises(UserError, match="is there already"):
        write_chats(base, output)


def test_answers_are_cut_off(base, tmp_path):
    output = write_chats(told(base, "!bcd<|im_start|>efgh<|im_end|>"), tmp_path / "chats.jsonl", number=1, max_tokens=6)
    chat = json.loads(output.read_text())
    assert chat["messages"][1]["content"] == "ef" and not chat["complete"]


def test_what_is_no_conversation(base):
    template, encode = Template(base), base.vocab.tokenizer.encode
    assert template.opening == "!"
    assert template.read(encode("bcd<|im_start|>ef").ids)["complete"] is False
    for text in ("bcd", "bcd<|im_end|>", "<|im_start|>ef", "b<|im_end|>c<|im_start|>ef", "bcd<|im_start|><|im_end|>"):
        assert template.read(encode(text).ids) is None


def test_mistakes(base, tmp_path):
    with pytest.raises(UserError, match=r"does not go on in the turns of its chat template by itself: none of 32 texts"):
        write_chats(told(base, "!bcdefgh<|im_end|>"), tmp_path / "a", number=1, max_tokens=6)
    with pytest.raises(UserError, match=r"temperature is 0; it has to be a number above 0"):
        write_chats(base, tmp_path / "a", temperature=0)
    with pytest.raises(UserError, match=r"number is 0; it has to be a whole number"):
        write_chats(base, tmp_path / "a", number=0)
    shutil.copytree(base.folder, tmp_path / "plain")
    (tmp_path / "plain" / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template"):
        write_chats(tmp_path / "plain", tmp_path / "a")
    assert not (tmp_path / "a").exists()
