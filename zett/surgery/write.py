"""A model folder with a `VocabularyEdit` applied: tokenizer, rows, config and generation settings, and whether it works."""

import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zett.errors import UserError
from zett.files.folders import copy_files, found
from zett.files.jsonfile import read_json, write_json
from zett.files.tensors import FLOATS, Stored, read_tensor, stored_tensors
from zett.lms.base import BaseModel
from zett.lms.class_defaults import with_defaults
from zett.lms.folder import companions, follow_padding, write_shards
from zett.lms.padding import padding_row
from zett.lms.reopen import check_tokenizer, check_written
from zett.lms.unported import set_vocabulary_size, with_row
from zett.surgery.edit import VocabularyEdit
from zett.surgery.settings import follow
from zett.surgery.spec import write_tokenizer
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary, load_tokenizer

PROCESSORS = ["preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"]
AS_IT_IS = "PreTrainedTokenizerFast"  # the class that takes tokenizer.json as it is


@dataclasses.dataclass(frozen=True)
class EditedRows:
    """A tensor with a row for each token, edited when it is written, so that one at a time is in memory.

    made: rows `[len(vocabulary), ...]` of the edited tokenizer, of which the new tokens' are taken; None: new tokens get the
    mean of the others, as padding does. flat: whether the tensor is `[1, R]`.
    """

    stored: dict[str, Stored]
    name: str
    edit: VocabularyEdit
    made: np.ndarray | None = None
    flat: bool = False

    @property
    def dtype(self) -> np.dtype:
        return FLOATS[self.stored[self.name].dtype]

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, len(self.edit.old)) if self.flat else (len(self.edit.old), *self.stored[self.name].shape[1:])

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        old, size = self.edit.old, self.edit.size
        before = read_tensor(self.stored, self.name)
        before = before[0] if self.flat else before
        rows = np.empty((len(old), *before.shape[1:]), self.dtype)
        kept, missing = np.flatnonzero(old >= 0), np.flatnonzero(old < 0)
        rows[kept] = before[with_row(old[kept], len(before))]
        if self.made is not None:
            new, missing = missing[missing < size], missing[missing >= size]
            rows[new] = np.asarray(self.made)[new]
        if len(missing):
            rows[missing] = padding_row(rows[: min(size, missing[0])])
        return rows[None] if self.flat else rows


def row_count(base: BaseModel) -> int:
    """How many rows the model has, those beyond its tokenizer included."""
    return stored_tensors(base.folder)[base.names.input[0]].shape[0]


def edited_rows(
    base: BaseModel, edit: VocabularyEdit, table: EmbeddingTable | None = None, per_layer: np.ndarray | None = None
) -> dict[str, EditedRows]:
    """What becomes of the tensors with a row for each token, by name."""
    stored, names = stored_tensors(base.folder), base.names
    columns = (None, None, None) if table is None else (table.input, table.output_rows, table.bias)
    kinds = zip((names.input, names.output, names.bias, names.per_layer), (*columns, per_layer))
    edited = {name: EditedRows(stored, name, edit, made) for some, made in kinds for name in some}
    return edited | {name: EditedRows(stored, name, edit, flat=True) for name in names.flat}


def write_edited(
    folder: Path, base: BaseModel, edit: VocabularyEdit, texts: Sequence[str], table: EmbeddingTable | None = None,
    per_layer: np.ndarray | None = None, *, weights: bool = True,
) -> list[str]:  # fmt: skip
    """Write into `folder` the model `base` after the edit; returns the names of files that were left out, since they are stale.

    table, per_layer: of the edited vocabulary, for the rows of its new tokens. texts: some, which Transformers and zett have to
    cut alike, and like before where no token went. weights: False leaves them out. UserError if the result would not work.
    """
    left_out = write_tokenizer(folder, base.vocab, edit)
    copy_files(companions(base.folder), folder)
    stored, rows = stored_tensors(base.folder), row_count(base)
    config = follow(with_defaults(base.hf_config, base.vocab), edit, rows, str(base.folder / "config.json"))
    set_vocabulary_size(config, len(edit.old), base.folder / "config.json", base.names)
    positions, fields = follow_padding(base, stored, config.get("pad_token_id"))
    if weights:
        write_shards(folder, base, stored, {**positions, **edited_rows(base, edit, table, per_layer)})
    _write_settings(folder, base, edit, rows, config | fields)
    target = load_tokenizer(folder, rows=len(edit.old))
    if len(target) != edit.size:
        raise UserError(f"the edited tokenizer has {len(target)} ids instead of {edit.size}")
    _check_cutting(folder, base.vocab, target, edit, texts)
    if weights:
        check_written(folder, base.names, target, ported=base.config is not None, rows=len(edit.old))
    return left_out


def _write_settings(folder: Path, base: BaseModel, edit: VocabularyEdit, rows: int, config: dict) -> None:
    # Without this field, AutoTokenizer would guess the class from model_type, as it would for the model of before.
    given = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("tokenizer_class")
    write_json(folder / "config.json", config | ({"tokenizer_class": given} if given else {}))
    for path in found(base.folder, ["generation_config.json", *PROCESSORS]):
        write_json(folder / path.name, follow(read_json(path), edit, rows, str(path)))
    if "auto_map" in config:  # a model with code of its own
        copy_files(found(base.folder, ["*.py"]), folder)


def _check_cutting(folder: Path, before: Vocabulary, after: Vocabulary, edit: VocabularyEdit, texts: Sequence[str]) -> None:
    """UserError unless texts are cut as before where no token went, by zett and by Transformers.

    Where the class of the model's family builds the tokenizer by rules of its own, the class that does not takes its place.
    """
    check_same(before, after, edit, texts)
    if _cuts_alike(folder, after, texts):
        return
    class_name = read_json(folder / "tokenizer_config.json").get("tokenizer_class")
    logging.getLogger("zett").warning(
        "zett: warning: Transformers' %s cuts texts unlike tokenizer.json; the result gets the class %s, which does not",
        class_name, AS_IT_IS,
    )  # fmt: skip
    for name in ("tokenizer_config.json", "config.json"):
        write_json(folder / name, read_json(folder / name) | {"tokenizer_class": AS_IT_IS})
    if not _cuts_alike(folder, after, texts):
        raise UserError("the result would not work, so nothing was written: Transformers cuts texts unlike its tokenizer.json")


def check_same(before: Vocabulary, after: Vocabulary, edit: VocabularyEdit, texts: Sequence[str]) -> None:
    """UserError unless each text has the tokens of before, if none of them went and no new one is in it."""
    old = before.tokenizer.encode_batch(texts, add_special_tokens=True)
    new = after.tokenizer.encode_batch(texts, add_special_tokens=True)
    for text, x, y in zip(texts, old, new):
        expected = edit.ids[x.ids]
        if (expected >= 0).all() and not np.isin(y.ids, list(edit.new)).any() and expected.tolist() != y.ids:
            raise UserError(f"the edited tokenizer cuts {text[:60]!r} unlike before, though it has all of its tokens")


def _cuts_alike(folder: Path, after: Vocabulary, texts: Sequence[str]) -> bool:
    """Whether Transformers loads a tokenizer that cuts texts as `after` does; True if it lacks a package for it."""
    tokenizer = check_tokenizer(folder, after)
    if tokenizer is None:
        return True
    ours = [encoding.ids for encoding in after.tokenizer.encode_batch(list(texts), add_special_tokens=False)]
    return all(tokenizer(text, add_special_tokens=False)["input_ids"] == ids for text, ids in zip(texts, ours))
