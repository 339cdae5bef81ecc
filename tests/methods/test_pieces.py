"""Methods that weigh a token's pieces, by hand."""

import dataclasses

import numpy as np
import pytest
import tiny
from vocabularies import byte_tokenizer

from zett.errors import UserError
from zett.lms import load_base_model
from zett.methods import make_method, spec_of
from zett.methods.mixing import Mixture, mixed_table
from zett.table import EmbeddingTable
from zett.vocab.load import vocabulary_of

ROWS = np.asarray([[1, 0], [0, 4], [8, 8]], np.float32)
SOURCE, TARGET = [b"a", b"b", b"c"], [b"b", b"abc", b"cda", b"d"]  # the source lacks d


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    found = load_base_model(tiny.base_folder(tmp_path_factory.mktemp("base") / "model"), body=False)
    table = EmbeddingTable.of(ROWS, ROWS * 10, ROWS[:, 0])
    return dataclasses.replace(found, table=table, vocab=vocabulary_of(byte_tokenizer(SOURCE)))


@pytest.fixture(scope="module")
def target():
    return vocabulary_of(byte_tokenizer(TARGET))


def tied(base):
    return dataclasses.replace(base, table=EmbeddingTable.of(ROWS, None, ROWS[:, 0]))


def test_first_last_by_hand(base, target):
    out = make_method("first_last")(base, target)
    np.testing.assert_allclose(out.input, [ROWS[1], ROWS[2], ROWS[0], ROWS.mean(0)])
    np.testing.assert_allclose(out.output, 10 * np.stack([ROWS[1], ROWS[0], ROWS[2], ROWS.mean(0)]))
    np.testing.assert_allclose(out.bias, [0, 1, 8, 3])
    one = make_method("first_last")(tied(base), target)
    np.testing.assert_allclose(one.input, out.input)
    assert one.output is None
    np.testing.assert_allclose(one.bias, out.bias)


def test_weighted_by_hand(base, target):
    out = make_method("weighted")(base, target)
    a, b, c = ROWS
    np.testing.assert_allclose(out.input, [b, (a + b + c) / 3, (c + a) / 2, ROWS.mean(0)], rtol=1e-6)
    first = (a + b / 2 + c / 4) / 1.75
    np.testing.assert_allclose(out.output, 10 * np.stack([b, first, (c + a / 2) / 1.5, ROWS.mean(0)]), rtol=1e-6)
    np.testing.assert_allclose(out.bias, [0, first[0], (8 + 0.5) / 1.5, 3], rtol=1e-6)
    last = make_method("weighted:input=last,decay=1")(base, target)
    np.testing.assert_allclose(last.input, make_method("first_last")(base, target).input)
    np.testing.assert_allclose(last.output, 10 * out.input, rtol=1e-6)


@pytest.mark.parametrize("method", ["first_last", "weighted", "weighted:input=last,decay=0.25"])
def test_two_tables_from_one(method, base, target):
    """What an untied model gets whose output rows are its input rows; of an untied one, nothing changes."""
    untied = f"{method}{',' if ':' in method else ':'}untie=true"
    twice = make_method(method)(dataclasses.replace(base, table=EmbeddingTable.of(ROWS, ROWS, ROWS[:, 0])), target)
    made, one = (make_method(spec)(tied(base), target) for spec in (untied, method))
    for side in ("input", "output", "bias"):
        np.testing.assert_array_equal(getattr(made, side), getattr(twice, side))
        np.testing.assert_array_equal(*(getattr(make_method(spec)(base, target), side) for spec in (untied, method)))
    assert one.output is None and not np.array_equal(made.input, made.output)
    assert spec_of(make_method(untied)) == untied.replace("true", "True")


@pytest.mark.parametrize("value", ["0", "1.5", "nan", "-1"])
def test_a_decay_that_is_none(value):
    with pytest.raises(UserError, match=r"method weighted: decay is .*; it has to be greater than 0 and at most 1"):
        make_method(f"weighted:decay={value}")
    with pytest.raises(UserError, match="method weighted: input is 'first'; it has to be one of 'mean', 'last'"):
        make_method("weighted:input=first")


def test_sums_of_the_same_rows_and_of_rows_of_their_own_agree():
    rng = np.random.default_rng(0)
    rows, weights = rng.standard_normal((30, 700)).astype(np.float32), rng.random((5, 7)).astype(np.float32)
    ids = rng.permutation(30)[:7]
    expected = weights.astype(np.float64) @ rows[ids].astype(np.float64)
    np.testing.assert_allclose(Mixture(ids, weights).of(rows), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(Mixture(np.tile(ids, (5, 1)), weights).of(rows), expected, rtol=1e-4, atol=1e-5)


def test_tokens_that_a_method_does_not_know_get_the_mean_of_their_pieces(base, target):
    weights = np.asarray([[0, 0], [1, 1], [0, 0], [0.5, 0]], np.float32)
    out = mixed_table(base, target, lambda ids: Mixture(np.asarray([0, 2]), weights[ids]), chunk=2)
    fvt = make_method("fvt")(base, target)
    np.testing.assert_allclose(out.input[[0, 2]], np.asarray(fvt.input)[[0, 2]])
    np.testing.assert_allclose(out.input[[1, 3]], [ROWS[0] + ROWS[2], ROWS[0] / 2])
    np.testing.assert_allclose(out.output[[1, 3]], 10 * np.asarray(out.input[[1, 3]]))
    np.testing.assert_allclose(out.bias[[1, 3]], [9, 0.5])
