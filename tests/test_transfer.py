"""Training-free methods, and the folder that a transfer writes."""

import errno
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file
from test_weights import edit_json, shard

from zett.errors import UserError
from zett.lms import load_base_model, weights
from zett.methods import METHODS
from zett.table import EmbeddingTable
from zett.transfer import MAX_PIECES, transfer, transfer_table
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
    for name, t in weights.stored_tensors(folder).items():
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
    model_files = ["config.json", "generation_config.json", "README.md", "LICENSE"]
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
    assert json.loads((output / "generation_config.json").read_text()) == {"temperature": 0.6, **ids}
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


def test_hypernet_is_called_with_the_fingerprint(tmp_path, base_folder, target_folder, monkeypatch):
    calls = {}

    def load_hypernet(path):
        def predict(table, source, target, forms, *, fingerprint):
            calls.update(path=path, fingerprint=fingerprint, shape=forms.pieces.shape)
            # Padded to a bucket, as a jitted network's result is.
            rows = np.full((512, table.input.shape[1]), 0.5, np.float32)
            return EmbeddingTable(rows, rows + 1, None, len(target))

        return predict

    monkeypatch.setitem(sys.modules, "zett.hypernet", types.SimpleNamespace(load_hypernet=load_hypernet))
    output = transfer(base_folder, target_folder, tmp_path / "out", hypernet="my-hypernet")
    assert calls == {"path": "my-hypernet", "fingerprint": load_base_model(base_folder).fingerprint, "shape": (400, MAX_PIECES)}
    tensors = load_file(output / "model.safetensors")
    assert tensors["lm_head.weight"].shape == (400, 16) and (tensors["lm_head.weight"] == 1.5).all()
    assert "my-hypernet" in (output / "README.md").read_text()


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
    (out / "stale.txt").write_text("x")
    with pytest.raises(UserError, match="exists and is not empty"):
        transfer(base_folder, target_folder, out, method="fvt")
    assert "mean" in (out / "README.md").read_text()
    transfer(base_folder, target_folder, out, method="fvt", overwrite=True)
    assert "fvt" in (out / "README.md").read_text() and not (out / "stale.txt").exists()
    assert names(tmp_path) == ["out"]


def test_overwrite_never_deletes_what_it_should_not(tmp_path, target_folder):
    base_folder = tiny.base_folder(tmp_path / "models" / "base")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("x")
    (tmp_path / "models" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "models")
    for output, message in [
        (base_folder, "is read from"),
        (tmp_path / "models", "is read from"),
        (tmp_path / "link", "is read from"),
        (tmp_path / "thesis", "has no config.json"),
        (tmp_path / "file", "is a file"),
    ]:
        with pytest.raises(UserError, match=message):
            transfer(base_folder, target_folder, output, method="fvt", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").exists() and load_base_model(base_folder)
    assert names(tmp_path) == ["file", "link", "models", "thesis"]


def test_full_disk(tmp_path, base_folder, target_folder, monkeypatch):
    out = tmp_path / "out"
    transfer(base_folder, target_folder, out, method="mean")
    before = {p.name: p.read_bytes() for p in out.iterdir()}

    def full(file, *args):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "write_tensors", full)
    with pytest.raises(UserError, match="no space left"):
        transfer(base_folder, target_folder, out, method="fvt", overwrite=True)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert names(tmp_path) == ["out"]


# --------------------------------------------------------------------------------------------------------- Hugging Face


def our_logits(folder: Path, ids: np.ndarray) -> np.ndarray:
    from flax import nnx

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
