"""Candidates to write from: the index finds what the product over all rows finds."""

import sys

import jax
import numpy as np
import pytest
import tiny
from encoders import encoder_folder

from zett import load_base_model
from zett.dynamic.candidates import Candidates, write_from
from zett.errors import UserError
from zett.generate import encode_prompt
from zett.lms.body import Body
from zett.table import EmbeddingTable

rng = np.random.default_rng(0)
ROWS = (rng.standard_normal((6000, 12)) * rng.uniform(0.5, 2, (6000, 1))).astype(np.float32)
BIAS = rng.standard_normal(6000).astype(np.float32)
H = rng.standard_normal((40, 12)).astype(np.float32)
TOKENS = [b"%d" % i for i in range(6000)]


@pytest.mark.parametrize("bias", [None, BIAS])
@pytest.mark.parametrize("softcap", [None, 4.0])
def test_the_index_finds_the_best(bias, softcap):
    pytest.importorskip("faiss", reason="faiss, an optional library, is not installed")
    table = EmbeddingTable.of(ROWS, None, bias)
    logits = np.asarray(table.unembed(H, softcap))
    found = Candidates.of(TOKENS, table, softcap=softcap)
    ids, values = found.top(H, 5, probes=80)
    if softcap is None or bias is None:  # with both, a logit is no inner product
        assert (ids[:, 0] == logits.argmax(1)).mean() > 0.9
    np.testing.assert_allclose(values, np.take_along_axis(logits, ids, 1), rtol=1e-4, atol=1e-4)
    assert (np.diff(values) <= 0).all()
    assert found.input is None and found.output is None  # the index has the rows
    np.testing.assert_array_equal(found.input_row(77), ROWS[77])
    whole = found.top(H, 5, probes=10_000)[0]
    if softcap is None or bias is None:
        assert (np.sort(logits)[:, -5:][:, ::-1] - np.take_along_axis(logits, whole, 1)).max() < 1e-3


@pytest.mark.parametrize("bias", [None, BIAS])
def test_all_of_them(bias):
    table = EmbeddingTable.of(ROWS, ROWS[::-1], bias)
    logits = np.asarray(table.unembed(H, 4.0))
    ids, values = Candidates.of(TOKENS, table, softcap=4.0, exact=True).top(H, 7)
    np.testing.assert_allclose(values, np.sort(logits)[:, :-8:-1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(logits, ids, 1), values, rtol=1e-4, atol=1e-4)


def test_writing(tmp_path):
    """Step by step, without a cache; candidates of a few bytes each."""
    model = load_base_model(tiny.base_folder(tmp_path / "model", dtype="float32"))
    rows, output = (rng.standard_normal((300, 16)).astype(np.float32) for _ in range(2))
    candidates = Candidates.of(TOKENS[:300], EmbeddingTable.of(rows, output), exact=True)
    found = list(write_from(model, candidates, "def f", max_tokens=6))
    x = list(np.asarray(model.table.input)[encode_prompt(model.vocab, "def f")])
    body = jax.jit(lambda body, x: body(x))
    for token in found:
        padded = np.zeros((1, 64, 16), np.float32)
        padded[0, : len(x)] = x
        h = np.asarray(body(Body(model.graphdef, model.params), padded))[0, len(x) - 1]
        assert int(token) == int((output @ h).argmax())
        x.append(rows[int(token)])
    assert len(found) == 6 and len(list(write_from(model, candidates, "def f", max_tokens=99))) == 64 - len(x) + 6


def test_what_makes_no_sense_is_refused(monkeypatch, tmp_path):
    table = EmbeddingTable.of(ROWS[:9], None)
    with pytest.raises(UserError, match="there are 8 candidates and 9 rows"):
        Candidates.of(TOKENS[:8], table)
    with pytest.raises(UserError, match="k is 10; it has to be from 1 to 9"):
        Candidates.of(TOKENS[:9], table, exact=True).top(H, 10)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r'needs the library faiss: pip install "zett\[candidates\]"'):
        Candidates.of(TOKENS[:9], table)
    encoder = load_base_model(encoder_folder(tmp_path / "bert", "bert"))
    with pytest.raises(UserError, match="bidirectional encoder"):
        write_from(encoder, Candidates.of(TOKENS[:9], table, exact=True), "a")
