"""Opening what a transfer has written, before it is put in its place: whether the model works as it should."""

import functools
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from zett.errors import UserError
from zett.files.jsonfile import json_or_empty, write_json
from zett.files.tensors import stored_tensors
from zett.lms.base import BaseModel, load_base_model
from zett.lms.weights import VocabularyNames
from zett.vocab import Vocabulary
from zett.vocab.files import copy_tokenizer

# Parameters. Up to this size, the model is tried on some tokens; reading a larger body would take as long as the transfer.
COMPUTED = 50_000_000
AS_IT_IS = 'write "tokenizer_class": "PreTrainedTokenizerFast" into tokenizer_config.json, which takes the tokenizer as it is'
ROLES = ("bos", "eos", "pad")


def check_written(folder: Path, names: VocabularyNames, target: Vocabulary, *, ported: bool, rows: int | None = None) -> None:
    """UserError, with the reason, unless Transformers opens the model in `folder` as it should.

    Every token of the tokenizer has to have a row and the id that `target` says, and ids in the configs have to be those of the
    tokenizer. names: of the tensors with a row for each token. ported: whether the model's architecture is computed here; then
    it is loaded as a base model, too, and a small one is tried on a few tokens. rows: of the table, padding included; None: one
    for each token.
    """
    try:
        _check_rows(folder, names, len(target), len(target) if rows is None else rows, ported)
        _check_ids(folder, check_tokenizer(folder, target), len(target) if rows is None else rows)
    except UserError as error:
        raise UserError(f"the result would not work, so nothing was written: {error}") from error


def check_tokenizer(folder: Path, target: Vocabulary):
    """The tokenizer in `folder` as Transformers loads it, or None if that takes a package that is not installed.

    UserError if it cannot be loaded, or has other tokens than `target`.
    """
    tokenizer = _open_tokenizer(folder)
    if tokenizer is not None:
        _check_tokens(tokenizer, target)
    return tokenizer


def try_tokenizer(folder: Path, base: BaseModel, target: Vocabulary, file: Path | None) -> None:
    """UserError unless Transformers reads the tokenizer as it should, in a model of the base's type.

    folder: a new one, for the files. file: see `copy_tokenizer`.
    """
    folder.mkdir()
    class_name = copy_tokenizer(folder, target, file)
    write_json(folder / "config.json", {"model_type": base.hf_config.get("model_type"), "tokenizer_class": class_name})
    check_tokenizer(folder, target)


def _check_rows(folder: Path, names: VocabularyNames, tokens: int, rows: int, ported: bool) -> None:
    stored = stored_tensors(folder)
    for name in (*names.input, *names.output, *names.bias, *names.per_layer):
        if stored[name].shape[0] != rows:
            wanted = "" if rows == tokens else f" instead of {rows}"
            raise UserError(f"{name} has {stored[name].shape[0]} rows{wanted} for a tokenizer of {tokens} ids")
    if not ported:
        return
    again = load_base_model(folder, body=sum(int(np.prod(t.shape)) for t in stored.values()) <= COMPUTED)
    if len(again.table.input) != tokens or len(again.vocab) != tokens:
        raise UserError(f"the folder opens with {len(again.vocab)} ids and {len(again.table.input)} rows instead of {tokens}")
    if again.params is None:
        return
    ids = np.linspace(0, tokens - 1, 4).astype(int)  # always four, so that the function is compiled once for all vocabularies
    h = np.asarray(_hidden(again.graphdef, again.params, np.asarray(again.table.input)[ids][None]))[0]
    logits = h @ np.asarray(again.table.output_rows, np.float32)[ids].T
    if not np.isfinite(logits).all():
        raise UserError(f"for the ids {', '.join(map(str, ids))} it computes what is not finite")


@functools.partial(jax.jit, static_argnums=0)
def _hidden(graphdef, params, x_BLD):
    return nnx.merge(graphdef, params)(x_BLD)


def _open_tokenizer(folder: Path):
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except ImportError as error:
        logging.getLogger("zett").warning("zett: warning: the tokenizer could not be tried in Transformers: %s", _line(error))
        return None
    except Exception as error:  # whatever it is, the user would run into it
        raise UserError(f"Transformers cannot load the tokenizer from its files: {_line(error)}") from error


def _line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _check_tokens(tokenizer, target: Vocabulary) -> None:
    theirs, ours, class_name = tokenizer.get_vocab(), target.tokenizer.get_vocab(), type(tokenizer).__name__
    rowless = sorted((i, text) for text, i in theirs.items() if i >= len(target))
    if rowless:
        listed = ", ".join(f"{text!r} ({i})" for i, text in rowless[:3]) + (" and others" if len(rowless) > 3 else "")
        raise UserError(
            f"Transformers' {class_name} adds tokens that the tokenizer's files do not name: {listed}; put them into "
            f"tokenizer.json, or {AS_IT_IS}"
        )
    for text, i in ours.items():
        if theirs.get(text, i) != i:
            raise UserError(
                f"Transformers' {class_name} gives the token {text!r} the id {theirs[text]}, tokenizer.json {i}; {AS_IT_IS}"
            )


def _check_ids(folder: Path, tokenizer, rows: int) -> None:
    """UserError unless ids in the configs have rows, and those of roles are the tokenizer's."""
    for file in ("config.json", "generation_config.json"):
        settings = json_or_empty(folder / file)
        for key, ids in _ids(settings):
            if wrong := [i for i in ids if i >= rows]:
                raise UserError(f"{key} in {file} is {wrong[0]}; its tokenizer has the ids 0 to {rows - 1}")
        for role in ROLES:
            own, key = getattr(tokenizer, f"{role}_token_id", None), f"{role}_token_id"
            ids = dict(_ids({key: settings.get(key)}))[key]
            if own is not None and ids and own not in ids:
                raise UserError(f"{key} in {file} is {settings[key]}, but for Transformers the tokenizer's is {own}")


def _ids(settings: dict) -> Iterator[tuple[str, list[int]]]:
    """Settings that name tokens, with their ids, also from nested configs. A negative id means that there is no such token."""
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _ids(value)
        elif re.fullmatch(r".+_token_(id|ids|index)", key):
            yield key, [i for i in (value if isinstance(value, list) else [value]) if isinstance(i, int) and i >= 0]
