"""Training-free methods, and the folder that a transfer writes."""

import errno
import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny
from flax import nnx
from lms.folders import edit_json, shard
from safetensors.numpy import load_file, save_file

from zett.errors import UserError
from zett.files.tensors import FLOATS, stored_tensors
from zett.lms import load_base_model
from zett.lms.folder import write_model
from zett.methods import METHODS
from zett.table import EmbeddingTable
from zett.transfer import transfer, transfer_table
from zett.vocab import SurfaceForms, load_tokenizer

VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")
SHARED = Path(__file__).parents[2] / "shared" / "data" / "tokenizers"


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory):
    return tiny.base_folder(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def tied_folder(tmp_path_factory):
    return tiny.base_folder(tmp_path_factory.mktemp("tied") / "model", tied=True)


@pytest.fixture(scope="module")
def target_folder(tmp_path_factory):
    folder = tiny.tokenizer_folder(tmp_path_factory.mktemp("target") / "tokenizer", size=400)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "notes.md").write_text("not a tokenizer file")
    return folder


# --------------------------------------------------------------------------------------------------------------- methods


def forms_of(pieces, lengths, same) -> SurfaceForms:
    shape = (len(lengths), 5)
    return SurfaceForms(np.asarray(pieces, np.int32), np.asarray(lengths), np.zeros(shape, np.float32), np.asarray(same))


def test_methods_by_hand():
    source, target = range(3), range(4)  # they only need a length
    rows = np.asarray([[0, 0], [2, 4], [4, 8], [99, 99]], np.float32)  # the last is padding of the base's table
    table = EmbeddingTable.of(rows, rows * 10, rows[:, 0])
    # A shared token; two pieces; a byte that the source lacks beside a piece; only such a byte.
    forms = forms_of([[2, 0], [0, 1], [3, 1], [3, 0]], [1, 2, 2, 1], [2, -1, -1, -1])
    out = METHODS["fvt"](table, source, target, forms)
    expected = np.asarray([[4, 8], [1, 2], [2, 4], [2, 4]], np.float32)
    np.testing.assert_allclose(out.input, expected)
    np.testing.assert_allclose(out.output, expected * 10)
    np.testing.assert_allclose(out.bias, expected[:, 0])
    out = METHODS["mean"](table, source, target, forms)
    np.testing.assert_allclose(out.input, [[4, 8], [2, 4], [2, 4], [2, 4]])
    out = METHODS["random"](table, source, target, forms, seed=1)
    np.testing.assert_allclose(out.input[0], [4, 8])
    assert not np.allclose(out.input[1], out.input[2])
    same = METHODS["random"](table, source, target, forms, seed=1)
    np.testing.assert_array_equal(out.input, same.input)
    assert not np.array_equal(out.input, METHODS["random"](table, source, target, forms, seed=2).input)


def test_random_rows_have_the_source_rows_distribution():
    rows = np.random.default_rng(0).normal([1.0, -3.0], [0.1, 2.0], (500, 2)).astype(np.float32)
    many = range(20_000)
    forms = forms_of(np.zeros((20_000, 1)), np.zeros(20_000), np.full(20_000, -1))
    out = METHODS["random"](EmbeddingTable.of(rows), range(500), many, forms)
    np.testing.assert_allclose(out.input.mean(0), rows.mean(0), atol=0.05)
    np.testing.assert_allclose(out.input.std(0), rows.std(0), rtol=0.05)
    assert out.output is None and out.bias is None


@pytest.mark.parametrize("method", METHODS)
def test_transfer_to_its_own_tokenizer_changes_nothing(method, base_folder):
    base = load_base_model(base_folder)
    table = transfer_table(base, base.vocab, method=method)
    kept = [i for i, token in enumerate(base.vocab.tokens) if token or i in base.vocab.special.values()]
    assert len(kept) > 290
    np.testing.assert_array_equal(np.asarray(table.input)[kept], np.asarray(base.table.input)[kept])
    np.testing.assert_array_equal(np.asarray(table.output)[kept], np.asarray(base.table.output)[kept])


# ------------------------------------------------------------------------------------------------------------ the folder


def raw_tensors(folder: Path) -> dict[str, tuple]:
    """Type, shape, file and bytes of every tensor."""
    tensors = {}
    for name, t in stored_tensors(folder).items():
        tensors[name] = (t.dtype, t.shape, t.file.name, t.file.read_bytes()[t.start : t.stop])
    return tensors


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
    table = transfer_table(load_base_model(base_folder), load_tokenizer(target_folder), method="fvt")
    np.testing.assert_allclose(again.table.input, table.input, rtol=1e-2)
    np.testing.assert_allclose(again.table.output, table.output, rtol=1e-2)
    card = (output / "README.md").read_text()
    for word in (str(base_folder), str(target_folder), "fvt", "zett transfer --model"):
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


def test_rows_of_a_hypernetwork(tmp_path, base_folder, target_folder):
    from zett.config import HypernetConfig
    from zett.hypernet.network import make_hypernet
    from zett.hypernet.release import load_hypernet, save_hypernet
    from zett.hypernet.trained import TrainedHypernet

    base = load_base_model(base_folder)
    config = HypernetConfig(width=16, layers=1, heads=2, feed_forward=16)
    params = nnx.to_pure_dict(nnx.split(make_hypernet(config, 16, False, np.float32, 0))[1])
    trained = TrainedHypernet(config, params, 16, False, {"name": "tiny", "fingerprint": base.fingerprint})
    save_hypernet(tmp_path / "hypernet", trained, base.vocab, {})
    output = transfer(base_folder, target_folder, tmp_path / "out", hypernet=tmp_path / "hypernet")
    # In float32 also where a transfer reads the base's rows as they are stored.
    expected = load_hypernet(tmp_path / "hypernet").table_for(base, load_tokenizer(target_folder))
    tensors = load_file(output / "model.safetensors")
    for name, rows in zip(VOCABULARY, (expected.input, expected.output)):
        np.testing.assert_array_equal(tensors[name], np.asarray(rows).astype(tensors[name].dtype))
    assert str(tmp_path / "hypernet") in (output / "README.md").read_text()
    other = tiny.base_folder(tmp_path / "other", tied=True)
    with pytest.raises(UserError, match="trained for the base model 'tiny'"):
        transfer(other, target_folder, tmp_path / "out2", hypernet=tmp_path / "hypernet")


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
    import shutil

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
    assert names(tmp_path) == ["model", "out"]


def test_what_was_measured_is_in_the_card(tmp_path, base_folder, target_folder):
    text = tmp_path / "text.txt"
    text.write_text("".join(tiny.TEXT))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.jsonl").write_text('{"text": "a short row"}\n{"text": "another"}\n')
    output = transfer(base_folder, target_folder, tmp_path / "out", method="fvt", text=[text, tmp_path / "more"])
    card = (output / "README.md").read_text()
    assert f"on all {text.stat().st_size + 18:,} bytes of text.txt, more" in card
    after, before, ratio = map(float, re.search(r"([\d.]+) bits per byte, ([\d.]+) before \(([\d.]+) times\)", card).groups())
    assert 1 < before < 30 and ratio == pytest.approx(after / before, abs=1e-3)
    assert f"--text {text}" in card
    (tmp_path / "folder").mkdir()  # a table in a folder: the same texts, the same numbers
    rows = json.dumps({"text": text.read_text()}) + "\n" + (tmp_path / "more" / "a.jsonl").read_text()
    (tmp_path / "folder" / "a.jsonl").write_text(rows)
    other = transfer(base_folder, target_folder, tmp_path / "other", method="fvt", text=tmp_path / "folder")
    assert f"{after:.4f} bits per byte, {before:.4f} before" in (other / "README.md").read_text()
    again = transfer(base_folder, base_folder, tmp_path / "same", method="fvt", measure=[text])
    assert "(1.000 times)" in (again / "README.md").read_text()  # its own tokenizer


def test_what_cannot_be_measured(tmp_path, base_folder, target_folder):
    (tmp_path / "binary").write_bytes(b"caf\xe9 " * 1000)
    (tmp_path / "empty").write_text("\n")
    for name, message in [("binary", "not UTF-8 text: byte 3"), ("empty", "holds no text"), ("absent", "cannot be read")]:
        with pytest.raises(UserError, match=message):
            transfer(base_folder, target_folder, tmp_path / "out", method="fvt", measure=[tmp_path / name])
    assert not (tmp_path / "out").exists()


def test_pushing(tmp_path, base_folder, target_folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name, message in [
        ("me/my-model", "needs a login: run `hf auth login`"),
        ("not a name", "not a name that a model can"),
    ]:
        with pytest.raises(UserError, match=message):
            transfer(base_folder, target_folder, tmp_path / "out", method="mean", push=name)
    monkeypatch.setenv("HF_TOKEN", "hf_something")
    with pytest.raises(UserError, match="the Hugging Face Hub cannot be reached"):  # HF_HUB_OFFLINE
        transfer(base_folder, target_folder, tmp_path / "out", method="mean", push="me/my-model")
    assert names(tmp_path) == []  # said before anything was done


def test_options_of_the_command(tmp_path, base_folder, target_folder, capsys):
    from zett.cli import main

    text = tmp_path / "text.txt"
    text.write_text("".join(tiny.TEXT))
    arguments = ["--model", base_folder, "--tokenizer", target_folder, "--output", tmp_path / "out", "--method", "mean"]
    arguments += ["--revision", "main", "--measure", text, "--push", "not a name"]
    with pytest.raises(SystemExit) as exit:
        main(["transfer", *map(str, arguments)])
    assert exit.value.code == 2 and "'not a name' is not a name that a model can have" in capsys.readouterr().err


def test_pushing_uploads_the_folder(tmp_path, base_folder, target_folder, monkeypatch):
    from huggingface_hub import HfApi

    calls = {}
    monkeypatch.setattr(HfApi, "whoami", lambda self: {})
    monkeypatch.setattr(HfApi, "create_repo", lambda self, name, **settings: calls.update(repo=name))
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **settings: calls.update(settings))
    output = transfer(base_folder, target_folder, tmp_path / "out", method="mean", push="me/my-model")
    assert calls["repo"] == calls["repo_id"] == "me/my-model" and calls["folder_path"] == output

    def fail(self, **settings):
        raise OSError("connection lost")

    monkeypatch.setattr(HfApi, "upload_folder", fail)
    with pytest.raises(UserError, match=r"out2 is written, but could not be pushed \(connection lost\); later: hf upload"):
        transfer(base_folder, target_folder, tmp_path / "out2", method="mean", push="me/my-model")
    assert load_base_model(tmp_path / "out2", body=False)


# ------------------------------------------------------------------------------------------------- other architectures


LLAMA = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, num_key_value_heads=2)
OTHERS = {
    "OPT": dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, ffn_dim=24, word_embed_proj_dim=8),
    "Bloom": dict(hidden_size=16, n_layer=2, n_head=4),
    "Falcon": dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, tie_word_embeddings=False),
    "Mixtral": dict(**LLAMA, num_local_experts=4),
    "Qwen2Moe": dict(**LLAMA, moe_intermediate_size=12, shared_expert_intermediate_size=12, num_experts=4),
    "GPTJ": dict(n_embd=16, n_layer=2, n_head=2, rotary_dim=4, tie_word_embeddings=False),
    "T5": dict(d_model=16, num_layers=2, num_heads=4, d_kv=4, d_ff=24, decoder_start_token_id=1),
    "Albert": dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, embedding_size=8),
    "DistilBert": dict(dim=16, n_layers=2, n_heads=4, hidden_dim=24),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_architectures_that_are_not_ported(kind, tmp_path, target_folder):
    """The result is the base model with its rows exchanged by hand, as PyTorch computes both."""
    torch = pytest.importorskip("torch")
    import transformers

    from zett.vocab.train import save_tokenizer

    head = {"T5": "Seq2SeqLM", "Albert": "MaskedLM", "DistilBert": "MaskedLM"}.get(kind, "CausalLM")
    auto = getattr(transformers, f"AutoModelFor{head}")
    torch.manual_seed(0)
    config = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1, **OTHERS[kind]}
    model = auto.from_config(getattr(transformers, f"{kind}Config")(**config)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path / "base")
    save_tokenizer(tiny.tokenizer(), tmp_path / "base")
    output = transfer(tmp_path / "base", target_folder, tmp_path / "out", method="fvt")

    table = transfer_table(load_base_model(tmp_path / "base", body=False), load_tokenizer(target_folder), method="fvt")
    assert (table.bias is not None) == (kind in ("GPTJ", "Albert", "DistilBert"))
    model.resize_token_embeddings(400, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.tensor(table.input))
        model.get_output_embeddings().weight.copy_(torch.tensor(table.output_rows))
        if table.bias is not None:
            model.get_output_embeddings().bias.copy_(torch.tensor(table.bias))
    again, info = auto.from_pretrained(output, output_loading_info=True)
    assert not any(info.values()), info
    ids = torch.arange(2, 400, 11)[None]
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if kind == "T5" else {})}
    with torch.no_grad():
        np.testing.assert_array_equal(again.eval()(**inputs).logits, model(**inputs).logits)
    before, after = raw_tensors(tmp_path / "base"), raw_tensors(output)
    assert before.keys() == after.keys()
    unchanged = {name for name in before if before[name] == after[name]}
    assert all(300 in before[name][1] for name in before.keys() - unchanged) and len(before) - len(unchanged) in (1, 2, 3)
    config = json.loads((output / "config.json").read_text())
    assert config["vocab_size"] == 400 and config["architectures"] == [type(model).__name__]


def write_strange(folder: Path, tensors: dict, **config) -> Path:
    """A model of an unknown architecture with these tensors, by shape."""
    tiny.tokenizer_folder(folder)
    values = {name: np.full(shape, i, np.float32) for i, (name, shape) in enumerate(tensors.items())}
    save_file(values, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "strange", "vocab_size": 300, "pad_token_id": 1, **config}))
    return folder


def test_nested_configs(tmp_path, target_folder):
    """The language model in a multimodal one."""
    tensors = {"vision.patches.weight": (7, 5), "language_model.model.embed_tokens.weight": (300, 4)}
    config = {"vocab_size": 300, "pad_token_id": 1, "tie_word_embeddings": True}
    model = write_strange(tmp_path / "model", tensors, text_config=config)
    edit_json(model / "config.json", vocab_size=...)
    after = json.loads((transfer(model, target_folder, tmp_path / "out", method="mean") / "config.json").read_text())
    assert after["text_config"]["vocab_size"] == 400 and "vocab_size" not in after
    assert raw_tensors(tmp_path / "out")["language_model.model.embed_tokens.weight"][1] == (400, 4)


def test_ids_of_other_tokens_follow(tmp_path, target_folder):
    model = write_strange(tmp_path / "model", {"wte.weight": (300, 4)}, decoder_start_token_id=0, image_token_index=None)
    after = json.loads((transfer(model, target_folder, tmp_path / "out", method="mean") / "config.json").read_text())
    assert after["decoder_start_token_id"] == load_tokenizer(target_folder).roles["bos"]
    edit_json(model / "config.json", image_token_index=200)
    with pytest.raises(UserError, match=r"image_token_index is the token '.+' \(200\), which the target tokenizer lacks"):
        transfer(model, target_folder, tmp_path / "other", method="mean")


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        ({"wte.weight": (300, 4), "codes": (300, 2)}, {}, "cannot tell .* 300 tokens; of the right size or name: codes, wte"),
        ({"wte.weight": (300, 4), "head.kernel": (4, 300)}, {}, "cannot tell .*head.kernel"),
        ({"wte.weight": (300, 4), "embed.weight": (300, 4)}, {}, "several tensors could be the input rows, .* embed.weight"),
        ({"wte.weight": (300, 4), "head.weight": (300, 4)}, {"tie_word_embeddings": True}, "head.weight differs from wte"),
        ({"wte.weight": (301, 4)}, {}, "cannot tell which .*: none"),
        ({"wte.weight": (300, 4)}, {"vocab_size": "many"}, "vocab_size is 'many'; it has to be a whole number"),
        ({"embeddings.position_embeddings.weight": (9, 4), "wte.weight": (300, 4)}, {"model_type": "mpnet", "pad_token_id": 5},
         "positions of a model of type 'mpnet' count from its padding id, which would change from 5 to 1"),
    ],
)  # fmt: skip
def test_vocabularies_that_are_not_certain(tensors, config, message, tmp_path, target_folder):
    model = write_strange(tmp_path / "model", tensors, **config)
    with pytest.raises(UserError, match=message):
        transfer(model, target_folder, tmp_path / "out", method="fvt")
    assert names(tmp_path) == ["model"]


# ----------------------------------------------------------------------------------------------------- bad input, bad luck


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_bad_input(tmp_path, base_folder, target_folder):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    cases = [
        ((tmp_path / "absent", target_folder, out, "fvt", None), "there is no folder .*absent"),
        ((base_folder, tmp_path / "empty", out, "fvt", None), "empty"),
        ((base_folder, tmp_path / "absent", out, "fvt", None), "absent"),
        ((base_folder, base_folder / "config.json", out, "fvt", None), "config.json"),
        ((base_folder, target_folder, out, "fvvt", None), "method 'fvvt' does not exist; did you mean fvt"),
        ((base_folder, target_folder, out, "fvt", "x"), "method 'fvt' uses none"),
        ((base_folder, target_folder, out, "hypernet", None), "needs a hypernetwork made for"),
    ]
    for (model, tokenizer, output, method, hypernet), message in cases:
        with pytest.raises(UserError, match=message):
            transfer(model, tokenizer, output, method=method, hypernet=hypernet)
        assert names(tmp_path) == ["empty"]


def test_outputs_that_exist(tmp_path, base_folder, target_folder):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder is fine
    transfer(base_folder, target_folder, out, method="mean")
    with pytest.raises(UserError, match="exists and is not empty"):
        transfer(base_folder, target_folder, out, method="fvt")
    assert "mean" in (out / "README.md").read_text()
    (out / "results.txt").write_text("x")
    with pytest.raises(UserError, match=r"holds what zett did not write, which would be lost: results.txt; give another"):
        transfer(base_folder, target_folder, out, method="fvt", overwrite=True)
    (out / "results.txt").unlink()
    transfer(base_folder, target_folder, out, method="fvt", overwrite=True)
    assert "fvt" in (out / "README.md").read_text()
    assert names(tmp_path) == ["out"]


def test_overwrite_never_deletes_what_it_should_not(tmp_path, target_folder):
    base_folder = tiny.base_folder(tmp_path / "models" / "base")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    (tmp_path / "models" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "models")
    (tmp_path / "nowhere").symlink_to(tmp_path / "absent")
    for output, message in [
        (base_folder, "is .*, which is read from"),
        (base_folder / "new", "lies in .*, which is read from"),
        (target_folder / "new", "lies in .*, which is read from"),
        (target_folder, "is .*, which is read from"),
        (tmp_path / "models", "contains .*, which is read from"),
        (tmp_path / "link", "contains .*, which is read from"),
        (tmp_path / "thesis", "would be lost: chapter.tex"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "nowhere", "is a link to nothing"),
        ("", "output is ''"),
        (".", "is the current folder"),
    ]:
        with pytest.raises(UserError, match=message):
            transfer(base_folder, target_folder, output, method="fvt", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").exists() and load_base_model(base_folder)
    assert names(tmp_path) == ["file", "link", "models", "nowhere", "thesis"] and names(tmp_path / "models") == [
        "base",
        "config.json",
    ]


def test_full_disk(tmp_path, base_folder, target_folder, monkeypatch):
    out = tmp_path / "out"
    transfer(base_folder, target_folder, out, method="mean")
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def full(file, *args):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zett.files.tensors.write_tensors", full)
    with pytest.raises(UserError, match="no space left"):
        transfer(base_folder, target_folder, out, method="fvt", overwrite=True)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert names(tmp_path) == ["out"]


# --------------------------------------------------------------------------------------------------------- Hugging Face


def our_logits(folder: Path, ids: np.ndarray) -> np.ndarray:
    base = load_base_model(folder)
    body = nnx.merge(base.graphdef, base.params)
    return np.asarray(base.table.unembed(body(base.table.embed(ids))))


@pytest.mark.parametrize("which", ["base_folder", "tied_folder"])
def test_transformers_loads_it_and_agrees(which, request, tmp_path, target_folder):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    output = transfer(request.getfixturevalue(which), target_folder, tmp_path / "out", method="fvt")
    tokenizer = AutoTokenizer.from_pretrained(output)
    text = "def f(x):\n    return x + 1  # ünïcode\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ids == tiny.tokenizer(size=400).encode(text).ids and tokenizer.decode(ids) == text
    model, info = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()), info
    assert model.config.vocab_size == len(tokenizer) == 400
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    with torch.no_grad():
        theirs = model(torch.tensor([ids])).logits.numpy()
    np.testing.assert_allclose(our_logits(output, np.asarray([ids])), theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["gpt2", "mistral-v1", "bert-base-uncased", "unigram-16k-multi"])
def test_real_tokenizers_come_back_as_they_were(name, tmp_path, base_folder):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not on this machine")
    from transformers import AutoTokenizer

    output = transfer(base_folder, SHARED / name, tmp_path / "out", method="fvt")
    theirs, ours = AutoTokenizer.from_pretrained(SHARED / name), AutoTokenizer.from_pretrained(output)
    text = "Hello, World!  Grüße\n\tфывa 123 你好 <s>"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"] and type(ours) is type(theirs)
    assert json.loads((output / "config.json").read_text())["vocab_size"] >= len(ours)
