"""A base model as a value, loaded from and saved to Hugging Face folders."""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett import gguf
from zett.errors import UserError
from zett.files.jsonfile import read_json
from zett.files.resolve import BASE_MODEL, find
from zett.files.tensors import read_tensor, same, stored_tensors
from zett.lms.checks import check_adapter, check_quantisation_file, quantised
from zett.lms.config import BodyConfig
from zett.lms.family import FAMILIES, Family, Unported, family_of, is_tied, read_family
from zett.lms.layers import Remat, product_dtype
from zett.lms.unported import check_quantised, find_names
from zett.lms.weights import (
    VocabularyNames,
    canonical,
    check_layers,
    check_tensors,
    flatten,
    load_body,
    names_of_family,
    replicated,
)
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary, load_tokenizer

# Fields of config.json that are part of the fingerprint. If this list changed, no existing hypernetwork would fit any model.
SHAPE_FIELDS = ["model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """A pretrained language model: body (`graphdef` and `params`, layers stacked) and table `[len(vocab), D]`, as values.

    hf_config: its config.json. config: a `BodyConfig`. names: how its files call the table's tensors. If the model was loaded
    without its body, params is None, and the table has the dtype of the files; if its architecture is not ported, config and
    graphdef are None, too. original: for a model with another vocabulary, the model with its own that it was made from.
    """

    name: str
    folder: Path
    hf_config: dict
    config: Any
    graphdef: Any
    params: dict | None
    table: EmbeddingTable
    vocab: Vocabulary
    names: VocabularyNames
    original: "BaseModel | None" = None

    @property
    def causal(self) -> bool:
        """Whether a token sees only what comes before it, so that texts have probabilities; else the model is an encoder.

        A model that is not ported is taken for causal.
        """
        return self.config is None or self.config.causal

    @property
    def bos_row(self) -> np.ndarray:
        """The input row `[D]` that opens a text, float32: that of bos, else of eos, else the mean of all rows.

        The body was trained with it, so a model with another vocabulary keeps its original's.
        """
        if self.original is not None:
            return self.original.bos_row
        rows = np.asarray(self.table.input)
        row = self.vocab.roles.get("bos", self.vocab.roles.get("eos"))
        return rows.mean(0, dtype=np.float32) if row is None else rows[row].astype(np.float32)

    def __repr__(self) -> str:
        model_type, body = self.hf_config.get("model_type"), "without its body" if self.params is None else "with its body"
        return f"BaseModel({self.name!r}, {model_type}, {len(self.vocab):,} tokens, {body}, in {self.folder})"

    def with_vocabulary(self, table: EmbeddingTable, vocab: Vocabulary) -> "BaseModel":
        """This model with the tokens of `vocab`, whose rows are `table`: a model like any other."""
        if int(table.num_valid) != len(vocab):
            raise ValueError(f"the table has {int(table.num_valid)} rows for a vocabulary of {len(vocab)}")
        return dataclasses.replace(self, table=table, vocab=vocab, original=self.original or self)

    def with_changes(self, changes: dict) -> "BaseModel":
        """This model with `changes`, a nested dict of arrays like those of its body, added to these; they become float32."""
        if self.params is None:
            raise ValueError(f"{self.name} was read without its body, which is to be changed")
        return dataclasses.replace(self, params=added(self.params, changes))

    @functools.cached_property
    def fingerprint(self) -> str:
        """By what a hypernetwork knows its base model: SHA-256 (hex) of the body's shape and of its rows' values."""
        digest = hashlib.sha256(json.dumps([self.hf_config.get(field) for field in SHAPE_FIELDS]).encode())
        for rows in (self.table.input, self.table.output):
            # Values are hashed, not files: stored in a wider dtype or in other shards, it is the same model.
            if rows is None:
                digest.update(b"-")
                continue
            values = np.asarray(rows)
            for start in range(0, len(values), 4096):  # in parts, since a float32 copy of all rows may not fit
                digest.update(np.ascontiguousarray(values[start : start + 4096], np.float32).view(np.uint8).data)
        return digest.hexdigest()


def added(body: dict, changes: dict) -> dict:
    """A body's parameters with changes of the same shapes added, float32."""
    return jax.tree.map(lambda x, change: x.astype(jnp.float32) + change, body, changes)


def load_base_model(
    name: str | Path, *, dtype: str = "float32", param_dtype: str = "float32", mesh: jax.sharding.Mesh | None = None,
    remat: Remat = "none", revision: str | None = None, body: bool = True, vocab: Vocabulary | None = None,
) -> BaseModel:  # fmt: skip
    """Load "pico" (in the package), a Hugging Face folder, a GGUF file, or a name on the Hugging Face Hub (at `revision`).

    dtype: of the body's matrix products. param_dtype: of its layers' matrices; its other parameters are float32. Both are
    "float32", "bfloat16" or "auto" (what is fast on this hardware). mesh: the devices over which the body is spread, by its
    family's partition specs (axes "fsdp" and "tensor"); every device gets the whole table. remat: what a backward pass keeps of
    each layer: everything ("none"), the results of matrix products ("dots") or the inputs alone ("full"). body: False to read
    only the table and the tokenizer, which works for any architecture; the weights of known families are checked all the same.
    vocab: its own, if that has been read already.
    UserError for anything that is not a model of a known family with whole weights.
    """
    dtype, param_dtype = product_dtype(dtype).name, product_dtype(param_dtype, "param_dtype").name
    folder = find_folder(name, revision)
    hf_config = read_json(folder / "config.json")
    check_quantisation_file(folder, hf_config)
    try:
        family, config = read_family(hf_config, folder / "config.json")
    except Unported:
        if body:
            raise
        return _unported(str(name), folder, hf_config)
    as_stored = stored_tensors(folder)
    stored = canonical(as_stored, family)
    check_layers(stored, family, config, folder / "config.json")
    if family.head is not None:
        config = dataclasses.replace(config, head=any(name.startswith(family.head) for name in stored))
    make_body = functools.partial(family.Body, config, dtype=jnp.dtype(dtype), remat=remat)
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: make_body(rngs=nnx.Rngs(0))))
    shapes = {path: leaf.shape for path, leaf in flatten(nnx.to_pure_dict(abstract)).items()}
    tied = is_tied(hf_config)
    check_tensors(stored, family, config, shapes, vocab_size=hf_config["vocab_size"], tied=tied)
    names = names_of_family(family, as_stored)
    table, vocab = _table(folder, as_stored, names, vocab, tied=tied)
    if not body:
        return BaseModel(str(name), folder, hf_config, config, graphdef, None, table, vocab, names)
    params = load_body(stored, family, config, shapes, dtype=param_dtype, mesh=mesh)
    # The table is put on the device here, so that no call of a jitted function has to copy it there.
    columns = (table.input, table.output, table.bias)
    placed = (None if rows is None else replicated(np.asarray(rows), mesh) for rows in columns)
    table = EmbeddingTable.of(*placed)
    return BaseModel(str(name), folder, hf_config, config, graphdef, params, table, vocab, names)


def _unported(name: str, folder: Path, hf_config: dict) -> BaseModel:
    """A model whose body is not computed here: its table, found in its files, and its tokenizer."""
    stored = stored_tensors(folder)
    method = quantised(hf_config, folder / "config.json")
    if method is not None:
        check_quantised(method, stored, folder)
    names = find_names(hf_config, stored, folder)
    if method is not None and not names.output and hf_config["model_type"] in FAMILIES and not is_tied(hf_config):
        raise UserError(
            f"{folder} is quantised with {method}, and its output rows are not found; give the model it was made from"
        )
    table, vocab = _table(folder, stored, names, None, tied=not names.output)
    return BaseModel(name, folder, hf_config, None, None, None, table, vocab, names)


def _table(
    folder: Path, stored, names: VocabularyNames, vocab: Vocabulary | None, *, tied: bool
) -> tuple[EmbeddingTable, Vocabulary]:
    """The table in the dtype of the files, mapped from them, and the vocabulary that it belongs to (`vocab`, if it is read)."""

    def read(copies: tuple[str, ...], *, alike: bool = True):
        if not copies:
            return None
        rows = read_tensor(stored, copies[0])
        for other in copies[1:] if alike else ():
            if not same(stored, copies[0], other):
                raise UserError(f"{folder}: {copies[0]} and {other} should be the same, but differ")
        return rows

    # An untied model computes with one of two biases, and the other may be anything: they need to be equal in tied ones only.
    rows, output, bias = read(names.input), read(names.output), read(names.bias, alike=tied)
    if tied and output is not None and not same(stored, names.input[0], names.output[0]):
        raise UserError(
            f"{folder / 'config.json'} says tie_word_embeddings, but {names.output[0]} differs from {names.input[0]} in "
            f"{stored[names.output[0]].file.name}; if the output rows are meant, set tie_word_embeddings to false"
        )
    vocab = load_tokenizer(folder, rows=len(rows)) if vocab is None else vocab
    size = len(vocab)
    if len(rows) < size:
        raise UserError(f"{folder}: the tokenizer has {size} ids, the embedding table only {len(rows)} rows; they do not match")
    # Rows beyond the tokenizer's ids are padding that was never trained, so no method may learn from them.
    output = None if tied or output is None else output[:size]
    return EmbeddingTable.of(rows[:size], output, None if bias is None else bias[:size]), vocab


def check_causal(base: BaseModel) -> None:
    """UserError for an encoder."""
    if not base.causal:
        model_type = base.hf_config["model_type"]
        raise UserError(f"{base.name} is a bidirectional encoder ({model_type}); this needs a causal language model")


def added_output(base: BaseModel) -> str:
    """The name of the output rows that a tied model's files get where it becomes untied; UserError if nobody knows it."""
    model_type, known = base.hf_config.get("model_type"), base.hf_config.get("model_type") in FAMILIES
    if not known:
        raise UserError(
            f"{base.name} is a model of type {model_type!r} whose output rows are its input rows (tied), and what its own "
            "output rows would be called is not known here; choose a method, or settings of it, that leave it tied"
        )
    if base.config is not None and not base.config.head:
        raise UserError(f"{base.name} has no head, so that it cannot get output rows; choose a method without them")
    return family_of(base.hf_config).output_rows


@functools.cache
def body_shapes(family: Family, config: BodyConfig) -> dict[str, tuple]:
    """Shapes of a body's parameters by dotted path, layers stacked; nothing is allocated."""
    abstract = nnx.split(nnx.eval_shape(lambda: family.Body(config, rngs=nnx.Rngs(0))))[1]
    return {path: leaf.shape for path, leaf in flatten(nnx.to_pure_dict(abstract)).items()}


def find_folder(name: str | Path, revision: str | None = None) -> Path:
    """The local folder of a base model, downloaded if `name` is one on the Hub; UserError if there is none."""
    file = gguf.find_gguf(name)
    return find(name, BASE_MODEL, revision=revision, check=check_adapter) if file is None else gguf.convert(file)
