"""A base model as a value, with its own and with another vocabulary; one clear error for a folder that is none."""

import dataclasses

import numpy as np
import pytest
import tiny
from lms import parity
from lms.folders import edit_json
from safetensors.numpy import load_file, save_file

from zett.data.masked import frame_of
from zett.errors import UserError
from zett.evaluate.tasks.masked_bits_per_byte import MaskedBitsPerByte
from zett.lms import load_base_model
from zett.table import EmbeddingTable
from zett.vocab import load_tokenizer


def test_table_alone_and_fingerprint(pristine, tmp_path):
    whole, table_only = load_base_model(pristine), load_base_model(pristine, body=False)
    assert table_only.params is None and table_only.fingerprint == whole.fingerprint
    assert len(whole.fingerprint) == 64
    other = load_base_model(tiny.base_folder(tmp_path / "other", dtype="bfloat16"))
    assert other.fingerprint != whole.fingerprint


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
    # The same tokens under other ids, backwards; but the input rows of its special tokens say something else.
    rows = np.asarray(base.table.input)[::-1].copy()
    special = list(vocab.special.values())
    rows[special] = np.random.default_rng(0).standard_normal((len(special), rows.shape[1]))
    table = EmbeddingTable.of(rows, np.asarray(base.table.output_rows)[::-1], np.asarray(base.table.bias)[::-1])
    new = base.with_vocabulary(table, vocab)
    assert not new.causal and frame_of(new) == frame_of(base)

    task = MaskedBitsPerByte()
    items = task.items(base, ["t h e c a t s a t"])
    expected = task.score(base, items)
    np.testing.assert_allclose(task.score(new, items), expected, rtol=1e-5)
    own = dataclasses.replace(new, original=None)  # with the frame of its own vocabulary the number is another
    assert np.abs(task.score(own, items) - expected).max() > 1e-3


def test_padding_rows_may_exceed_the_tokenizer_but_not_lack(folder):
    tensors = load_file(folder / "model.safetensors")
    for extra in (5, -5):
        rows = {
            k: np.resize(tensors[k], (len(tensors[k]) + extra, 16)) for k in ("model.embed_tokens.weight", "lm_head.weight")
        }
        save_file({**tensors, **rows}, folder / "model.safetensors")
        edit_json(folder / "config.json", vocab_size=len(rows["lm_head.weight"]))
        if extra > 0:
            np.testing.assert_array_equal(load_base_model(folder).table.input, tensors["model.embed_tokens.weight"])
        else:
            with pytest.raises(UserError, match="the tokenizer has 300 ids, the embedding table only 295 rows"):
                load_base_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt5"}, "model_type is 'gpt5'; supported: "),
        ({"model_type": "mixtral"}, "model_type is 'mixtral', a mixture of experts, which is not computed here"),
        ({"model_type": "gemma3"}, "model_type is 'gemma3', multimodal, which is not computed here"),
        ({"model_type": ...}, "has no model_type, or None; it has to name the architecture"),
        ({"hidden_act": "strange"}, "config.json: .*'strange'"),
        ({"num_hidden_layers": ...}, "has no field 'num_hidden_layers'"),
        ({"vocab_size": ...}, "has no field 'vocab_size'"),
        ({"vocab_size": "many"}, "config.json: "),
        ({"num_hidden_layers": 3}, "says 3 layers, but the weights beside it have 2"),
    ],
)
def test_config_errors(folder, changes, message):
    edit_json(folder / "config.json", **changes)
    with pytest.raises(UserError, match=message):
        load_base_model(folder)


def test_things_that_are_not_a_model(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, message in [("file", "is a file"), ("empty", "no config.json"), ("absent", "there is no folder")]:
        with pytest.raises(UserError, match=message):
            load_base_model(tmp_path / name)
    (tmp_path / "empty" / "config.json").write_text("[1")
    with pytest.raises(UserError, match="not readable as JSON"):
        load_base_model(tmp_path / "empty")


def test_hub_errors_are_explained(monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match=r"there is no folder 'someone/some-model', and .* could not be reached"):
        load_base_model("someone/some-model")


def test_saving_leaves_foreign_folders_alone(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    with pytest.raises(UserError, match=r"holds what zett did not write, which would be lost: chapter\.tex"):
        tiny.base_folder(tmp_path / "thesis")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis"] and (tmp_path / "thesis" / "chapter.tex").exists()
    tiny.base_folder(tmp_path / "model")
    tiny.base_folder(tmp_path / "model")  # a model may be replaced
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "thesis"]
