"""Batches for language models: pure functions of (seed, step), every window once an epoch, lossless re-segmentation."""

import dataclasses

import numpy as np
import pytest
import tokenizers

from zett.data.sources import open_text
from zett.data.token_windows import LMBatches, Splits, token_stream

LENGTH, BATCH = 8, 4


def batches(n=LENGTH * 10 + 5, **settings):
    return LMBatches(tokens=np.arange(100, 100 + n, dtype=np.int32), batch_size=BATCH, length=LENGTH, seed=3, **settings)


def test_rows_are_windows():
    rows = batches()(0)
    assert rows.shape == (BATCH, LENGTH) and rows.dtype == np.int32
    for row in rows:
        assert (row[0] - 100) % LENGTH == 0 and (np.diff(row) == 1).all()


def test_a_batch_is_a_function_of_seed_and_step():
    forward = [batches()(step) for step in range(5)]
    backward = [batches()(step) for step in reversed(range(5))]
    np.testing.assert_array_equal(forward, backward[::-1])
    other = dataclasses.replace(batches(), seed=4)
    assert not np.array_equal(other(0), forward[0])


def test_some_rows_of_a_batch_are_those_of_the_whole():
    which = np.asarray([1, 3])
    np.testing.assert_array_equal(batches()(2, which), batches()(2)[which])


def test_every_window_once_an_epoch():
    make = batches()  # 10 windows: steps 0 to 4 are two epochs
    starts = np.concatenate([make(step)[:, 0] for step in range(5)])
    windows = 100 + LENGTH * np.arange(10)
    first, second = starts[:10], starts[10:]
    np.testing.assert_array_equal(np.sort(first), windows)
    np.testing.assert_array_equal(np.sort(second), windows)
    assert not np.array_equal(first, second)


TOKENS = [b"", b"a", b"b", b"c", b"ab", b"abc", b"bc", b"ca", b"a"]  # a special one first, a duplicate last


def test_splits_keep_the_bytes():
    splits = Splits.of(TOKENS)
    rng = np.random.default_rng(0)
    ids = rng.integers(1, len(TOKENS), 500)
    cut = splits.apply(ids, 0.8, 4, rng)
    assert len(cut) > len(ids)
    assert b"".join(TOKENS[i] for i in cut) == b"".join(TOKENS[i] for i in ids)
    np.testing.assert_array_equal(splits.apply(ids, 0.0, 4, rng), ids)


def test_all_two_token_cuts_are_known():
    splits = Splits.of(TOKENS)
    of_abc = splits.pairs[splits.starts[5] : splits.starts[6]].tolist()
    assert of_abc == [[1, 6], [4, 3]]  # a + bc, ab + c; the first id of b"a"
    assert splits.starts[1] == 0  # a special token has none


def test_a_vocabulary_without_cuts():
    splits = Splits.of([b"a", b"b"])
    ids = np.asarray([0, 1, 1])
    np.testing.assert_array_equal(splits.apply(ids, 1.0, 3, np.random.default_rng(0)), ids)


def test_resegmented_rows_are_deterministic_and_of_full_length():
    make = LMBatches(
        tokens=np.full(200, 5, np.int32), batch_size=16, length=LENGTH, seed=0,
        splits=Splits.of(TOKENS), resegment_share=0.5, resegment_rate=1.0,
    )  # fmt: skip
    rows = make(2)
    np.testing.assert_array_equal(rows, make(2))
    changed = (rows != 5).any(1)
    assert 0 < changed.sum() < 16


@pytest.fixture
def tokenizer():
    vocab = {"<e>": 0, "[UNK]": 1, "one": 2, "two": 3, "three": 4}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return made


def test_token_stream_is_cached_and_follows_the_text(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setenv("ZETT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, text in (("train.1", "one two"), ("train.2", "three"), ("valid", "held out")):
        (folder / f"{name}.txt").write_text(text)
    documents = open_text(str(folder))
    ids = token_stream(documents, tokenizer, 0)
    assert ids.tolist() == [2, 3, 0, 4, 0] and ids.dtype == np.int32
    assert token_stream(documents, tokenizer, None).tolist() == [2, 3, 4]
    monkeypatch.setattr(type(documents), "__getitem__", None)  # the second time nothing is read
    assert token_stream(documents, tokenizer, 0).tolist() == ids.tolist()
    monkeypatch.undo()
    monkeypatch.setenv("ZETT_CACHE", str(tmp_path / "cache"))
    (folder / "train.1.txt").write_text("two two two")
    assert token_stream(open_text(str(folder)), tokenizer, 0).tolist() == [3, 3, 3, 0, 4, 0]
    assert not list(tmp_path.glob("cache/**/*.tmp*"))
