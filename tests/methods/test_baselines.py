"""Training-free methods, by hand and on a tiny model."""

import dataclasses

import numpy as np
import pytest
import tiny
from vocabularies import byte_tokenizer

from zett.lms import load_base_model
from zett.methods import METHODS, make_method, method_class
from zett.table import EmbeddingTable
from zett.vocab.load import vocabulary_of

BASELINES = [name for name in METHODS if method_class(name).baseline]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_base_model(tiny.base_folder(tmp_path_factory.mktemp("base") / "model"))


@pytest.fixture(scope="module")
def small(base):
    """A model of three tokens, a, b and c; its table has a fourth row, which is padding."""
    rows = np.asarray([[0, 0], [2, 4], [4, 8], [99, 99]], np.float32)
    table = EmbeddingTable(rows, rows * 10, rows[:, 0], 3)
    return dataclasses.replace(base, table=table, vocab=vocabulary_of(byte_tokenizer([b"a", b"b", b"c"])))


@pytest.fixture(scope="module")
def target():
    """A shared token; two pieces; a byte that the source lacks beside a piece; only such a byte."""
    return vocabulary_of(byte_tokenizer([b"c", b"ab", b"db", b"d"]))


def test_fvt_by_hand(small, target):
    out = make_method("fvt")(small, target)
    expected = np.asarray([[4, 8], [1, 2], [2, 4], [2, 4]], np.float32)
    np.testing.assert_allclose(out.input, expected)
    np.testing.assert_allclose(out.output, expected * 10)
    np.testing.assert_allclose(out.bias, expected[:, 0])
    assert int(out.num_valid) == 4


def test_mean_by_hand(small, target):
    np.testing.assert_allclose(make_method("mean")(small, target).input, [[4, 8], [2, 4], [2, 4], [2, 4]])


def test_random_rows_follow_the_seed(small, target):
    random = make_method("random")
    out = random(small, target, seed=1)
    np.testing.assert_allclose(out.input[0], [4, 8])
    assert not np.allclose(out.input[1], out.input[2])
    np.testing.assert_array_equal(out.input, random(small, target, seed=1).input)
    assert not np.array_equal(out.input, random(small, target, seed=2).input)


def test_random_rows_have_the_source_rows_distribution(base):
    rows = np.random.default_rng(0).normal([1.0, -3.0], [0.1, 2.0], (256, 2)).astype(np.float32)
    source = vocabulary_of(byte_tokenizer([bytes([i]) for i in range(256)]))
    pairs = [bytes([i, j]) for i in range(80) for j in range(250)]
    many = vocabulary_of(byte_tokenizer(pairs))
    out = make_method("random")(dataclasses.replace(base, table=EmbeddingTable.of(rows), vocab=source), many)
    assert out.input.shape == (20_000, 2)
    np.testing.assert_allclose(out.input.mean(0), rows.mean(0), atol=0.05)
    np.testing.assert_allclose(out.input.std(0), rows.std(0), rtol=0.05)
    assert out.output is None and out.bias is None


@pytest.mark.parametrize("name", BASELINES)
def test_its_own_tokenizer_changes_nothing(name, base):
    table = make_method(name)(base, base.vocab)
    kept = [i for i, token in enumerate(base.vocab.tokens) if token or i in base.vocab.special.values()]
    assert len(kept) > 290
    np.testing.assert_array_equal(np.asarray(table.input)[kept], np.asarray(base.table.input)[kept])
    np.testing.assert_array_equal(np.asarray(table.output)[kept], np.asarray(base.table.output)[kept])
