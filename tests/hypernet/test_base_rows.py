"""Rows of its base model that a hypernetwork keeps: what they tell of other models, and their file."""

import numpy as np
import pytest
from hypernet.networks import WIDTH, table_for
from safetensors.numpy import load_file, save_file
from vocabularies import vocabulary

from zett.errors import UserError
from zett.files.resolve import BASE_MODEL, BASE_ROWS, HYPERNETWORK, find
from zett.hypernet.base_rows import ALIKE, SAME, BaseRows, how_alike, read_base_rows, same_ids
from zett.hypernet.release import load_hypernet
from zett.lms.base import load_base_model
from zett.table import EmbeddingTable


@pytest.fixture(scope="module")
def table():
    return table_for(vocabulary("bpe", 400))


def changed(table: EmbeddingTable, change) -> EmbeddingTable:
    return EmbeddingTable.of(*(None if rows is None else change(np.array(rows)) for rows in (table.input, table.output)))


def rounded(bits: int):
    """What quantisation to this many bits makes of rows, with one scale a row."""

    def change(rows):
        scale = np.abs(rows).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
        return (np.round(rows / scale) * scale).astype(np.float32)

    return change


def shuffled(rows):
    return np.random.default_rng(0).permutation(rows)


def test_rows_that_are_alike_and_rows_that_are_not(table):
    kept = BaseRows.of(table)
    assert kept.cosine(table) > 1 - 1e-6
    assert SAME < kept.cosine(changed(table, rounded(8))) < 1 - 1e-7
    assert ALIKE < kept.cosine(changed(table, rounded(4))) < SAME
    assert abs(kept.cosine(changed(table, shuffled))) < 0.3
    assert kept.cosine(EmbeddingTable.of(table.input, shuffled(table.output))) < ALIKE  # one side alone
    assert kept.cosine(changed(table, lambda rows: rows * np.nan)) == 0
    same = changed(table, np.ones_like)
    assert BaseRows.of(same).cosine(same) == 1 and BaseRows.of(same).cosine(table) < ALIKE
    longer = changed(table, lambda rows: np.concatenate([rows, rows[:7]]))  # special tokens were appended, or dropped
    shorter = changed(table, lambda rows: rows[:-7])
    assert min(kept.cosine(longer), kept.cosine(shorter)) > SAME
    assert kept.cosine(changed(table, lambda rows: np.concatenate([rows[1:], rows[:1]]))) < ALIKE  # other ids


def test_large_columns_make_no_rows_alike(table):
    """Of many models a few columns are the same in all rows, and large."""

    def with_large(rows):
        rows[:, :2] = 1000 + rows[:, :2] * 0.01
        rows[:, 2] = 5
        return rows

    large = changed(table, with_large)
    assert abs(BaseRows.of(large).cosine(changed(large, shuffled))) < 0.3
    assert BaseRows.of(large).cosine(changed(large, rounded(24))) > SAME


def test_the_file(table, tmp_path):
    BaseRows.of(table).write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [BASE_ROWS]
    again = read_base_rows(tmp_path, WIDTH, False)
    assert again is not None and (again.vocab_size, again.width) == (len(table.input), table.input.shape[1])
    assert again.cosine(table) == BaseRows.of(table).cosine(table)
    (tmp_path / "old").mkdir()
    assert read_base_rows(tmp_path / "old", WIDTH, False) is None


def test_the_file_is_small_for_large_models(tmp_path):
    rows = np.broadcast_to(np.float16(1), (200_000, 8192))  # takes no memory
    BaseRows.of(EmbeddingTable.of(rows, rows)).write(tmp_path)
    assert (tmp_path / BASE_ROWS).stat().st_size < 300_000


def test_a_damaged_file_is_named(table, tmp_path):
    file = tmp_path / BASE_ROWS
    BaseRows.of(table).write(tmp_path)
    whole, tensors = file.read_bytes(), load_file(file)
    meta = {"format": "zett-base-rows-1", "vocab_size": str(len(table.input)), "width": str(table.input.shape[1])}
    for damage in (
        lambda: file.write_bytes(whole[:-9]),
        lambda: file.write_bytes(b"{}"),
        lambda: save_file(tensors, file),
        lambda: save_file(tensors, file, meta | {"width": "many"}),
        lambda: save_file(tensors, file, meta | {"vocab_size": "-3"}),
        lambda: save_file(tensors, file, meta | {"vocab_size": "99999999999999999999"}),
        lambda: save_file(tensors, file, meta | {"width": "11"}),
        lambda: save_file(tensors | {"rows": tensors["rows"].astype(np.float32)}, file, meta),
        lambda: save_file(tensors | {"std": 0 * tensors["std"]}, file, meta),
        lambda: save_file({"rows": tensors["rows"]}, file, meta),
        lambda: BaseRows.of(EmbeddingTable.of(np.tile(table.input, 2), np.tile(table.output, 2))).write(tmp_path),
    ):
        damage()
        with pytest.raises(UserError, match=f"{BASE_ROWS} does not hold rows of a base model .*copy it again"):
            read_base_rows(tmp_path, WIDTH, False)


def test_tokens_with_the_same_ids():
    own = (b"a", b"b", b"c", b"", b"")
    assert same_ids(own, own) == same_ids(own, (b"a", b"b", b"c", b"", b"<new>")) == (5, 5)
    assert same_ids(own, (*own, b"")) == (6, 6) and same_ids(own, own[:4]) == (5, 5)  # special tokens, more or fewer
    assert same_ids(own, (*own, b"d")) == (5, 6) and same_ids(own, (b"b", b"a", b"c")) == (3, 5)
    assert same_ids(None, own) == (0, 0)
    assert "no tokenizer to compare with" in how_alike(0.5, 16, 0, 0)


@pytest.mark.parametrize("name", sorted(HYPERNETWORK.packaged))
def test_hypernetworks_in_the_package_keep_some(name):
    trained = load_hypernet(name)
    assert trained.base_rows is not None and trained.base_rows.width == trained.hidden_size
    assert (find(name, HYPERNETWORK) / BASE_ROWS).stat().st_size < 300_000
    if name in BASE_MODEL.packaged:
        assert trained.fit(load_base_model(name, body=False)).exact
