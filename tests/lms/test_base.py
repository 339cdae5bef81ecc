"""A base model as a value: what opens its texts, and the same model with another vocabulary."""

import dataclasses

import numpy as np
import pytest
import tiny
from lms import parity

from zett.data.masked import frame_of
from zett.evaluate.masked import encode_masked, masked_nats
from zett.lms import load_base_model
from zett.table import EmbeddingTable
from zett.vocab import load_tokenizer


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return tiny.base_folder(tmp_path_factory.mktemp("base") / "model", dtype="float32")


def test_bos_row(pristine):
    base = load_base_model(pristine)
    np.testing.assert_array_equal(base.bos_row, base.table.input[base.vocab.roles["bos"]])
    nameless = dataclasses.replace(base, vocab=dataclasses.replace(base.vocab, roles={}))
    np.testing.assert_allclose(nameless.bos_row, np.asarray(base.table.input).mean(0), atol=1e-6)


def other_vocabulary(folder, size: int, width: int, *, seed: int, kind: str = "unigram"):
    vocab = load_tokenizer(tiny.tokenizer_folder(folder, kind, size))
    rows = np.random.default_rng(seed).standard_normal((2, len(vocab), width)).astype(np.float32)
    return EmbeddingTable.of(*rows), vocab


def test_another_vocabulary_keeps_what_opens_a_text(pristine, tmp_path):
    base = load_base_model(pristine)
    table, vocab = other_vocabulary(tmp_path / "one", 280, 16, seed=0)
    new = base.with_vocabulary(table, vocab)
    assert new.vocab is vocab and new.table is table and new.params is base.params and new.original is base
    assert base.original is None and new.fingerprint != base.fingerprint
    assert np.abs(new.table.input[vocab.roles["bos"]] - base.bos_row).max() > 0.1
    np.testing.assert_array_equal(new.bos_row, base.bos_row)

    # And once more: still the row of the model that was loaded, and no model between is kept.
    again = new.with_vocabulary(*other_vocabulary(tmp_path / "two", 290, 16, seed=1))
    assert again.original is base
    np.testing.assert_array_equal(again.bos_row, base.bos_row)
    with pytest.raises(ValueError, match=f"the table has {len(vocab)} rows for a vocabulary of 300"):
        base.with_vocabulary(table, base.vocab)


def test_another_vocabulary_keeps_the_frame_of_an_encoder(tmp_path):
    base = load_base_model(parity.base_folder("bert-masked_lm", tmp_path / "base"))
    vocab = load_tokenizer(parity.save_tokenizer(tmp_path / "other", parity.TOKENS[::-1]))
    assert vocab.roles["mask"] != base.vocab.roles["mask"]
    rows = np.random.default_rng(0).standard_normal(base.table.input.shape).astype(np.float32)
    new = base.with_vocabulary(EmbeddingTable.of(rows, None, base.table.bias), vocab)
    assert not new.causal and frame_of(new) == frame_of(base)

    encoded = encode_masked(["the cat sat"], vocab.tokenizer)
    nats, expected = (masked_nats(b, frame_of(b), b.params, new.table, encoded) for b in (new, base))
    np.testing.assert_array_equal(nats, expected)
    own = dataclasses.replace(new, original=None)  # with the frame of its own vocabulary the number is another
    assert np.abs(masked_nats(own, frame_of(own), own.params, new.table, encoded) - expected).max() > 1e-3
