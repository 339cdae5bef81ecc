"""Conversations that a chat model writes by itself, to train it in its own turns where there are no others."""

import json
import os
from pathlib import Path

import numpy as np

from zett.data.chats import COLUMN
from zett.errors import UserError
from zett.generate import UNFINISHED, chat_writer, encode_prompt, next_tokens
from zett.lms.base import BaseModel, check_causal, load_base_model
from zett.progress import bar, phase, say
from zett.values import check_count, check_seed
from zett.vocab.pairing import structural

BATCH = 32  # conversations that are written at once
LOOK = 16  # tokens after which it is looked whether all have ended
SIDES = "Question0", "Answer0"  # stand in the template for what is written


def write_chats(
    model: str | Path | BaseModel, output: str | Path, *, number: int = 256, max_tokens: int = 320, temperature: float = 0.8,
    seed: int = 0, overwrite: bool = False,
) -> Path:  # fmt: skip
    """Write `number` conversations that the chat model writes by itself to the jsonl file `output`; returns it.

    The model goes on from what its chat template puts before a user's message (Magpie, arXiv 2406.08464): a question, and an
    answer to it, drawn at `temperature`, of at most `max_tokens` tokens together. Each line has "messages", and "complete":
    whether the answer has ended. Lines like it of any chat data set can be read in their place. Ctrl-C keeps what there is.
    UserError for a model without a chat template, and for one that does not go on like that.
    """
    for name, value in (("number", number), ("max_tokens", max_tokens)):
        check_count(value, name)
    check_seed(seed)
    if not 0 < temperature < 100:
        raise UserError(f"temperature is {temperature!r}; it has to be a number above 0: otherwise all conversations are one")
    output = Path(output).expanduser()
    if output.is_dir() or (output.exists() and not overwrite):
        raise UserError(f"{output} is there already; give another output, or --overwrite if it is such a file")
    if isinstance(model, BaseModel):
        base = model
    else:
        with phase(f"reading the model {model}"):
            base = load_base_model(model)
    check_causal(base)
    template = Template(base)
    output.parent.mkdir(parents=True, exist_ok=True)
    rng, found, tried, batch = np.random.default_rng(seed), list[dict](), 0, min(BATCH, number)
    try:
        with bar(number, "conversations", "chat") as advance:
            while len(found) < number:
                texts = _written(base, template, batch, max_tokens, temperature, rng)
                some, tried = [chat for chat in map(template.read, texts) if chat is not None], tried + batch
                if not found and not some and tried >= BATCH:
                    raise UserError(
                        f"{base.name} does not go on in the turns of its chat template by itself: none of {tried} texts has a "
                        "question and an answer; use others' conversations (a file with a column of messages)"
                    )
                advance(len(some[: number - len(found)]))
                found += some
    finally:
        if found:
            beside = output.with_name(f".{output.name}.{os.getpid()}")
            beside.write_text("".join(json.dumps(chat, ensure_ascii=False) + "\n" for chat in found[:number]), "utf-8")
            beside.replace(output)
    complete = sum(chat["complete"] for chat in found[:number])
    say(f"{number:,} conversations; {complete:,} have an answer that ends, the others are cut off after {max_tokens:,} tokens")
    return output


def _written(
    base: BaseModel, template: "Template", number: int, max_tokens: int, temperature: float, rng: np.random.Generator
) -> list[list[int]]:
    """What the model writes, that many times, after the opening of a conversation."""
    written: list[list[int]] = [[] for _ in range(number)]
    ids = np.asarray([encode_prompt(base.vocab, template.opening)] * number)
    room = base.config.room - ids.shape[1]
    for position, tokens in enumerate(next_tokens(base, ids, min(max_tokens, room), temperature, rng), 1):
        for row, token in zip(written, tokens):
            row.append(token)
        if position % LOOK == 0 and all(template.ended(row) for row in written):
            break
    return written


class Template:
    """What a model's chat template puts before a question, between it and its answer, and after that."""

    def __init__(self, base: BaseModel):
        self._tokenizer = base.vocab.tokenizer
        messages = [{"role": role, "content": text} for role, text in zip(("user", "assistant"), SIDES)]
        [whole] = chat_writer(base.vocab, answered=True)([messages])
        self.opening, rest = whole.split(SIDES[0], 1)
        self._between, self._after = rest.split(SIDES[1], 1)
        self._special = list(structural(base.vocab))
        if not self._between.strip():
            raise UserError(f"{base.name}: its chat template puts nothing between a question and an answer")

    def ended(self, ids: list[int]) -> bool:
        """Whether these tokens hold a whole conversation."""
        chat = self.read(ids)
        return chat is not None and chat["complete"]

    def read(self, ids: list[int]) -> dict | None:
        """The conversation; None if there is no question, no answer, or a special token within one of them."""
        text = self._tokenizer.decode(ids, skip_special_tokens=False).rstrip(UNFINISHED)
        question, _, answer = text.partition(self._between)
        answer, end, _ = answer.partition(self._after.strip()) if self._after.strip() else (answer, "", "")
        both = [question.strip(), answer.strip()]
        if not all(both) or any(special in side for special in self._special for side in both):
            return None
        messages = [{"role": role, "content": side} for role, side in zip(("user", "assistant"), both)]
        return {COLUMN: messages, "complete": bool(end)}
