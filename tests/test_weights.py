"""Base models in and out: exact round trips, and one clear error for anything that is wrong with a folder."""

import json

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from zett.errors import UserError
from zett.lms import load_base_model, save_base_model, weights


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return tiny.base_folder(tmp_path_factory.mktemp("base") / "model", dtype="float32")


@pytest.fixture
def folder(pristine, tmp_path):
    """A copy that a test may damage."""
    import shutil

    return shutil.copytree(pristine, tmp_path / "model")


def edit_json(path, **changes):
    value = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not ...}))


def shard(folder, parts: int = 3):
    """Split model.safetensors as Transformers does."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for i in range(parts):
        names = sorted(tensors)[i::parts]
        file = f"model-{i + 1:05}-of-{parts:05}.safetensors"
        save_file({n: tensors[n] for n in names}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_round_trip(pristine, tmp_path):
    base = load_base_model(pristine)
    assert base.config == tiny.CONFIG
    assert len(base.vocab) == base.table.input.shape[0] == base.hf_config["vocab_size"]
    save_base_model(
        tmp_path / "again", base.config, base.params, base.table, base.vocab.tokenizer, dtype="float32", record={"step": 1}
    )
    for path in sorted(pristine.iterdir()):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_bfloat16_and_tied(tmp_path):
    tied = load_base_model(tiny.base_folder(tmp_path / "tied", tied=True))
    assert tied.table.output is None and tied.hf_config["tie_word_embeddings"] is True
    assert tied.table.input.dtype == np.float32
    stored = weights.stored_tensors(tmp_path / "tied")
    assert {t.dtype for t in stored.values()} == {"BF16"} and "lm_head.weight" not in stored


def test_shards_are_the_single_file(pristine, folder):
    shard(folder)
    one, many = load_base_model(pristine), load_base_model(folder)
    assert jax.tree.all(jax.tree.map(np.array_equal, one.params, many.params))
    np.testing.assert_array_equal(one.table.output, many.table.output)
    assert one.fingerprint == many.fingerprint


def test_table_alone_and_fingerprint(pristine, tmp_path):
    whole, table_only = load_base_model(pristine), load_base_model(pristine, body=False)
    assert table_only.params is None and table_only.fingerprint == whole.fingerprint
    assert len(whole.fingerprint) == 64
    other = load_base_model(tiny.base_folder(tmp_path / "other", dtype="bfloat16"))
    assert other.fingerprint != whole.fingerprint


def test_bos_row(pristine):
    import dataclasses

    base = load_base_model(pristine)
    np.testing.assert_array_equal(base.bos_row, base.table.input[base.vocab.roles["bos"]])
    nameless = dataclasses.replace(base, vocab=dataclasses.replace(base.vocab, roles={}))
    np.testing.assert_allclose(nameless.bos_row, np.asarray(base.table.input).mean(0), atol=1e-6)


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


def test_all_faults_in_one_error(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"], tensors["lm_head.weight"]
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(16, np.float32)
    tensors["model.norm.weight"] = np.zeros(17, np.float32)
    tensors["model.layers.0.input_layernorm.weight"] = np.zeros(16, np.int8)
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(2, np.float32)  # harmless
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError) as error:
        load_base_model(folder)
    message = str(error.value)
    assert str(folder) in message and "\n" not in message
    assert "missing: lm_head.weight, model.layers.1.mlp.up_proj.weight" in message
    assert "unknown: model.layers.0.self_attn.q_proj.bias in model.safetensors" in message
    assert "model.norm.weight in model.safetensors is [17], not [16]" in message
    assert "model.layers.0.input_layernorm.weight in model.safetensors is I8" in message
    assert "inv_freq" not in message


def test_tied_model_with_a_second_copy(folder):
    tensors = load_file(folder / "model.safetensors")
    edit_json(folder / "config.json", tie_word_embeddings=True)
    with pytest.raises(UserError, match="tie_word_embeddings"):
        load_base_model(folder)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, folder / "model.safetensors")
    assert load_base_model(folder).table.output is None


def test_damaged_files_are_named(folder):
    shard(folder)
    path = folder / "model-00002-of-00003.safetensors"
    content = path.read_bytes()
    for damaged in (content[:-10], content[:5], b"", b"\x00" * 100, b"<html>not found</html>"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{path.name} is not a complete safetensors file"):
            load_base_model(folder)
    path.unlink()
    with pytest.raises(UserError, match=f"names files that are not in .*{path.name}"):
        load_base_model(folder)


def test_index_that_disagrees_with_its_files(folder):
    shard(folder)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match="elsewhere"):
        load_base_model(folder)
    index["weight_map"]["model.norm.weight"] = "model-00001-of-00003.safetensors"
    index["weight_map"]["lm_head.weight"] = "model-00003-of-00003.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match="does not say what its files hold"):
        load_base_model(folder)


def test_pickles_are_refused_with_the_command_that_converts_them(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"python -c .*save_pretrained"):
        load_base_model(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"neither model.safetensors nor"):
        load_base_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt5"}, "model_type is 'gpt5'; supported: llama"),
        ({"model_type": ...}, "model_type is None"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"num_hidden_layers": ...}, "has no field 'num_hidden_layers'"),
        ({"vocab_size": ...}, "has no field 'vocab_size'"),
        ({"vocab_size": "many"}, "config.json: "),
        ({"num_hidden_layers": 3}, "missing: model.layers.2"),
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
    with pytest.raises(UserError, match=r"no config\.json"):
        tiny.base_folder(tmp_path / "thesis")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis"] and (tmp_path / "thesis" / "chapter.tex").exists()
    tiny.base_folder(tmp_path / "model")
    tiny.base_folder(tmp_path / "model")  # a model may be replaced
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "thesis"]
