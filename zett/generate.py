"""Text from a causal model, one token after another; what has been read is kept in a cache.

A model in memory with another vocabulary (`base.with_vocabulary(table, vocab)`) writes as one loaded from a folder does.
"""

import dataclasses
import functools
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from zett.errors import UserError
from zett.evaluate.tasks.encoded import padded_table
from zett.lms.base import BaseModel, check_causal
from zett.lms.body import Body
from zett.lms.cache import Cache
from zett.lms.config import BodyConfig
from zett.table import EmbeddingTable
from zett.values import check_count, check_seed
from zett.vocab import Vocabulary
from zett.vocab.pairing import followed_ends
from zett.vocab.prompts import around, chat_template

# The smallest sizes of a prompt and of a cache, in tokens. Others are these doubled, so that few shapes are compiled.
PROMPT, CACHE = 64, 256
UNFINISHED = "\ufffd"  # what a decoder writes for bytes that are no character yet

# A text before which to stop, or a function of the text so far that says whether to stop.
Stop = str | Callable[[str], bool]


def generate(
    model: BaseModel, prompt: str, *, max_tokens: int = 128, temperature: float = 0.0, seed: int = 0, stop: Stop | None = None
) -> str:
    """What the model writes after `prompt`, without special tokens.

    It ends with a token that ends a text, by `stop` (a text is left out, with all that follows it), or where `generate_ids`
    does. Special tokens in the prompt, such as those of a chat template, are read as what they are.
    """
    check_stop(stop)
    ids = encode_prompt(model.vocab, prompt)
    return until(model, ids, generate_ids(model, ids, max_tokens=max_tokens, temperature=temperature, seed=seed), stop)


def check_stop(stop: Stop | None) -> None:
    """UserError unless it says where to stop, or is None."""
    if stop is not None and not callable(stop) and not (isinstance(stop, str) and stop):
        raise UserError(f"stop is {stop!r}; it has to be a text, or a function of a text that says whether to stop")


def until(model: BaseModel, prompt: Sequence[int], tokens: Iterable[int], stop: Stop | None) -> str:
    """The text of `tokens`, which the model writes after the tokens `prompt`, up to an end of text or `stop`."""
    written = Written(model, prompt, stop)
    for token in tokens:
        if not written.goes_on_with(token):
            break
    return written.text


class Written:
    """What the model writes after the tokens `prompt`, as it comes, up to an end of text or `stop`."""

    def __init__(self, model: BaseModel, prompt: Sequence[int], stop: Stop | None):
        self._vocab, self._prompt, self._stop, self._ends = model.vocab, prompt, stop, ends_of(model)
        self._ids: list[int] = []

    @property
    def text(self) -> str:
        text = continuation(self._vocab, self._prompt, self._ids)
        return text.partition(self._stop)[0] if isinstance(self._stop, str) else text

    def goes_on_with(self, token: int) -> bool:
        """Take the next token; whether there is more to write."""
        if token in self._ends:
            return False
        self._ids.append(token)
        if self._stop is None:
            return True
        text = continuation(self._vocab, self._prompt, self._ids)
        return self._stop not in text if isinstance(self._stop, str) else not self._stop(text)


def generate_ids(
    model: BaseModel, ids: Sequence[int], *, max_tokens: int = 128, temperature: float = 0.0, seed: int = 0
) -> Iterator[int]:
    """What the model writes after the tokens `ids`, token by token; one that ends a text is the last.

    Without one, it ends after `max_tokens`, or where the model has no more positions. temperature: 0 for the most probable
    token each time; else tokens are drawn, with logits divided by it, and equal seeds draw the same. UserError for an encoder,
    for a prompt that leaves no position, and for values that make no sense.
    """
    check_causal(model)
    check_sampling(temperature, seed)
    return _write(model, list(map(int, ids)), room_after(model, ids, max_tokens), float(temperature), int(seed))


def room_after(model: BaseModel, ids: Sequence[int], max_tokens: int) -> int:
    """How many tokens the model can write after `ids`, at most `max_tokens`. UserError if none."""
    if model.params is None:
        raise UserError(f"{model.name} was loaded without its body (body=False), so it cannot write")
    check_count(max_tokens, "max_tokens")
    if not len(ids):
        raise UserError("there is no token to go on from; give a prompt with at least one")
    room = model.config.room - len(ids)
    if room < 1:
        raise UserError(f"the prompt has {len(ids):,} tokens; {model.name} has {model.config.room:,} positions: give less text")
    return min(int(max_tokens), room)


def check_sampling(temperature: float, seed: int) -> None:
    """UserError for a temperature or a seed that makes no sense."""
    if not isinstance(temperature, numbers.Real) or not 0 <= temperature < math.inf:
        raise UserError(f"temperature is {temperature!r}; it has to be a number, at least 0")
    check_seed(seed)


def encode_prompt(vocab: Vocabulary, prompt: str) -> list[int]:
    """Ids of `prompt`, opened as the tokenizer opens a text (unless it is already); what it puts at the end is left out.

    An empty prompt is the token that begins a text, or the one that ends the text before it. UserError if there is neither.
    """
    opening = list(around(vocab)[0])
    ids = vocab.tokenizer.encode(prompt, add_special_tokens=False).ids
    if ids[: len(opening)] != opening:
        ids = opening + ids
    if not ids:
        first = vocab.roles.get("bos", vocab.roles.get("eos"))
        if first is None:
            raise UserError(f"the prompt is {prompt!r}, and the tokenizer has no token that begins a text; give some text")
        ids = [first]
    return ids


def continuation(vocab: Vocabulary, prompt: Sequence[int], written: Sequence[int]) -> str:
    """The text of the tokens `written` after the tokens `prompt`, without special tokens and an unfinished last character."""
    # What a token's text is depends on what comes before it: a decoder drops a text's first space, and joins bytes.
    before, whole = (vocab.tokenizer.decode(list(ids), skip_special_tokens=True) for ids in (prompt, [*prompt, *written]))
    return whole[len(before) :].rstrip(UNFINISHED)


def ends_of(model: BaseModel) -> set[int]:
    """Ids that end a text, by the files of the tokenizer and the model; with another vocabulary, those that stand for them."""
    ends = set(model.vocab.ends)
    if model.original is not None:
        ends.update(followed_ends(list(model.original.vocab.ends), model.vocab, model.original.vocab))
    return ends


def chat_prompt(vocab: Vocabulary, messages: Sequence[dict[str, str]]) -> str:
    """The prompt for a model's answer to `messages` (`{"role": "user", "content": ...}`), by the tokenizer's chat template."""
    return chat_texts(vocab, [messages])[0]


def chat_texts(vocab: Vocabulary, conversations: Sequence[Sequence[dict[str, str]]]) -> list[str]:
    """The prompts for a model's answers to several conversations; see `chat_prompt`."""
    return chat_writer(vocab)(conversations)


def chat_writer(vocab: Vocabulary, *, answered: bool = False) -> Callable[[Sequence[Sequence[dict[str, str]]]], list[str]]:
    """What writes conversations as the tokenizer's chat template does, ready for an answer; answered: each ends with one."""
    if chat_template(vocab.folder) is None:
        raise UserError(f"the tokenizer{f' in {vocab.folder}' if vocab.folder else ''} has no chat template; give a text")
    import jinja2
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(vocab.folder, trust_remote_code=False)

    def text_of(messages) -> str:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=not answered))

    def write(conversations) -> list[str]:
        try:
            return [text_of(messages) for messages in conversations]
        except jinja2.TemplateError as error:
            raise UserError(f"{vocab.folder}: the chat template does not take these messages: {error}") from error

    return write


def _write(model: BaseModel, ids: list[int], number: int, temperature: float, seed: int) -> Iterator[int]:
    ends, rng = ends_of(model), np.random.default_rng(seed)
    for (token,) in next_tokens(model, np.asarray([ids]), number, temperature, rng):
        yield token
        if token in ends:
            return


def next_tokens(
    model: BaseModel, ids_BL: np.ndarray, number: int, temperature: float, rng: np.random.Generator
) -> Iterator[list[int]]:
    """What follows texts of equal length, `number` times a token of each, whatever ends a text. There has to be room."""
    config, (batch, length) = model.config, ids_BL.shape
    body, table = Body(model.graphdef, model.params), padded_table(model.table)
    size = doubled(CACHE, length + number)
    unread = ids_BL[:, :0]
    for _ in range(number):
        if not unread.size or ids_BL.shape[1] - 1 in config.restarts:
            unread, cache = ids_BL, Cache.empty(config, size, batch=batch)
        read = unread.shape[1]
        columns = columns_for(read, config)
        padded = np.pad(unread, ((0, 0), (0, columns - read))).astype(np.int32)
        logits, cache = read_tokens(body, table, cache, padded, np.int32(read), config.logit_softcap)
        tokens = [choose(row, temperature, rng) for row in np.asarray(logits)[:, : len(model.vocab)]]
        yield tokens
        unread = np.asarray(tokens)[:, None]
        ids_BL = np.concatenate([ids_BL, unread], 1)


def doubled(size: int, least: int) -> int:
    while size < least:
        size *= 2
    return size


def columns_for(length: int, config: BodyConfig) -> int:
    """How many columns the body reads at once for `length` tokens of a text."""
    return min(doubled(PROMPT, length), config.room) if length > 1 else 1


@functools.partial(jax.jit, static_argnames="softcap", donate_argnames="cache")
def read_tokens(body: Body, table: EmbeddingTable, cache: Cache, ids_BL, number, softcap):
    """Logits `[B, V]` after the first `number` of the tokens, in float32, and the cache with these. The others are padding."""
    h_BD, cache = read_rows(body, cache, table.embed(ids_BL).astype(jnp.float32), number)
    with jax.default_matmul_precision("highest"):
        return table.unembed(h_BD, softcap), cache


def read_rows(body: Body, cache: Cache, x_BLD, number):
    """Hidden states `[B, D]` after the first `number` (one, or `[B]`) input rows, and the cache with these.

    The others are padding. Of a text with the number 0 nothing is read, and its state means nothing.
    """
    used = cache.used + number
    # Frequencies may depend on the largest position, so padding has none of its own.
    positions_BL = jnp.minimum(cache.columns(x_BLD.shape[1]), jnp.maximum(used - 1, 0)[:, None])
    h_BLD, read = body(x_BLD, positions_BL=positions_BL, cache=cache)
    last = jnp.broadcast_to(number - 1, used.shape)[:, None, None]
    return jnp.take_along_axis(h_BLD, last, 1)[:, 0], dataclasses.replace(read, used=used)


class RowReader:
    """A model's body with a cache of what it has read of some texts, whose input rows are given as they are.

    size: rows that a text has at most. It reads one text alone if the config has `restarts`.
    """

    def __init__(self, model: BaseModel, texts: int, size: int):
        assert texts == 1 or not model.config.restarts
        self._config, self._body, self._texts, self._size = model.config, Body(model.graphdef, model.params), texts, size
        self._read: list[np.ndarray] = []
        self._cache: Cache | None = None

    def __call__(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Hidden states `[B, D]` after the next rows `[L, D]` of each text. A text that has ended has none, `[0, D]`."""
        if self._config.restarts:
            self._read += rows
            if sum(map(len, self._read)) - 1 in self._config.restarts:
                self._cache, rows = None, [np.concatenate(self._read)]
        if self._cache is None:
            self._cache = Cache.empty(self._config, doubled(CACHE, self._size), batch=self._texts)
        lengths = np.asarray([len(x_LD) for x_LD in rows], np.int32)
        x_BLD = np.zeros((len(rows), columns_for(int(lengths.max()), self._config), self._config.hidden_size), np.float32)
        for x_LD, some in zip(x_BLD, rows):
            x_LD[: len(some)] = some
        h_BD, self._cache = _read_rows(self._body, self._cache, x_BLD, lengths)
        return np.asarray(h_BD)


_read_rows = jax.jit(read_rows, donate_argnames="cache")


def choose(logits_V: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    if temperature == 0:
        return int(logits_V.argmax())
    return int(rng.choice(len(logits_V), p=chances(logits_V, temperature)))


def chances(logits_V: np.ndarray, temperature: float) -> np.ndarray:
    """Of each token `[V]`; with the temperature 0, 1 for the most probable one."""
    if temperature == 0:
        return np.eye(1, len(logits_V), int(logits_V.argmax()))[0]
    weights = np.exp((logits_V.astype(np.float64) - logits_V.max()) / temperature)
    return weights / weights.sum()
