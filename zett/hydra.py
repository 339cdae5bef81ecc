"""Several transferred models of one base as one model: a body, and for each tokenizer a table."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from zett.arguments import named_folders
from zett.errors import UserError
from zett.evaluate.tasks.encoded import padded_table, rounded_up
from zett.files.tensors import read_tensor, stored_tensors
from zett.generate import RowReader, Stop, Written, check_sampling, check_stop, choose, encode_prompt, room_after
from zett.lms.base import BaseModel, check_causal, load_base_model
from zett.lms.body import Body
from zett.lms.config import BodyConfig
from zett.table import EmbeddingTable
from zett.values import nearest


@dataclasses.dataclass(frozen=True, eq=False)
class HydraModel:
    """One body with several vocabularies.

    models: by name, each a model like any other, with its own table and tokenizer; all share the parameters of one body.
    """

    models: Mapping[str, BaseModel]

    def __getitem__(self, name: str) -> BaseModel:
        """The model with one of the vocabularies. UserError if there is none of this name."""
        if name not in self.models:
            raise UserError(f"there is no tokenizer {name!r} in this model; {nearest(name, self.models)}")
        return self.models[name]

    def __repr__(self) -> str:
        tables = ", ".join(f"{name}: {len(model.vocab):,} tokens" for name, model in self.models.items())
        return f"HydraModel({tables})"

    def logits(self, texts: Sequence[str | Sequence[int]], tokenizers: str | Sequence[str]) -> list[np.ndarray]:
        """Logits `[L, V]` after each token of each text, V being the size of its own tokenizer's vocabulary.

        texts: texts, or ids. tokenizers: for each the name of its tokenizer, or one for all. The body reads all texts at once.
        """
        heads = [self[name] for name in _each(tokenizers, len(texts), "texts", "tokenizers")]
        ids = [encode_prompt(m.vocab, t) if isinstance(t, str) else list(map(int, t)) for m, t in zip(heads, texts)]
        config, lengths = heads[0].config, np.asarray([len(row) for row in ids])
        if lengths.max() > config.room or not lengths.min():
            raise UserError(f"a text has {lengths.max():,} tokens, one {lengths.min():,}; the model reads 1 to {config.room:,}")
        found: list[np.ndarray] = []
        for some in _batches(config, len(ids)):
            x_BLD = np.zeros((len(some), min(rounded_up(lengths[some]), config.room), config.hidden_size), np.float32)
            positions_BL = np.minimum(np.arange(x_BLD.shape[1]), lengths[some, None] - 1)
            for x_LD, i in zip(x_BLD, some):
                x_LD[: lengths[i]] = _input_rows(heads[i], ids[i])
            h_BLD = _hidden(Body(heads[0].graphdef, heads[0].params), x_BLD, positions_BL)
            found += [_logits(heads[i], h_LD[: lengths[i]]) for i, h_LD in zip(some, h_BLD)]
        return found

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of strs, too
        self, prompt: str, read: str, write: str | None = None, *, max_tokens: int = ..., temperature: float = ...,
        seed: int = ..., stop: Stop | None = ...,
    ) -> str: ...  # fmt: skip

    @overload
    def generate(
        self, prompt: Sequence[str], read: str | Sequence[str], write: str | Sequence[str | None] | None = None, *,
        max_tokens: int = ..., temperature: float = ..., seed: int = ..., stop: Stop | Sequence[Stop | None] | None = ...,
    ) -> list[str]: ...  # fmt: skip

    def generate(self, prompt, read, write=None, *, max_tokens=128, temperature=0.0, seed=0, stop=None):
        """What the model writes after `prompt`, as `zett.generate` does; after each of a list, a list.

        read: the tokenizer of the prompt. write: that of what is written (None: the same one). Of a list of prompts, `read`,
        `write` and `stop` are each one for all, or a list. The body reads all prompts at once, and goes on with those that have
        not ended. Each is as by itself: with a temperature, all draw with the same seed.
        """
        alone = isinstance(prompt, str)
        prompts = [prompt] if alone else list(prompt)
        number = len(prompts)
        readers = [self[name] for name in _each(read, number, "prompts", "tokenizers to read")]
        names = _each(write, number, "prompts", "tokenizers to write")
        writers = [reader if name is None else self[name] for name, reader in zip(names, readers)]
        stops = _each(stop, number, "prompts", "stops")
        for one in stops:
            check_stop(one)
        check_sampling(temperature, seed)
        ids = [encode_prompt(reader.vocab, text) for reader, text in zip(readers, prompts)]
        texts = [Text(*one, room_after(one[0], one[2], max_tokens), seed) for one in zip(readers, writers, ids, stops)]
        for some in _batches(readers[0].config, number):
            _write([texts[i] for i in some], float(temperature))
        written = [text.written.text for text in texts]
        return written[0] if alone else written


class Text:
    """One of the texts of a batch.

    unread: the input rows that come next, `[L, D]`. left: how many tokens are still to be written, at most; 0: it has ended.
    """

    def __init__(self, reader: BaseModel, writer: BaseModel, ids: list[int], stop: Stop | None, left: int, seed: int):
        # What is written in other tokens than the prompt begins a text of its own.
        self.written = Written(writer, ids if reader is writer else [], stop)
        self.writer, self.unread, self.left = writer, _input_rows(reader, ids), left
        self._rng = np.random.default_rng(seed)

    def take(self, logits_V: np.ndarray, temperature: float) -> int:
        """Choose the next token; returns it."""
        token = choose(logits_V, temperature, self._rng)
        self.left = self.left - 1 if self.written.goes_on_with(token) else 0
        return token


def _write(texts: Sequence[Text], temperature: float) -> None:
    """Write all texts to their ends, in step."""
    reader = RowReader(texts[0].writer, len(texts), max(len(text.unread) + text.left for text in texts))
    writers = list({id(text.writer): text.writer for text in texts}.values())
    tables = [(padded_table(writer.table), [i for i, t in enumerate(texts) if t.writer is writer]) for writer in writers]
    while any(text.left for text in texts):
        h_BD = reader([text.unread for text in texts])
        for writer, (table, rows) in zip(writers, tables):
            some = [texts[i] for i in rows]
            if any(text.left for text in some):
                logits = np.asarray(_unembed(table, h_BD[rows], writer.config.logit_softcap))[:, : len(writer.vocab)]
                tokens = [text.take(logits_V, temperature) if text.left else 0 for text, logits_V in zip(some, logits)]
                for text, x_LD in zip(some, np.asarray(_embed(table, np.asarray(tokens)[:, None]))):
                    text.unread = x_LD if text.left else x_LD[:0]


def _each(given: Any, number: int, texts: str, what: str) -> list:
    """Of a list its items, else `given` for all. UserError unless there is one for each."""
    items = [given] * number if given is None or isinstance(given, str) or callable(given) else list(given)
    if len(items) != number or not items:
        raise UserError(f"there are {number} {texts} and {len(items)} {what}; give one for each, or one for all")
    return items


def _batches(config: BodyConfig, number: int) -> list[list[int]]:
    """The texts that the body reads at once: alone where how it reads depends on the longest one."""
    return [[i] for i in range(number)] if config.restarts else [list(range(number))]


def _input_rows(model: BaseModel, ids: Sequence[int]) -> np.ndarray:
    return np.asarray(model.table.input[np.asarray(ids, np.int32)], np.float32)


def load_hydra(models: str | Path | Sequence[str | Path] | Mapping[str, str | Path], *, dtype: str = "float32") -> HydraModel:
    """Several models that differ in their vocabularies alone, such as `zett transfer` makes of one base, as one.

    models: folders by the names of their tokenizers, or folders, which are called by their own names; the base model may be one
    of them. dtype: of the body's matrix products. UserError unless all have the same body, bit for bit.
    """
    given = named_folders(models)
    if not given:
        raise UserError("there is no model to load; give the folders of one or more")
    (name, folder), *others = given.items()
    first = load_base_model(folder, dtype=dtype)
    check_causal(first)
    loaded = {name: first}
    tensors = _body_tensors(first)
    for name, folder in others:
        model = load_base_model(folder, body=False)
        _check_body(first, model, tensors)
        columns = (model.table.input, model.table.output, model.table.bias)
        table = EmbeddingTable.of(*(None if rows is None else jnp.asarray(rows, jnp.float32) for rows in columns))
        loaded[name] = dataclasses.replace(model, graphdef=first.graphdef, params=first.params, table=table)
    return HydraModel(loaded)


def _body_tensors(model: BaseModel) -> dict[str, np.ndarray]:
    """All tensors but those of the vocabulary, mapped from the files."""
    stored, names = stored_tensors(model.folder), model.names
    return {n: read_tensor(stored, n) for n in stored if n not in {*names.input, *names.output, *names.bias}}


def _check_body(first: BaseModel, other: BaseModel, tensors: Mapping[str, np.ndarray]) -> None:
    theirs = _body_tensors(other)
    wrong = sorted(tensors.keys() ^ theirs.keys())
    wrong = wrong or [n for n, x in tensors.items() if x.dtype != theirs[n].dtype or not np.array_equal(x, theirs[n])]
    if wrong or other.config != first.config:
        what = f"{wrong[0]} differs" if wrong else "config.json describes another body"
        raise UserError(
            f"{other.name} and {first.name} do not have the same body: {what}; give models that were transferred from one base"
        )


@jax.jit
def _hidden(body: Body, x_BLD, positions_BL):
    return body(x_BLD, positions_BL=positions_BL)


_embed = jax.jit(EmbeddingTable.embed)


@functools.partial(jax.jit, static_argnames="softcap")
def _unembed(table: EmbeddingTable, h_BD, softcap):
    with jax.default_matmul_precision("highest"):
        return table.unembed(h_BD, softcap)


def _logits(model: BaseModel, h_LD) -> np.ndarray:
    with jax.default_matmul_precision("highest"):
        return np.asarray(model.table.unembed(h_LD, model.config.logit_softcap))
