"""Conversations: what data sets of chats hold, in a column of messages. `zett chats` writes such files, too."""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zett.data.documents import Documents, TextError
from zett.data.hub_stream import HubSource, hub_rows
from zett.data.local import check_file, file_bytes, file_kind, file_text, json_lines, text_files
from zett.progress import say

COLUMN = "messages"
ROLES = ("system", "user", "assistant")

Conversation = list[dict[str, str]]


class Chats(Documents):
    """Conversations, each as JSON of its messages, and whether the last of them is whole. They are kept in memory."""

    def __init__(self, name: str, texts: Sequence[str]):
        self.name, self._texts = name, texts

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index):
        return self._texts[index]

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self._texts).encode()).hexdigest()


def open_chats(spec: str, *, stream_bytes: int = 100_000_000) -> Chats:
    """The conversations of a jsonl or parquet file, a folder of these, or "hf:NAME[:CONFIG][?...]" up to `stream_bytes`.

    Each has a column "messages": a list of {"role": "system" | "user" | "assistant", "content": text}, as chat data sets have
    it. "complete": false says that its last message is cut off. What follows the last answer is left out, and so is a
    conversation with other roles or contents, or without an answer; how many is said. Raises TextError.
    """
    texts, total, left_out = [], 0, 0
    for messages, complete in _read(spec):
        text = _checked(messages, complete)
        if text is None:
            left_out += 1
            continue
        texts.append(text)
        total += len(text.encode())
        if spec.startswith("hf:") and total >= stream_bytes:
            break
    if not texts:
        raise TextError(f"{spec}: no conversation with an answer (looked for {COLUMN!r}: lists of role and content)")
    if left_out:
        say(f"{spec}: {left_out:,} of {left_out + len(texts):,} conversations left out: no answer, or other roles or contents")
    return Chats(f"{spec}, chats", texts)


def check_chats(spec: str) -> list[str]:
    """Whether the source can be there, without reading it: returns the data sets of the Hub, as `check_source` does."""
    if not spec.startswith("hf:"):
        check_file(Path(spec).expanduser())
        return []
    name = HubSource.of(spec[3:]).name
    return [] if Path(name).exists() else [name]


def framed_chat(text: str, write: Callable[[Sequence[Conversation]], list[str]]) -> str:
    """One of the documents of `Chats` by a chat template; one that is cut off ends where its last message does."""
    chat = json.loads(text)
    [framed] = write([chat[COLUMN]])
    last = chat[COLUMN][-1]["content"].strip()
    at = -1 if chat["complete"] else framed.rfind(last)  # a template may write a message in another way
    return framed if at < 0 else framed[: at + len(last)]


def _checked(messages: Any, complete: Any) -> str | None:
    """The document of a conversation; None if it cannot be one."""
    if not isinstance(messages, list) or not all(_is_message(message) for message in messages):
        return None
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant" and message["content"].strip()]
    if not answers:
        return None
    kept = [{"role": message["role"], "content": message["content"]} for message in messages[: answers[-1] + 1]]
    return json.dumps({COLUMN: kept, "complete": bool(complete) or len(kept) < len(messages)}, ensure_ascii=False)


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and value.get("role") in ROLES and isinstance(value.get("content"), str)


def _read(spec: str) -> Iterator[tuple[Any, Any]]:
    """Messages, and whether the last one is whole, of all conversations."""
    if spec.startswith("hf:"):
        source = HubSource.of(spec[3:])
        rows, name = hub_rows(source, "train")[1], source.column or COLUMN
    else:
        path = Path(spec).expanduser()
        check_file(path)
        rows, name = itertools.chain.from_iterable(_rows(file) for file in text_files(path)), COLUMN
    for row in rows:
        if name not in row:
            raise TextError(f"{spec}: no column {name!r}; columns: {', '.join(map(str, row))}")
        yield row[name], row.get("complete", True)


def _rows(file: Path) -> Iterator[dict]:
    if file_kind(file) == ".parquet":
        import pyarrow
        import pyarrow.parquet as parquet

        try:
            yield from parquet.read_table(pyarrow.BufferReader(file_bytes(file))).to_pylist()
        except pyarrow.ArrowInvalid as error:
            raise TextError(f"{file}: not a readable parquet file: {error}") from None
    elif file_kind(file) == ".jsonl":
        yield from json_lines(file_text(file), file)
    else:
        raise TextError(f"{file}: conversations are in .jsonl and .parquet files")
