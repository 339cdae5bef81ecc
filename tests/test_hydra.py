"""Several vocabularies on one body: each as the separate model, all in one batch, and one read while another is written."""

import dataclasses

import numpy as np
import pytest
import tiny
from lms import parity
from lms.folders import edit_json

from zett import generate, load_base_model, load_hydra
from zett.errors import UserError
from zett.generate import encode_prompt
from zett.hydra import HydraModel
from zett.lms.body import Body
from zett.transfer import transfer

TEXT = "def f(x):\n    return x"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tied base model, and what was made of it with two other tokenizers."""
    folder = tmp_path_factory.mktemp("hydra")
    base = tiny.base_folder(folder / "base", tied=True, dtype="float32")
    made = [base]
    for kind, size in (("unigram", 280), ("bpe", 350)):
        tokenizer = tiny.tokenizer_folder(folder / f"{kind}-tokenizer", kind, size)
        made.append(transfer(base, tokenizer, folder / kind, method="weighted"))
    return made


@pytest.fixture(scope="module")
def hydra(folders):
    return load_hydra(folders)


def plain_logits(model, rows):
    """After each of the input rows `[L, D]`. What follows changes nothing, and compiles one shape."""
    x = np.zeros((1, 40, 16), np.float32)
    x[0, : len(rows)] = rows
    h = Body(model.graphdef, model.params)(x)[0, : len(rows)]
    return np.asarray(h @ np.asarray(model.table.output_rows, np.float32).T)


def test_one_body(hydra, folders):
    assert list(hydra.models) == ["base", "unigram", "bpe"]
    assert all(model.params is hydra["base"].params for model in hydra.models.values())
    assert "unigram: 429 tokens" in repr(hydra)
    named = load_hydra({"a": folders[0], "b": folders[1]})
    assert len(named["b"].vocab) == len(hydra["unigram"].vocab)
    assert list(load_hydra(folders[2]).models) == ["bpe"]


def test_a_batch_of_different_tokenizers(hydra, folders):
    separate = {folder.name: load_base_model(folder) for folder in folders}
    names = ["bpe", "base", "unigram", "bpe"]
    texts = [TEXT, "import json", [5, 6, 7, 8], "x"]
    found = hydra.logits(texts, names)
    for logits, text, name in zip(found, texts, names):
        model = separate[name]
        ids = encode_prompt(model.vocab, text) if isinstance(text, str) else text
        assert logits.shape == (len(ids), len(model.vocab))
        np.testing.assert_allclose(logits, plain_logits(model, np.asarray(model.table.input)[ids]), rtol=1e-5, atol=1e-5)
    again = hydra.logits([TEXT, TEXT], "unigram")
    np.testing.assert_array_equal(again[0], again[1])


def test_each_writes_as_its_own_model_does(hydra, folders):
    for folder in folders[1:]:
        options = {"max_tokens": 10, "temperature": 0.8, "seed": 2}
        assert hydra.generate(TEXT, folder.name, **options) == generate(load_base_model(folder), TEXT, **options) != ""
    assert hydra.generate(TEXT, "bpe", max_tokens=6) == hydra.generate(TEXT, "bpe", "bpe", max_tokens=6)


@pytest.mark.parametrize(("read", "write"), [("unigram", "bpe"), ("base", "unigram")])
def test_read_in_one_write_in_another(read, write, hydra):
    """Step by step, without a cache."""
    reader, writer = hydra[read], dataclasses.replace(hydra[write], vocab=dataclasses.replace(hydra[write].vocab, ends=()))
    rows = [np.asarray(reader.table.input)[i] for i in encode_prompt(reader.vocab, TEXT)]
    written = []
    for _ in range(8):
        written.append(int(plain_logits(writer, rows)[-1].argmax()))
        rows.append(np.asarray(writer.table.input)[written[-1]])
    wanted = writer.vocab.tokenizer.decode(written, skip_special_tokens=True).rstrip("\ufffd")
    mine = HydraModel({read: reader, write: writer})
    assert mine.generate(TEXT, read, write, max_tokens=8) == wanted
    assert mine.generate(TEXT, read, write, max_tokens=8, stop=lambda text: True) in wanted
    same = HydraModel({"a": reader, "b": dataclasses.replace(reader)})
    assert same.generate(TEXT, "a", "b", max_tokens=8) == generate(reader, TEXT, max_tokens=8)


def test_what_is_not_one_model_is_refused(hydra, folders, tmp_path):
    other = tiny.base_folder(tmp_path / "other", tied=True, dtype="bfloat16")
    with pytest.raises(UserError, match=r"other and .*base do not have the same body: model.*differs; give models that were"):
        load_hydra([folders[0], other])
    deep = tiny.base_folder(
        tmp_path / "deep", tied=True, dtype="float32", config=dataclasses.replace(tiny.CONFIG, num_layers=1)
    )
    with pytest.raises(UserError, match=r"do not have the same body: model\.layers\.1.*differs"):
        load_hydra([folders[0], deep])
    turned = tiny.base_folder(tmp_path / "turned", tied=True, dtype="float32")
    edit_json(turned / "config.json", rms_norm_eps=0.1)
    with pytest.raises(UserError, match=r"do not have the same body: config\.json describes another body"):
        load_hydra([folders[0], turned])
    with pytest.raises(UserError, match=r"two folders are called 'base': .*; give names"):
        load_hydra([folders[0], folders[0]])
    with pytest.raises(UserError, match="there is no model to load"):
        load_hydra([])
    with pytest.raises(UserError, match="bidirectional encoder"):
        load_hydra([parity.base_folder("bert-masked_lm", tmp_path / "bert")])
    with pytest.raises(UserError, match="there is no tokenizer 'bpee' in this model; did you mean bpe"):
        hydra.generate("a", "bpe", "bpee")
    with pytest.raises(UserError, match="there are 2 texts and 1 tokenizers"):
        hydra.logits(["a", "b"], ["bpe"])
    with pytest.raises(UserError, match="a text has 65 tokens, one 1; the model reads 1 to 64"):
        hydra.logits([[5] * 65, "a"], "bpe")
    with pytest.raises(UserError, match="stop is ''"):
        hydra.generate("a", "bpe", "unigram", stop="")
