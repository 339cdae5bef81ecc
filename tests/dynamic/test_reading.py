"""A body that reads merged tokens, and writes its own."""

import jax
import numpy as np
import pytest
import tiny
from encoders import encoder_folder

from zett import generate, load_base_model
from zett.dynamic.reading import generate_merged, merge_texts, merged_inputs, reading_merged, rows_by
from zett.generate import encode_prompt
from zett.lms.body import Body
from zett.methods import make_method

TEXT = "def foo(bar):\n    return foo(bar)"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_base_model(tiny.base_folder(tmp_path_factory.mktemp("base") / "model", dtype="float32"))


@pytest.fixture(scope="module")
def rows(model):
    return rows_by(make_method("fvt"), model)


def plain(model, merged, row):
    """Input rows: the model's own, and means of pieces."""
    own, vocab = np.asarray(model.table.input), model.vocab
    found = []
    for token, i in zip(merged.token_bytes(row), merged.ids[row]):
        found.append(own[i] if i < len(vocab) else own[vocab.decompose([token]).tolist()[0]].mean(0))
    return np.stack(found)


def test_inputs(model, rows):
    merged = merge_texts(model, [TEXT, "foo", TEXT * 2], 12)
    x, mask = merged_inputs(model, merged, rows)
    assert merged.tokens and x.dtype == np.float32 and x.shape == (3, merged.lengths.max(), 16)
    for row, length in enumerate(merged.lengths):
        np.testing.assert_allclose(x[row, :length], plain(model, merged, row), rtol=1e-5, atol=1e-6)
        assert mask[row].sum() == length and not x[row, length:].any()
    reader = reading_merged(model, merged.tokens, rows)
    np.testing.assert_allclose(np.asarray(reader.table.embed(merged.ids))[mask], x[mask], rtol=1e-6)


def test_without_merges_nothing_changes(model, rows):
    merged = merge_texts(model, TEXT, 0)
    x, mask = merged_inputs(model, merged, rows)
    ids = encode_prompt(model.vocab, TEXT)
    assert mask.all() and merged.ids[0].tolist() == ids
    np.testing.assert_array_equal(x[0], np.asarray(model.table.input)[ids])
    assert reading_merged(model, merged.tokens, rows) is model
    assert generate_merged(model, TEXT, rows, 0, max_tokens=8) == generate(model, TEXT, max_tokens=8)


def test_generation_reads_merged_and_writes_its_own(model, rows):
    """Step by step, without a cache."""
    merged = merge_texts(model, TEXT, 8)
    assert merged.tokens
    table, x = model.table, list(plain(model, merged, 0))
    written = []
    body = jax.jit(lambda body, x: body(x))
    for _ in range(7):
        padded = np.zeros((1, 64, 16), np.float32)
        padded[0, : len(x)] = x
        h = body(Body(model.graphdef, model.params), padded)[0, len(x) - 1]
        written.append(int(np.argmax(np.asarray(table.output_rows) @ np.asarray(h))))
        x.append(np.asarray(table.input)[written[-1]])
    wanted = model.vocab.tokenizer.decode(written, skip_special_tokens=True).rstrip("\ufffd")
    assert generate_merged(model, TEXT, rows, 8, max_tokens=7) == wanted


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "modernbert"])
def test_encoders(kind, tmp_path):
    """Padding changes nothing, what is around a text stays, and without merges it is what the model reads."""
    model = load_base_model(encoder_folder(tmp_path / kind, kind))
    rows = rows_by(make_method("fvt"), model)
    texts = ["the names of the names and the shapes", "names"]
    whole = merge_texts(model, texts, 0)
    assert whole.ids[0].tolist() == model.vocab.tokenizer.encode(texts[0]).ids
    merged = merge_texts(model, texts, 10)
    assert merged.reduction > 0 and merged.ids[0, 0] == whole.ids[0, 0]
    x, mask = merged_inputs(model, merged, rows)
    body, params = jax.jit(lambda body, x, mask: body(x, mask_BL=mask)), Body(model.graphdef, model.params)
    noise = np.random.default_rng(0).standard_normal(x.shape).astype(np.float32)
    h, again = (np.asarray(body(params, rows, mask)) for rows in (x, np.where(mask[..., None], x, noise)))
    assert not mask.all() and h.shape == x.shape
    np.testing.assert_allclose(h[mask], again[mask], rtol=1e-4, atol=1e-5)
