"""Tokens that only the files beside tokenizer.json name: they have the rows that Transformers gives them ids for."""

import json

import numpy as np
import pytest
import tiny
from lms.folders import edit_json
from safetensors.numpy import load_file

from zett.lms import load_base_model
from zett.transfer import transfer
from zett.vocab import load_tokenizer


def token(text, **flags):
    flags = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True} | flags
    return {"content": text} | flags


NEW = ("<|a|>", "<|b|>", "<|c|>", "<|d|>")
CASES = {
    "pad": ({"pad_token": "<|a|>"}, {}, {}),
    "roles in their own order": (
        {"pad_token": "<|b|>", "bos_token": "<|a|>", "mask_token": "<|d|>", "cls_token": "<|c|>"}, {}, {},
    ),
    "a token with flags": ({"bos_token": {"__type": "AddedToken", **token("<|a|>", lstrip=True)}}, {}, {}),
    "additional": ({"additional_special_tokens": ["<|b|>", "<|a|>", "<|endoftext|>"]}, {}, {}),
    "extra": ({"extra_special_tokens": ["<|b|>", "<|a|>"], "pad_token": "<|c|>"}, {}, {}),
    "extra by name": ({"extra_special_tokens": {"image_token": "<|b|>", "audio_token": "<|a|>"}}, {}, {}),
    "a role of its own": ({"image_token": "<|a|>", "additional_special_tokens": ["<|b|>"], "add_bos_token": True}, {}, {}),
    "listed": (
        {"added_tokens_decoder": {"401": token("<|b|>"), "400": token("<|a|>", special=False), "0": token("<|endoftext|>")},
         "pad_token": "<|c|>", "eos_token": "<|b|>"}, {"cls_token": "<|d|>"}, {},
    ),
    "listed with other ids": ({"added_tokens_decoder": {"700": token("<|a|>"), "500": token("<|b|>")}}, {}, {}),
    "the older files": (
        {}, {"pad_token": token("<|a|>"), "additional_special_tokens": ["<|c|>"]}, {"<|b|>": 400, "<|d|>": 401},
    ),
    "the older file wins": ({"pad_token": "<|a|>"}, {"pad_token": "<|b|>"}, {}),
    "a role of its own in both": ({"image_token": "<|a|>"}, {"image_token": "<|c|>", "c_token": "<|d|>"}, {}),
    "listed as an ordinary token": (
        {"added_tokens_decoder": {"9": token("<|a|>", special=False)}, "pad_token": "<|a|>"}, {}, {},
    ),
    "absurd": ({"added_tokens_decoder": {}, "extra_special_tokens": None, "sep_token": ""}, {"x": 1}, {"<|a|>": 3}),
    "extra twice": ({"additional_special_tokens": ["<|a|>"], "extra_special_tokens": {"image_token": "<|b|>"}}, {}, {}),
    "the newer file wins": ({"pad_token": "<|a|>", "added_tokens_decoder": {}}, {"pad_token": "<|b|>"}, {}),
}  # fmt: skip


def write_tokenizer(folder, config, tokens_map, added):
    tiny.tokenizer_folder(folder, size=400)
    edit_json(folder / "tokenizer_config.json", **config)
    (folder / "special_tokens_map.json").unlink()
    for name, content in (("special_tokens_map", tokens_map), ("added_tokens", added)):
        if content:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("case", CASES)
def test_they_are_numbered_as_transformers_does(case, tmp_path):
    from transformers import AutoTokenizer

    folder = write_tokenizer(tmp_path / "tokenizer", *CASES[case])
    theirs, ours = AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)
    assert len(ours) == len(theirs) > 400 - (case == "absurd")
    assert ours.tokenizer.get_vocab() == theirs.get_vocab()
    for role in ("bos", "eos", "pad", "cls", "mask"):
        if (i := getattr(theirs, f"{role}_token_id")) is not None:
            assert ours.roles[role] == i, role
    text = "a <|a|><|b|>  <|c|> <|d|>b"
    assert ours.tokenizer.encode(text).ids == theirs(text)["input_ids"]
    special = {i for i, t in theirs.added_tokens_decoder.items() if t.special}
    assert set(ours.special.values()) == special


def test_padding_of_the_tokenizer_itself(tmp_path):
    from transformers import AutoTokenizer

    folder = write_tokenizer(tmp_path / "tokenizer", {"pad_token": ...}, {}, {})
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None}
    edit_json(folder / "tokenizer.json", padding=padding | {"pad_id": 7, "pad_type_id": 0, "pad_token": "<|a|>"})
    assert load_tokenizer(folder).tokenizer.get_vocab() == AutoTokenizer.from_pretrained(folder).get_vocab()


def test_a_model_has_rows_for_them(tmp_path):
    """The token of a role gets its partner's row, an ordinary one its method's, another special one the mean row."""
    from transformers import AutoTokenizer

    config = {
        "added_tokens_decoder": {"400": token("return x", special=False), "401": token("<|extra|>")}, "pad_token": "<|a|>",
    }  # fmt: skip
    target = write_tokenizer(tmp_path / "tokenizer", config, {}, {})
    base = load_base_model(tiny.base_folder(tmp_path / "base"))
    output = transfer(base.folder, target, tmp_path / "out", method="fvt")
    tokenizer, rows = (
        AutoTokenizer.from_pretrained(output),
        load_file(output / "model.safetensors")["model.embed_tokens.weight"],
    )
    assert len(rows) == len(tokenizer) == 403
    written = json.loads((output / "config.json").read_text())
    assert written["pad_token_id"] == tokenizer.pad_token_id == 402 and written["vocab_size"] == 403
    old = np.asarray(base.table.input)
    np.testing.assert_allclose(rows[402].astype(np.float32), old[base.vocab.roles["pad"]], rtol=1e-2)
    pieces = base.vocab.tokenizer.encode("return x").ids
    np.testing.assert_allclose(rows[400].astype(np.float32), old[pieces].mean(0), rtol=0.02, atol=0.01)
    np.testing.assert_allclose(rows[401].astype(np.float32), old.mean(0), rtol=0.02, atol=0.02)
    again = load_base_model(output)
    assert len(again.vocab) == 403


@pytest.mark.parametrize("special", ["map-to-source", "add-missing"])
def test_they_stay_where_special_tokens_are_adapted(special, tmp_path):
    from transformers import AutoTokenizer

    config = {"additional_special_tokens": ["<|x|>"], "image_token": "<|image|>", "mask_token": "<|a|>"}
    target = write_tokenizer(tmp_path / "tokenizer", config, {}, {})
    output = transfer(tiny.base_folder(tmp_path / "base"), target, tmp_path / "out", method="mean", special=special)
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert tokenizer.convert_tokens_to_ids(["<|a|>", "<|image|>", "<|x|>"]) == [400, 401, 402]
    assert len(tokenizer) <= json.loads((output / "config.json").read_text())["vocab_size"]


def test_a_lone_file_brings_what_its_neighbours_name(tmp_path):
    """What tokenizer.json lacks is written into it: its own neighbours are not copied."""
    from transformers import AutoTokenizer

    config = {"added_tokens_decoder": {"400": token("<|x|>")}, "pad_token": "<|a|>"}
    target = write_tokenizer(tmp_path / "tokenizer", config, {}, {})
    output = transfer(tiny.base_folder(tmp_path / "base"), target / "tokenizer.json", tmp_path / "out", method="mean")
    tokenizer = AutoTokenizer.from_pretrained(output)
    assert tokenizer.convert_tokens_to_ids(["<|x|>", "<|a|>"]) == [400, 401] and len(tokenizer) == 402
    assert json.loads((output / "config.json").read_text())["pad_token_id"] == 401


def test_a_base_model_without_rows_for_them(tmp_path):
    """It is used as it was trained; where it has rows, in the padding of its table, they are its tokens."""
    folder = tiny.base_folder(tmp_path / "base")
    edit_json(folder / "tokenizer_config.json", pad_token="<|a|>")
    (folder / "special_tokens_map.json").unlink()
    base = load_base_model(folder, body=False)
    assert len(base.vocab) == len(base.table.input) == 300 and "<|a|>" not in base.vocab.special
    assert len(load_tokenizer(folder)) == 301
    assert load_tokenizer(folder, rows=302).special["<|a|>"] == 300
