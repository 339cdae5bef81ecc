"""Several vocabularies on one body: each as the separate model, all in one batch, and one read while another is written."""

import dataclasses

import numpy as np
import pytest
import tiny
from lms import parity
from lms.folders import edit_json

from zett import generate, load_base_model, load_hydra
from zett.errors import UserError
from zett.generate import encode_prompt, generate_ids
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


PROMPTS = [TEXT, "import json", "x", "for i in range(10):\n    print(i)", "a"]
READ = ["bpe", "base", "unigram", "base", "unigram"]
WRITE = [None, "unigram", "bpe", "base", "unigram"]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_batch_writes_as_each_text_does_by_itself(temperature, hydra, folders):
    """Prompts of different lengths, read and written in different tokenizers."""
    options = {"max_tokens": 12, "temperature": temperature, "seed": 1}
    written = hydra.generate(PROMPTS, READ, WRITE, **options)
    assert written == [hydra.generate(*one, **options) for one in zip(PROMPTS, READ, WRITE)] and len(set(written)) == 5
    separate = {folder.name: load_base_model(folder) for folder in folders}
    for text, prompt, read, write in zip(written, PROMPTS, READ, WRITE):
        if write in (None, read):
            assert text == generate(separate[read], prompt, **options)
    assert hydra.generate(PROMPTS[:2], "unigram", **options) == [
        generate(separate["unigram"], prompt, **options) for prompt in PROMPTS[:2]
    ]
    assert hydra.generate(PROMPTS[:1], "bpe", **options) == written[:1]


def test_each_of_a_batch_has_its_own_end(hydra):
    """A token that ends texts, the number of tokens, no more positions, or a stop of its own; the others go on."""
    options = {"temperature": 8.0, "seed": 3}  # so that tokens are not all the same
    ids = list(generate_ids(hydra["bpe"], encode_prompt(hydra["bpe"].vocab, TEXT), max_tokens=12, **options))
    end = next(i for i in range(1, 12) if ids[i] not in ids[:i])
    ends = dataclasses.replace(hydra["bpe"].vocab, ends=(ids[end],))
    mine = HydraModel({**hydra.models, "bpe": dataclasses.replace(hydra["bpe"], vocab=ends)})
    near = "import json " * 40
    near = next(near[:n] for n in range(len(near), 0, -1) if len(encode_prompt(hydra["base"].vocab, near[:n])) == 60)
    whole = hydra.generate(PROMPTS[3], "base", max_tokens=12, **options)
    assert len(whole) > 6
    prompts, read = [TEXT, near, PROMPTS[3], PROMPTS[3], "x"], ["bpe", "base", "base", "base", "unigram"]
    stops = [None, None, whole[3:5], lambda text: len(text) > 4, None]
    written = mine.generate(prompts, read, max_tokens=12, stop=stops, **options)
    assert written == [mine.generate(*one[:2], max_tokens=12, stop=one[2], **options) for one in zip(prompts, read, stops)]
    assert written[0] == generate(hydra["bpe"], TEXT, max_tokens=end, **options)
    assert written[1] == generate(hydra["base"], near, max_tokens=4, **options)
    assert written[2] == whole[: whole.index(whole[3:5])] and len(written[3]) > 4 and written[3] == whole[: len(written[3])]
    assert written[4] == generate(hydra["unigram"], "x", max_tokens=12, **options)


def test_frequencies_that_change_with_length(tmp_path):
    """LongRoPE reads a text in one way or another by its length, and no text because of another's."""
    base = load_base_model(parity.base_folder("phi3-longrope", tmp_path))
    assert base.config.restarts == (12,)
    hydra = HydraModel({"a": dataclasses.replace(base, vocab=dataclasses.replace(base.vocab, ends=()))})
    texts = [base.vocab.tokenizer.decode([7 + n] * n) for n in (3, 20, 9)]
    ids = [encode_prompt(base.vocab, text) for text in texts]
    assert {len(one) > 12 for one in ids} == {True, False}
    assert hydra.generate(texts, "a", max_tokens=8) == [generate(hydra["a"], text, max_tokens=8) for text in texts]
    for logits, one in zip(hydra.logits(ids, "a"), ids):
        h = Body(base.graphdef, base.params)(np.asarray(base.table.input)[np.asarray([one])])
        np.testing.assert_allclose(logits, base.table.unembed(h)[0], rtol=1e-5, atol=1e-5)


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
    with pytest.raises(UserError, match="there are 2 texts and 1 tokenizers; give one for each, or one for all"):
        hydra.logits(["a", "b"], ["bpe"])
    with pytest.raises(UserError, match="there are 2 prompts and 3 tokenizers to write"):
        hydra.generate(["a", "b"], "bpe", ["bpe"] * 3)
    with pytest.raises(UserError, match="there are 0 prompts"):
        hydra.generate([], "bpe")
    with pytest.raises(UserError, match="the prompt has 65 tokens"):
        hydra.generate(["a", hydra["bpe"].vocab.tokenizer.decode([5] * 65)], "bpe")
    with pytest.raises(UserError, match="a text has 65 tokens, one 1; the model reads 1 to 64"):
        hydra.logits([[5] * 65, "a"], "bpe")
    with pytest.raises(UserError, match="stop is ''"):
        hydra.generate("a", "bpe", "unigram", stop="")
