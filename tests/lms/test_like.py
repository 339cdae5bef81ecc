"""Draft models: sizes, ids and chat template are those of the model that is drafted for; padding; what is refused."""

import json
import shutil
from types import SimpleNamespace

import gguf_files
import numpy as np
import pytest
import tiny
from lms.folders import edit_json
from special_tokens import bpe
from surgery.shapes import model_folder

from zett import load_base_model, load_tokenizer
from zett.errors import UserError
from zett.files.tensors import read_tensor, stored_tensors
from zett.lms.body import Body
from zett.lms.folder import write_trained
from zett.lms.like import different_ids, read_like
from zett.lms.padding import with_padding
from zett.table import EmbeddingTable
from zett.transfer import transfer

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
ROWS = 320


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """The folder of a model without weights: a tokenizer of 260 tokens and a config with 320 rows."""
    folder = tmp_path_factory.mktemp("models") / "big"
    vocab = bpe(SPECIAL, declared={"eos": "<|im_end|>"}, folder=folder)
    assert len(vocab) == 260
    (folder / "chat_template.jinja").write_text("<|im_start|>{{ messages[0].content }}<|im_end|>")
    ids = {"bos_token_id": 256, "eos_token_id": 258, "pad_token_id": 259}
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3_moe", "text_config": {"vocab_size": ROWS, **ids}}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [258, 256], "top_k": 20}))
    return folder


def configs(folder):
    return (json.loads((folder / name).read_text()) for name in ("config.json", "generation_config.json"))


@pytest.mark.parametrize("tied", [True, False])
def test_sizes_ids_and_template_are_those_of_the_big_model(tied, tmp_path, big):
    base = tiny.base_folder(tmp_path / "base", tied=tied)
    edit_json(base / "generation_config.json", temperature=0.6)
    output = transfer(base, big, tmp_path / "out", method="fvt", like=big)
    config, generation = configs(output)
    assert config["vocab_size"] == ROWS and config["max_position_embeddings"] == 64
    assert [config[f"{role}_token_id"] for role in ("bos", "eos", "pad")] == [256, 258, 259]
    assert generation["eos_token_id"] == [258, 256] and generation["temperature"] == 0.6 and "top_k" not in generation
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (output / name).read_bytes() == (big / name).read_bytes()
    stored = stored_tensors(output)
    for name in ["model.embed_tokens.weight", *([] if tied else ["lm_head.weight"])]:
        rows = read_tensor(stored, name).astype(np.float32)
        assert rows.shape[0] == ROWS
        np.testing.assert_allclose(rows[260:], np.broadcast_to(rows[:260].mean(0), (60, 16)), rtol=0.01, atol=1e-3)
    model = load_base_model(output)
    assert len(model.vocab) == len(model.table.input) == 260
    card = (output / "README.md").read_text()
    assert (
        "320 rows, as its vocab_size says, 60 of them padding" in card
        and "Recommended" not in card
        and "--map TOKEN=TEXT" in card
    )
    assert different_ids(model.vocab, load_tokenizer(big)) == []


def test_transformers_takes_it(tmp_path, big):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    output = transfer(tiny.base_folder(tmp_path / "base"), big, tmp_path / "out", method="fvt", like=big)
    model, info = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32, output_loading_info=True)
    assert not any(info.values()) and model.get_input_embeddings().weight.shape == (ROWS, 16)
    with torch.no_grad():
        chances = model(torch.tensor([[40, 41, 42]])).logits[0].softmax(-1)
    assert (chances[:, 260:] <= 1 / 260 + 1e-6).all() and chances[:, 260:].max() > 0


def test_vllm_takes_it(tmp_path):
    """By vLLM's own comparison of its own reading of both configs, which needs no GPU."""
    speculative = pytest.importorskip("vllm.config.speculative")
    from vllm.transformers_utils.config import get_config, get_hf_text_config
    from vllm.transformers_utils.model_arch_config_convertor import ModelArchConfigConvertorBase

    big, base = model_folder(tmp_path / "big", "qwen3"), model_folder(tmp_path / "base", "llama")
    drafts = [transfer(base, big, tmp_path / ("draft" if like else "without"), method="fvt", like=like) for like in (None, big)]

    def side(folder):
        config = get_config(str(folder), trust_remote_code=False)
        return SimpleNamespace(get_vocab_size=ModelArchConfigConvertorBase(config, get_hf_text_config(config)).get_vocab_size)

    def check(draft):
        pair = SimpleNamespace(method="draft_model", target_model_config=side(big), draft_model_config=side(draft))
        speculative.SpeculativeConfig.verify_equal_vocab_size_if_draft_model(pair)

    with pytest.raises(ValueError, match="same vocabulary size"):
        check(drafts[0])
    check(drafts[1])


def test_a_tokenizer_json_alone_gets_the_template(tmp_path, big, caplog):
    caplog.set_level("INFO", "zett")
    (tmp_path / "alone").mkdir()
    shutil.copyfile(big / "tokenizer.json", tmp_path / "alone" / "tokenizer.json")
    output = transfer("pico", tmp_path / "alone" / "tokenizer.json", tmp_path / "out", method="mean", like=big)
    assert (output / "chat_template.jinja").read_bytes() == (big / "chat_template.jinja").read_bytes()
    assert "the chat template is that of" in caplog.text and next(configs(output))["eos_token_id"] == 258
    assert json.loads((output / "tokenizer_config.json").read_text())["eos_token"] == "<|im_end|>"


def test_padding_never_gets_more_than_its_share():
    """As zeros it would: that is what the mean is for."""
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((200, 8)) + 1.5).astype(np.float32)
    table = EmbeddingTable.of(rows, None, rng.standard_normal(200).astype(np.float32))
    h = -3 * np.ones((5, 8), np.float32) + rng.standard_normal((5, 8)).astype(np.float32)
    for padded, least, most in ((with_padding(table, 300), 0, 1 / 200), (table.pad(300), 1 / 200, 1)):
        logits = h @ np.asarray(padded.input).T + np.asarray(padded.bias)
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances = (chances / chances.sum(1, keepdims=True))[:, 200:]
        assert (least < chances).all() and (chances <= most).all()
    assert with_padding(table, 200) is table


def test_training_keeps_the_padding(tmp_path, big):
    draft = transfer(tiny.base_folder(tmp_path / "base"), big, tmp_path / "draft", method="fvt", like=big)
    base = load_base_model(draft, body=False)
    (tmp_path / "trained").mkdir()
    write_trained(
        tmp_path / "trained", base, EmbeddingTable.of(*(2 * np.asarray(x) for x in (base.table.input, base.table.output)))
    )
    before, after = (read_tensor(stored_tensors(f), "model.embed_tokens.weight") for f in (draft, tmp_path / "trained"))
    assert after.shape == before.shape and (after[260:] == before[260:]).all() and (after[:260] == 2 * before[:260]).all()
    assert next(configs(tmp_path / "trained"))["vocab_size"] == ROWS


def test_a_gguf_file_says_its_size(tmp_path):
    """By its header alone, so that any architecture and quantisation will do."""
    shape = {**gguf_files.SHAPE, "model_type": "qwen3"}
    file = gguf_files.write(tmp_path / "big.gguf", shape, {"model.embed_tokens.weight": np.zeros((320, 32))})
    like = read_like(file)
    assert like.rows == 320 and len(like.vocab) == tiny.tokenizer().get_vocab_size() and like.config["eos_token_id"] == 0


def test_what_a_config_says_of_nothing_is_kept(tmp_path, big):
    like = read_like(big)
    settings = {"eos_token_id": 1, "pad_token_id": 2, "text_config": {"eos_token_id": 1}, "other": 3}
    wanted = {"eos_token_id": 258, "pad_token_id": 2, "text_config": {"eos_token_id": 258}, "other": 3}
    assert like.follow(settings, {"eos_token_id": 258, "pad_token_id": None}, like.vocab) == wanted
    # The tokenizer's own end is another one, and ids without rows are none.
    assert like.follow(settings, {"eos_token_id": 256, "pad_token_id": 999}, like.vocab) == settings


# ---------------------------------------------------------------------------------------------------------------- refused


def test_other_tokenizers_are_refused(tmp_path, big, base_folder):
    other = bpe([*SPECIAL[:2], "<|other|>", SPECIAL[3]], folder=tmp_path / "other")
    assert len(other) == 260
    short = tmp_path / "short"
    bpe(SPECIAL[:2], folder=short)
    for tokenizer, message in [
        (
            tmp_path / "other",
            r"the token 258 is '<\|other\|>' in the tokenizer, but '<\|im_end\|>' in that of .*, 1 in all",
        ),
        (short, r"the token 258 is absent in the tokenizer, but '<\|im_end\|>' in that of"),
    ]:
        with pytest.raises(UserError, match=message):
            transfer(base_folder, tokenizer, tmp_path / "out", method="fvt", like=big)
    with pytest.raises(UserError, match="special is 'add-missing', which changes the tokenizer"):
        transfer(base_folder, big, tmp_path / "out", method="fvt", like=big, special="add-missing")
    assert not (tmp_path / "out").exists()


def test_first_ids_may_differ(tmp_path, base_folder, caplog):
    """llama.cpp does not compare them: beginnings and ends have other names in relatives of a model."""
    caplog.set_level("INFO", "zett")
    names = [f"<{i}>" for i in range(6)]
    for name, change in (("big", {}), ("draft", {"<2>": "<x>"}), ("late", {"<5>": "<x>"})):
        folder = tmp_path / name
        bpe([], folder=folder)
        spec = json.loads((folder / "tokenizer.json").read_text())
        special = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        texts = [change.get(text, text) for text in names]
        spec["added_tokens"] = [{"id": i, "content": text, **special} for i, text in enumerate(texts)]
        letters = {char: i + 6 for char, i in spec["model"]["vocab"].items()}
        spec["model"]["vocab"] = {text: i for i, text in enumerate(texts)} | letters
        (folder / "tokenizer.json").write_text(json.dumps(spec))
    (tmp_path / "big" / "config.json").write_text(json.dumps({"vocab_size": 262}))
    output = transfer(base_folder, tmp_path / "draft", tmp_path / "out", method="fvt", like=tmp_path / "big")
    assert "262 tokens have the same texts but for 2 (llama.cpp" in (output / "README.md").read_text()
    assert "(no --special): --map TOKEN=TEXT gives" in caplog.text and "is recommended" not in caplog.text  # it has no end
    with pytest.raises(UserError, match="the token 5 is '<x>' in the tokenizer, but '<5>'"):
        transfer(base_folder, tmp_path / "late", tmp_path / "out2", method="fvt", like=tmp_path / "big")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "has no config.json, which says how many rows the model has"),
        ({"model_type": "llama"}, "config.json has no number 'vocab_size'"),
        ({"vocab_size": 0}, "vocab_size in its config.json is 0; it has to be a whole number, at least 1"),
        ({"vocab_size": 259}, "its tokenizer has 260 tokens, and vocab_size in its config.json is 259"),
    ],
)
def test_big_models_that_do_not_say_their_size(config, message, tmp_path, base_folder):
    bpe(SPECIAL, folder=tmp_path / "big")
    if config is not None:
        (tmp_path / "big" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=message):
        transfer(base_folder, tmp_path / "big", tmp_path / "out", method="fvt", like=tmp_path / "big")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big"]


def test_the_big_model_is_never_overwritten(big, base_folder, tmp_path):
    with pytest.raises(UserError, match="which is read from"):
        transfer(base_folder, tiny.tokenizer_folder(tmp_path / "t"), big, method="fvt", like=big, overwrite=True)


def test_logits_of_the_draft_are_those_of_its_tokens(tmp_path, big):
    """Padding is no part of the table that we load, and so takes no chance away here."""
    output = transfer(tiny.base_folder(tmp_path / "base"), big, tmp_path / "out", method="fvt", like=big)
    model = load_base_model(output)
    h = Body(model.graphdef, model.params)(model.table.embed(np.asarray([[40, 41]])))
    assert model.table.unembed(h).shape[-1] == 260
