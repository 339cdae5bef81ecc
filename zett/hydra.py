"""Several transferred models of one base as one model: a body, and for each tokenizer a table."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from zett.arguments import named_folders
from zett.errors import UserError
from zett.evaluate.tasks.encoded import rounded_up
from zett.files.tensors import read_tensor, stored_tensors
from zett.generate import Stop, check_stop, encode_prompt, generate, generate_ids, until
from zett.lms.base import BaseModel, check_causal, load_base_model
from zett.lms.body import Body
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
        names = [tokenizers] * len(texts) if isinstance(tokenizers, str) else list(tokenizers)
        if len(names) != len(texts) or not names:
            raise UserError(f"there are {len(texts)} texts and {len(names)} tokenizers; give a tokenizer for each text, or one")
        heads = [self[name] for name in names]
        ids = [encode_prompt(m.vocab, t) if isinstance(t, str) else list(map(int, t)) for m, t in zip(heads, texts)]
        room, lengths = heads[0].config.room, np.asarray([len(row) for row in ids])
        if lengths.max() > room or not lengths.min():
            raise UserError(f"a text has {lengths.max():,} tokens, one {lengths.min():,}; the model reads 1 to {room:,}")
        x_BLD = np.zeros((len(ids), min(rounded_up(lengths), room), heads[0].config.hidden_size), np.float32)
        for row, model, x_LD in zip(ids, heads, x_BLD):
            x_LD[: len(row)] = np.asarray(model.table.input[np.asarray(row)], np.float32)
        h_BLD = _hidden(Body(heads[0].graphdef, heads[0].params), x_BLD)
        return [_logits(model, h_LD[: len(row)]) for row, model, h_LD in zip(ids, heads, h_BLD)]

    def generate(
        self, prompt: str, read: str, write: str | None = None, *, max_tokens: int = 128, temperature: float = 0.0,
        seed: int = 0, stop: Stop | None = None,
    ) -> str:  # fmt: skip
        """What the model writes after `prompt`, as `zett.generate` does.

        read: the tokenizer of the prompt. write: that of what is written (None: the same one).
        """
        options: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature, "seed": seed}
        reader, writer = self[read], self[read if write is None else write]
        if reader is writer:
            return generate(reader, prompt, stop=stop, **options)
        check_stop(stop)
        ids, mixed = encode_prompt(reader.vocab, prompt), reading_and_writing(reader, writer)
        return until(writer, [], generate_ids(mixed, ids, offset=len(reader.table.input), **options), stop)


def reading_and_writing(reader: BaseModel, writer: BaseModel) -> BaseModel:
    """A model that writes tokens of `writer`; its input rows are those of `reader`, and after these those of `writer`."""
    sides = [jnp.asarray(model.table.input, jnp.float32) for model in (reader, writer)]
    output = jnp.asarray(writer.table.output_rows, jnp.float32)
    return dataclasses.replace(
        writer, table=EmbeddingTable(jnp.concatenate(sides), output, writer.table.bias, writer.table.num_valid)
    )


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
def _hidden(body: Body, x_BLD):
    return body(x_BLD)


def _logits(model: BaseModel, h_LD) -> np.ndarray:
    with jax.default_matmul_precision("highest"):
        return np.asarray(model.table.unembed(h_LD, model.config.logit_softcap))
