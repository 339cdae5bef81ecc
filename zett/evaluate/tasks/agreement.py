"""Agreement: whether a model answers as the original does, in bytes, since their tokens are not the same.

The original writes the most probable answer to each prompt, in the turns of its chat template if it has one. The model that is
scored writes its own, until it says something else. Beside that, what needs no writing: how probable the original's answer is
to it, and how probable the end of the turn is before that answer, within it and after it.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.errors import UserError
from zett.evaluate.tasks.encoded import padded_table, rounded_up
from zett.evaluate.tasks.items import Items
from zett.generate import chat_texts, continuation, encode_prompt, ends_of, generate_ids
from zett.lms.base import BaseModel, check_causal
from zett.progress import bar
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary
from zett.vocab.pairing import structural
from zett.vocab.prompts import chat_template

TOKENS = 32  # of the original's answers, at most


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a model has written, without the white space `before` it. ended: whether by a token that ends a turn."""

    text: str
    ended: bool
    before: str = dataclasses.field(default="", compare=False)

    @property
    def whole(self) -> str:
        return self.before + self.text

    @property
    def line(self) -> tuple[str, bool]:
        """Its first line, and whether that is whole."""
        line, newline, _ = self.text.partition("\n")
        return line.rstrip() if newline else line, bool(newline) or self.ended

    @property
    def word(self) -> tuple[str, bool]:
        """Its first word, and whether that is whole."""
        word = next(iter(self.text.split(maxsplit=1)), "")
        return word, len(word) < len(self.text) or self.ended


@dataclasses.dataclass(frozen=True, eq=False)
class Prompts(Items):
    """prompts: `texts` as models read them. original: the model whose `answers` they are."""

    prompts: tuple[str, ...]
    original: BaseModel
    answers: tuple[Answer, ...]


class Agreement:
    """Score: 1 where the first line of an answer is the original's, else 0. tokens: the most that the original writes."""

    name, unit, lower_is_better = "agreement", "first lines as the original's", False

    def __init__(self, *, dtype: Any = jnp.float32, batch_size: int = 32, tokens: int = TOKENS):
        self.tokens = tokens

    def items(self, base: BaseModel, texts: Sequence[str]) -> Prompts:
        """texts: one a prompt. UserError for an encoder, and for a chat template that cannot be used."""
        check_causal(base)
        original = base.original or base
        prompts = list(texts)
        if chat_template(original.vocab.folder) is not None:
            prompts = chat_texts(original.vocab, [[{"role": "user", "content": text}] for text in texts])
        with bar(len(prompts), "answers of the original", "prompt") as advance:
            answers = []
            for prompt in prompts:
                answers.append(written(original, prompt, self.tokens))
                advance(1)
        return Prompts(tuple(texts), np.ones(len(prompts)), tuple(prompts), original, tuple(answers))

    def score(self, model: BaseModel, items: Items) -> np.ndarray:
        return self.details(model, items)[0]

    def details(self, model: BaseModel, items: Items) -> tuple[np.ndarray, dict[str, float]]:
        """The scores, and means over all answers. UserError if the tokenizer lacks a special token of the prompts.

        first_word, common_prefix: shares; empty, ends_early: shares of answers that end where the original's goes on;
        ends_alike: share of the original's whole answers that are the model's, whole; answer_bits_per_byte: of the original's
        answers; end_at_once, end_within, end_after: probability of the end of the turn instead of the original's answer, before
        its end, and after it.
        """
        assert isinstance(items, Prompts)  # made by `items`
        check_special(model.vocab, items)
        theirs = items.answers
        if model is not items.original:
            theirs = tuple(written_like(model, prompt, answer) for prompt, answer in zip(items.prompts, items.answers))
        table = padded_table(model.table)
        costs = np.asarray([_costs(model, table, prompt, answer) for prompt, answer in zip(items.prompts, items.answers)])
        size, whole = sum(len(a.whole.encode()) for a in items.answers), [a.ended for a in items.answers]
        bits, at_once, within, after = costs.T
        lines, means = compared_answers(items.answers, theirs)
        means |= {"answer_bits_per_byte": bits.sum() / size} if size else {}
        means |= {"end_at_once": at_once.mean(), "end_within": within.mean()}
        means |= {"end_after": after[whole].mean()} if any(whole) else {}
        return lines, {name: float(mean) for name, mean in means.items()}


def compared_answers(theirs: Sequence[Answer], ours: Sequence[Answer]) -> tuple[np.ndarray, dict[str, float]]:
    """Whether first lines are the original's, as numbers; and means of what else can be said of the texts."""
    pairs = list(zip(theirs, ours))
    ended = [a == b for a, b in pairs if a.ended]
    means = {
        "first_word": np.mean([first_alike(a.word, b.word) for a, b in pairs]),
        "common_prefix": np.mean([_common(a, b) for a, b in pairs]),
        "empty": np.mean([b.ended and not b.text and bool(a.text) for a, b in pairs]),
        "ends_early": np.mean([b.ended and a.text != b.text and a.text.startswith(b.text) for a, b in pairs]),
        **({"ends_alike": np.mean(ended)} if ended else {}),
    }
    lines = np.asarray([first_alike(a.line, b.line) for a, b in pairs], np.float64)
    return lines, {name: float(mean) for name, mean in means.items()}


def first_alike(theirs: tuple[str, bool], ours: tuple[str, bool]) -> bool:
    """Whether the first line (or word) is the original's `theirs`, as far as that was written."""
    return theirs == ours if theirs[1] else ours[0].startswith(theirs[0])


def _common(theirs: Answer, ours: Answer) -> float:
    """Share of the original's answer that the other one begins with."""
    a, b = theirs.text.encode(), ours.text.encode()
    if not a:
        return float(not b)
    number = min(len(a), len(b))
    differ = np.frombuffer(a[:number], np.uint8) != np.frombuffer(b[:number], np.uint8)
    return (int(differ.argmax()) if differ.any() else number) / len(a)


def written(model: BaseModel, prompt: str, tokens: int, like: str | None = None) -> Answer:
    """The most probable answer, of at most `tokens` tokens; like: it stops where it is no longer the beginning of that."""
    ids, ends = encode_prompt(model.vocab, prompt), ends_of(model)
    ours: list[int] = []
    text = before = ""
    for token in generate_ids(model, ids, max_tokens=tokens):
        if token in ends:
            return Answer(text, True, before)
        ours.append(token)
        whole = continuation(model.vocab, ids, ours)
        # Some decoders drop a text's first space, and some tokenizers cannot write a word without one.
        text = whole.lstrip()
        before = whole.removesuffix(text)
        if like is not None and not like.startswith(text):
            break
    return Answer(text, False, before)


def written_like(model: BaseModel, prompt: str, answer: Answer) -> Answer:
    """What the model answers, as far as it is `answer` and a little further."""
    # No tokenizer needs more tokens than there are bytes; and one to end with, or to go on.
    return written(model, prompt, len(answer.whole.encode()) + 1, answer.text)


def check_special(vocab: Vocabulary, items: Prompts) -> None:
    """UserError if the vocabulary lacks a special token that the prompts have."""
    for text in structural(items.original.vocab):
        if vocab.tokenizer.token_to_id(text) is None and any(text in prompt for prompt in items.prompts):
            raise UserError(
                f"the tokenizer{f' in {vocab.folder}' if vocab.folder else ''} has no token {text!r}, which is in the chat "
                f"template of {items.original.name}; take over its special tokens (--special map-to-source)"
            )


# ----------------------------------------------------------------------------------------------------- without writing


def _costs(model: BaseModel, table: EmbeddingTable, prompt: str, answer: Answer) -> tuple[float, float, float, float]:
    """What an answer costs in bits, and the probability of an end at once, before its end, and after it."""
    ids = encode_prompt(model.vocab, prompt)
    whole = encode_prompt(model.vocab, prompt + answer.whole)
    if whole[: len(ids)] != ids:  # a token would reach over the prompt's end
        whole = ids + model.vocab.tokenizer.encode(answer.whole, add_special_tokens=False).ids
    number = len(whole) - len(ids)
    columns = rounded_up(np.asarray([number + 1]))
    padded = np.zeros(rounded_up(np.asarray([len(ids)])) + columns, np.int32)
    padded[: len(whole)] = whole
    found = _log_probs(
        model.graphdef, model.params, table, padded, np.int32(len(ids)), np.asarray(sorted(ends_of(model))),
        columns=columns, softcap=model.config.logit_softcap,
    )  # fmt: skip
    tokens, ends = (np.asarray(x, np.float64) for x in found)
    end = np.exp(ends[: number + 1])
    return -tokens[:number].sum() / math.log(2), end[0], 1 - np.prod(1 - end[:number]), end[number]


@functools.partial(jax.jit, static_argnames=("graphdef", "columns", "softcap"))
def _log_probs(graphdef, params, table: EmbeddingTable, ids_L, start, ends_E, *, columns, softcap):
    """From the token `start` on: log probabilities of the tokens, and of any of the ends instead of them, `[columns]` each."""
    h_LD = nnx.merge(graphdef, params)(table.embed(ids_L)[None].astype(jnp.float32))[0]
    with jax.default_matmul_precision("highest"):
        logits_MV = table.unembed(jax.lax.dynamic_slice_in_dim(h_LD, start - 1, columns), softcap)
    log_p_MV = jax.nn.log_softmax(logits_MV)
    tokens_M = jax.lax.dynamic_slice_in_dim(ids_L, start, columns)
    return jnp.take_along_axis(log_p_MV, tokens_M[:, None], 1)[:, 0], jax.nn.logsumexp(log_p_MV[:, ends_E], axis=1)
