"""Model folders as they are written: a base model with another vocabulary, and all else as it was."""

import json
import shutil

import numpy as np
import pytest
import tiny
from lms.folders import edit_json, raw_tensors, shard
from safetensors.numpy import load_file, save_file

from zett.errors import UserError
from zett.files.tensors import FLOATS, stored_tensors
from zett.lms import load_base_model
from zett.lms.folder import write_model
from zett.methods import make_method
from zett.table import EmbeddingTable
from zett.transfer import transfer
from zett.vocab import load_tokenizer

VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")


@pytest.mark.parametrize("sharded", [False, True])
def test_only_the_vocabulary_changes(sharded, tmp_path, target_folder):
    base_folder = tiny.base_folder(tmp_path / "base")
    if sharded:
        shard(base_folder)
    (base_folder / "LICENSE").write_text("free")
    output = transfer(base_folder, target_folder, tmp_path / "out", method="fvt")
    before, after = raw_tensors(base_folder), raw_tensors(output)
    assert before.keys() == after.keys()
    for name in before:
        if name in VOCABULARY:
            assert after[name][:3] == ("BF16", (400, 16), before[name][2])
        else:
            assert after[name] == before[name], name
    tokenizer_files = ["chat_template.jinja", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
    for name in tokenizer_files:
        assert (output / name).read_bytes() == (target_folder / name).read_bytes()
    model_files = ["config.json", "generation_config.json", "README.md", "LICENSE", "zett.json"]
    weight_files = sorted(p.name for p in base_folder.glob("model*"))
    assert sorted(p.name for p in output.iterdir()) == sorted(tokenizer_files + model_files + weight_files)
    if sharded:
        old, new = (json.loads((f / "model.safetensors.index.json").read_text()) for f in (base_folder, output))
        assert new["weight_map"] == old["weight_map"]
        assert new["metadata"]["total_size"] == sum(len(t[3]) for t in after.values())
    # It is a base model again, with the rows that the method made, in the precision of the file.
    again = load_base_model(output)
    table = make_method("fvt")(load_base_model(base_folder), load_tokenizer(target_folder))
    np.testing.assert_allclose(again.table.input, table.input, rtol=1e-2)
    np.testing.assert_allclose(again.table.output, table.output, rtol=1e-2)
    card = (output / "README.md").read_text()
    for word in (str(base_folder), str(target_folder), "fvt", "zett.transfer("):
        assert word in card


def test_configs(tmp_path, target_folder):
    base_folder = tiny.base_folder(tmp_path / "base", tied=True)
    edit_json(base_folder / "generation_config.json", temperature=0.6, eos_token_id=[1, 5], suppress_tokens=[7])
    edit_json(base_folder / "config.json", tokenizer_class="LlamaTokenizer", some_field={"kept": 1})
    output = transfer(base_folder, target_folder, tmp_path / "out", method="mean")
    target = load_tokenizer(target_folder)
    ids = {f"{role}_token_id": target.roles[role] for role in ("bos", "eos", "pad")}
    before, after = (json.loads((f / "config.json").read_text()) for f in (base_folder, output))
    expected = {**before, **ids, "vocab_size": 400, "tie_word_embeddings": True, "tokenizer_class": "PreTrainedTokenizerFast"}
    assert after == expected
    # Both ended a text in the base model, and so do their partners.
    ends = [target.roles["eos"], target.roles["pad"]]
    assert json.loads((output / "generation_config.json").read_text()) == {"temperature": 0.6, **ids, "eos_token_id": ends}
    assert "lm_head.weight" not in raw_tensors(output)


def test_a_lone_tokenizer_file(tmp_path, base_folder, target_folder):
    file = tmp_path / "given" / "tokenizer.json"
    file.parent.mkdir()
    file.write_bytes((target_folder / "tokenizer.json").read_bytes())
    output = transfer(base_folder, file, tmp_path / "out", method="mean")
    assert (output / "tokenizer.json").read_bytes() == file.read_bytes()
    config = json.loads((output / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast" and config["eos_token"] == "<|endoftext|>"
    assert not (output / "special_tokens_map.json").exists()


def test_a_target_without_special_tokens(tmp_path, base_folder):
    import tokenizers as tk

    chars = tk.Tokenizer(tk.models.BPE())
    chars.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    chars.decoder = tk.decoders.ByteLevel()
    alphabet = tk.pre_tokenizers.ByteLevel.alphabet()
    chars.train_from_iterator([], tk.trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    chars.save(str(tmp_path / "tokenizer.json"))
    output = transfer(base_folder, tmp_path / "tokenizer.json", tmp_path / "out", method="fvt")
    config = json.loads((output / "config.json").read_text())
    # Null, not absent: an absent key would be Llama's 1 and 2.
    assert [config[f"{r}_token_id"] for r in ("bos", "eos", "pad")] == [None, None, None]
    assert json.loads((output / "generation_config.json").read_text()) == {}
    from transformers import AutoConfig, AutoTokenizer

    assert AutoConfig.from_pretrained(output).eos_token_id is None
    assert AutoTokenizer.from_pretrained(output).eos_token is None


def test_a_second_copy_of_tied_rows_changes_too(tmp_path, target_folder):
    base_folder = tiny.base_folder(tmp_path / "base", tied=True)
    tensors = load_file(base_folder / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}, base_folder / "model.safetensors")
    output = load_file(transfer(base_folder, target_folder, tmp_path / "out", method="fvt") / "model.safetensors")
    assert output["lm_head.weight"].shape == (400, 16)
    np.testing.assert_array_equal(output["lm_head.weight"], output["model.embed_tokens.weight"])
    assert load_base_model(tmp_path / "out").table.output is None


def test_a_tied_model_becomes_untied(tmp_path, target_folder):
    base = load_base_model(tiny.base_folder(tmp_path / "base", tied=True), body=False)
    target = load_tokenizer(target_folder)
    rows = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
    (tmp_path / "out").mkdir()
    write_model(tmp_path / "out", base, target, EmbeddingTable.of(rows, -rows))
    again = load_base_model(tmp_path / "out")
    np.testing.assert_allclose(again.table.output, -rows, rtol=1e-2)
    assert again.hf_config["tie_word_embeddings"] is False
    body = [name for name in raw_tensors(tmp_path / "base") if name not in VOCABULARY]
    assert all(raw_tensors(tmp_path / "out")[name] == raw_tensors(tmp_path / "base")[name] for name in body)


def test_types_of_different_width_stay_aligned(tmp_path, target_folder):
    """PyTorch cannot read a tensor that begins between two of its elements."""
    base_folder = tiny.base_folder(tmp_path / "base")
    tensors = load_file(base_folder / "model.safetensors")
    norms = {name: value.astype(np.float32) for name, value in tensors.items() if "norm" in name}
    save_file({**tensors, **norms}, base_folder / "model.safetensors")
    target = load_tokenizer(target_folder)
    base = load_base_model(base_folder, body=False)
    rows = np.zeros((401, 16), np.float32)[:400]
    (tmp_path / "out").mkdir()
    write_model(tmp_path / "out", base, target, EmbeddingTable.of(rows, rows))
    for name, t in stored_tensors(tmp_path / "out").items():
        assert t.start % FLOATS[t.dtype].itemsize == 0, name
        assert t.dtype == ("F32" if "norm" in name else "BF16")


def test_the_table_of_a_transfer_is_not_read_before_it_is_used(base_folder):
    table = load_base_model(base_folder, body=False).table
    assert table.input.dtype == "bfloat16" and isinstance(table.input.base.base, np.memmap)


def test_modules_of_a_sentence_embedding_model_follow(tmp_path, base_folder, target_folder):
    model = shutil.copytree(base_folder, tmp_path / "model")
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    modules = [{"idx": 0, "path": "", "type": "Transformer"}, {"idx": 1, "path": "1_Pooling", "type": "Pooling"}]
    (model / "modules.json").write_text(json.dumps(modules))
    (model / "sentence_bert_config.json").write_text('{"max_seq_length": 256}')
    output = transfer(model, target_folder, tmp_path / "out", method="mean")
    for name in ("modules.json", "sentence_bert_config.json", "1_Pooling/config.json"):
        assert (output / name).read_bytes() == (model / name).read_bytes()
    (model / "modules.json").write_text('[{"path": "../model"}]')
    with pytest.raises(UserError, match=r"modules.json names folders that are not in .*: \.\./model"):
        transfer(model, target_folder, tmp_path / "other", method="mean")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]
