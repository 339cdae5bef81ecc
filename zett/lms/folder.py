"""Writing model folders in Hugging Face's format: a base model with another vocabulary, or with trained values."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from zett.errors import UserError
from zett.files.folders import (
    LEGAL_FILES,
    SENTENCE_FILES,
    TOKENIZER_FILES,
    check_output,
    copy_files,
    found,
    new_folder,
)
from zett.files.jsonfile import write_json
from zett.files.tensors import (
    FLOATS,
    INDEX_FILE,
    WEIGHTS_FILE,
    Made,
    Stored,
    file_metadata,
    read_tensor,
    stored_tensors,
    write_tensors,
)
from zett.lms.base import BaseModel, added_output
from zett.lms.class_defaults import with_defaults
from zett.lms.family import family_of, is_tied
from zett.lms.like import Like
from zett.lms.padding import with_padding
from zett.lms.unported import PADDED_POSITIONS, set_vocabulary_size, vocabulary_config
from zett.lms.weights import body_tensors, spelled
from zett.table import EmbeddingTable
from zett.vocab import ROLES, Vocabulary
from zett.vocab.adapt import OLD_TOKEN_SETTINGS, follow_ids
from zett.vocab.files import copy_tokenizer
from zett.vocab.train import END_OF_TEXT, PAD, save_tokenizer


def write_model(
    folder: Path, base: BaseModel, target: Vocabulary, table: EmbeddingTable, body: dict | None = None, *,
    per_layer: np.ndarray | None = None, tokenizer_file: Path | None = None, like: Like | None = None,
) -> None:  # fmt: skip
    """Write into `folder` the model `base` with the rows of `table` and the tokenizer `target`, in Hugging Face's format.

    body: the parameters of its body; None, or `base`'s own: its tensors are copied. per_layer: the rows of
    `base.names.per_layer`, if it has any. tokenizer_file: a tokenizer.json that was given alone; None: the tokenizer's files
    come from `target.folder`. like: the model that it drafts for, whose number of rows, ids and chat template it gets.
    """
    size = int(table.num_valid)
    if size != len(target):
        raise ValueError(f"the table has {size} rows for a tokenizer of {len(target)}")
    if (table.bias is None) != (base.table.bias is None):
        raise ValueError(f"the table {'lacks' if table.bias is None else 'has'} an output bias, unlike {base.name}'s")
    tokenizer_class = copy_tokenizer(folder, target, tokenizer_file)
    copy_files(companions(base.folder), folder)
    # An id that the target lacks is written as null: without the key, Transformers would assume Llama's ids.
    ids = dict.fromkeys(f"{role}_token_id" for role in ("bos", "eos", "pad"))
    config = with_defaults(base.hf_config, base.vocab)
    hf_config = _follow_other_ids(follow_ids({**ids, **config}, target, base.vocab), base, target)
    if like is not None:
        hf_config, table, size = like.follow(hf_config, like.config, target), with_padding(table, like.rows), like.rows
        per_layer = None if per_layer is None else np.asarray(with_padding(EmbeddingTable.of(per_layer), like.rows).input)
        like.write_template(folder)
    owner = vocabulary_config(hf_config, folder / "config.json")
    set_vocabulary_size(hf_config, size, folder / "config.json", base.names)
    if (table.output is None) != (base.table.output is None):
        for part in (hf_config, owner):
            part["tie_word_embeddings"] = table.output is None
    hf_config |= _write_weights(folder, base, table, body, per_layer, size, hf_config)
    # Without this field, AutoTokenizer would guess the class from model_type, and turn the tokenizer into a Llama's.
    hf_config["tokenizer_class"] = tokenizer_class
    write_json(folder / "config.json", hf_config)
    generation = base.folder / "generation_config.json"
    settings = json.loads(generation.read_text(encoding="utf-8")) if generation.is_file() else {}
    own_ends = {"eos_token_id": config.get("eos_token_id")}
    settings = {k: v for k, v in {**ids, **own_ends, **settings}.items() if k not in OLD_TOKEN_SETTINGS}
    settings = _follow_other_ids(follow_ids(settings, target, base.vocab, several=True), base, target)
    if like is not None:
        settings = like.follow(settings, {**like.config, **like.generation}, target)
    write_json(folder / "generation_config.json", {k: v for k, v in settings.items() if k not in ids or v is not None})


def _follow_other_ids(config: dict, base, target) -> dict:
    """`config` with the target's ids of further tokens, such as `image_token_id` and `decoder_start_token_id`."""

    def follow(key: str, old: int) -> int:
        text = base.vocab.tokenizer.id_to_token(old)
        roles = [role for role, i in base.vocab.roles.items() if i == old and role in target.roles]
        new = target.special.get(text, target.roles[roles[0]] if roles else None)
        if new is None:
            raise UserError(
                f"{base.folder / 'config.json'}: {key} is the token {text!r} ({old}), which the target tokenizer lacks; "
                "give a tokenizer that has it, or --special add-missing"
            )
        return new

    followed = {}
    for key, value in config.items():
        if isinstance(value, dict):
            value = _follow_other_ids(value, base, target)
        elif (match := re.fullmatch(r"(.+)_token_(id|ids|index)", key)) and match[1] not in ROLES and value is not None:
            value = [follow(key, i) for i in value] if isinstance(value, list) else follow(key, value)
        followed[key] = value
    return followed


def write_trained(folder: Path, base: BaseModel, table: EmbeddingTable, body: dict | None = None) -> None:
    """Write into `folder` the model `base` with other values: the rows of `table`, and the parameters `body` (None: its own).

    Names, shards and dtypes of its tensors stay, and so do rows beyond the tokenizer's ids. Its other files are copied. A tied
    model becomes an untied one if the table has output rows.
    """
    copy_files(
        companions(base.folder) + found(base.folder, [*TOKENIZER_FILES, "config.json", "generation_config.json"]), folder
    )
    if becomes_untied(base, table):
        write_json(folder / "config.json", {**base.hf_config, "tie_word_embeddings": False})
    stored = stored_tensors(base.folder)
    new = {}
    for name, rows in _vocabulary_rows(base, stored, table, len(base.vocab)).items():
        # Output rows that are added have as many rows as the input rows that they were.
        beyond = read_tensor(stored, name if name in stored else base.names.input[0])[len(rows) :]
        new[name] = np.concatenate([rows, beyond]) if len(beyond) else rows
    write_shards(folder, base, stored, new | _body_tensors(base, stored, body))


def companions(folder: Path) -> list[Path]:
    """Files that every model made from this one gets: licences, and the modules of a sentence-embedding model."""
    paths = found(folder, LEGAL_FILES)
    modules = folder / "modules.json"
    if modules.is_file():
        try:
            listed = json.loads(modules.read_text(encoding="utf-8"))
            named = {module["path"]: str(module.get("type")) for module in listed if module["path"]}
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{modules} is not a list of modules with paths ({error!r}); copy or download it again") from error
        # A module without settings has an empty folder, which neither Git nor packages keep.
        names = [name for name, of in named.items() if not of.endswith(".Normalize") or (folder / name).exists()]
        absent = [name for name in names if Path(name).name != name or not (folder / name).is_dir()]
        if absent:
            raise UserError(f"{modules} names folders that are not in {folder}: {', '.join(map(str, absent))}")
        paths += [modules, *(folder / name for name in names)]
        paths += [folder / name for name in SENTENCE_FILES if (folder / name).is_file()]
    return paths


def _write_weights(folder: Path, base, table, body, per_layer, size: int, hf_config: dict) -> dict:
    """Write the base's safetensors files, shard by shard, with new vocabulary rows in the dtype of the old ones.

    Returns fields of config.json that change with the padding id, if positions count from it.
    """
    stored = stored_tensors(base.folder)
    positions, fields = follow_padding(base, stored, hf_config["pad_token_id"])
    new = _vocabulary_rows(base, stored, table, size) | dict.fromkeys(base.names.per_layer, per_layer)
    new |= _body_tensors(base, stored, None if body is base.params else body) | positions
    write_shards(folder, base, stored, new)
    return fields


def follow_padding(base: BaseModel, stored, new_id: int | None) -> tuple[dict[str, np.ndarray], dict]:
    """Tensors, and fields of config.json, that change with the padding id, if positions count from it. UserError if unknown."""
    family, padding = _family(base), (base.hf_config.get("pad_token_id", 1), new_id)
    if family is not None and family.follow_padding is not None:
        name = spelled(family, stored)[next(row.key for row in family.weights if row.path == "positions")]
        table, fields = family.follow_padding(read_tensor(stored, name), *padding)
        return {name: table}, fields
    if family is None and base.hf_config["model_type"] in PADDED_POSITIONS and padding[0] != padding[1]:
        raise UserError(
            f"the positions of a model of type {base.hf_config['model_type']!r} count from its padding id, which would change "
            f"from {padding[0]} to {padding[1]}; give a tokenizer with padding id {padding[0]}"
        )
    return {}, {}


def _vocabulary_rows(base, stored, table, size: int) -> dict[str, np.ndarray]:
    """The new tensors with a row for each token, with the names and dtypes of the base's files."""
    new: dict[str, np.ndarray] = {}
    for names, rows in ((base.names.input, table.input), (base.names.output, table.output_rows), (base.names.bias, table.bias)):
        new |= dict.fromkeys(names, _in_dtype(rows, size, FLOATS[stored[names[0]].dtype]) if names else None)
    for name in base.names.flat:
        if read_tensor(stored, name).any():
            raise UserError(
                f"{base.folder}: {name} has a value for each token, of which no method knows what it would be for others"
            )
        new[name] = np.zeros((1, size), FLOATS[stored[name].dtype])
    if not becomes_untied(base, table):
        return new
    name, family = added_output(base), family_of(base.hf_config)
    if name not in new:
        new[name] = _in_dtype(table.output, size, FLOATS[stored[base.names.input[0]].dtype])
    # An untied model computes with the bias of its output layer, which is another tensor in some families.
    for copy, copied in family.copies.items():
        if base.names.bias and copied == family.bias:
            new[copy] = new[base.names.bias[0]]
    return new


def _body_tensors(base: BaseModel, stored, body: dict | None) -> dict[str, np.ndarray]:
    """The parameters of a body with the names and dtypes of the base's files; none for None."""
    if body is None:
        return {}
    family = _family(base)
    theirs = spelled(family, stored)
    dtypes = {name: FLOATS.get(stored[own].dtype) for name, own in theirs.items()}
    return {theirs[name]: x for name, x in body_tensors(body, family, base.config, dtypes).items()}


def becomes_untied(base: BaseModel, table: EmbeddingTable) -> bool:
    """Whether the table has output rows, while those of the model's files are its input rows."""
    return table.output is not None and (not base.names.output or is_tied(base.hf_config))


def write_shards(folder: Path, base: BaseModel, stored, new: Mapping[str, np.ndarray | Made]) -> None:
    """Write the base's safetensors files and their index, with `new` tensors; one that it lacks goes beside its input rows."""

    def order(
        item: tuple,
    ):  # as stored, so that long runs are copied at once; wide dtypes first, which keeps all tensors aligned
        tensor = item[1]
        return -(tensor.nbytes // max(int(np.prod(tensor.shape)), 1)), tensor.start

    shards: dict[Path, dict[str, np.ndarray | Stored | Made]] = {}
    for name, tensor in sorted(stored.items(), key=order):
        shard = shards.setdefault(tensor.file, {})
        shard[name] = new.get(name, tensor)
        if name == base.names.input[0]:
            shard |= {other: rows for other, rows in new.items() if other not in stored}
    for file, tensors in sorted(shards.items()):
        write_tensors(folder / file.name, tensors, file_metadata(file))
    if not (base.folder / WEIGHTS_FILE).is_file():
        index = json.loads((base.folder / INDEX_FILE).read_text(encoding="utf-8"))
        index["weight_map"] = {name: file.name for file, tensors in sorted(shards.items()) for name in tensors}
        everything = [tensor for tensors in shards.values() for tensor in tensors.values()]
        totals = {
            "total_size": sum(t.nbytes for t in everything),
            "total_parameters": sum(int(np.prod(t.shape)) for t in everything),
        }
        known = index.get("metadata") or {}
        index["metadata"] = {**known, **{k: v for k, v in totals.items() if k in known or k == "total_size"}}
        write_json(folder / INDEX_FILE, index)


def _family(base):
    """The base's family, or None if it is not ported."""
    return None if base.config is None else family_of(base.hf_config)


def _in_dtype(rows, size: int, dtype: np.dtype, chunk: int = 4096) -> np.ndarray:
    """The first `size` rows in `dtype`; cast some at a time, since two copies of a large table may not fit."""
    if isinstance(rows, np.ndarray) and rows.dtype == dtype:
        return rows[:size]
    cast = np.empty((size, *rows.shape[1:]), dtype)
    for start in range(0, size, chunk):
        stop = min(start + chunk, size)
        cast[start:stop] = np.asarray(rows[start:stop])
    return cast


def save_base_model(
    folder: str | Path, config, body_params: dict, table: EmbeddingTable, tokenizer, *, dtype: str, record: dict
) -> None:
    """Write a Hugging Face folder: weights in `dtype`, config, tokenizer (a `tokenizers.Tokenizer`), `record` as training.json.

    A model folder that is there already is replaced, once the new one is complete.
    """
    folder = Path(folder)
    family = family_of(config.to_hf())
    stored_dtype = jnp.dtype(dtype)
    size = int(table.num_valid)
    tensors = {family.input_rows: np.asarray(table.input[:size]).astype(stored_dtype)}
    tensors |= body_tensors(body_params, family, config, stored_dtype)
    if table.output is not None:
        tensors[family.output_rows] = np.asarray(table.output[:size]).astype(stored_dtype)
    end, pad = tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(PAD)
    ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
    hf_config = {
        **config.to_hf(),
        "vocab_size": size,
        "tie_word_embeddings": table.output is None,
        **ids,
        "dtype": str(stored_dtype),
    }
    check_output(folder, overwrite=True)
    with new_folder(folder) as temporary:
        write_tensors(temporary / WEIGHTS_FILE, tensors, {"format": "pt"})
        write_json(temporary / "config.json", hf_config)
        write_json(temporary / "generation_config.json", ids)
        save_tokenizer(tokenizer, temporary)
        write_json(temporary / "training.json", record)
