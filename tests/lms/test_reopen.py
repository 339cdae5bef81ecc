"""What a transfer has written is opened before it is put in its place; what would not work is taken away, with the reason."""

import json
import shutil

import numpy as np
import pytest
import tiny
from lms.folders import edit_json
from safetensors.numpy import load_file, save_file

from zett.errors import UserError
from zett.export import export
from zett.hypernet.release import find_hypernet, save_hypernet
from zett.lms import load_base_model
from zett.lms.reopen import check_written
from zett.methods.mean import Mean
from zett.transfer import transfer
from zett.vocab import load_tokenizer


class Never(Mean):
    """Makes no rows."""

    def __call__(self, base, target, *, seed=0):
        pytest.fail("rows were made")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"tokenizer_class": "RobertaTokenizerFast"},
            r"RobertaTokenizer adds tokens .* name: '<unk>' \(400\), .* others; put them",
        ),
        (
            {"added_tokens_decoder": {"1": "<|a|>"}},
            "Transformers cannot load the tokenizer from its files: Found a <class 'str'>",
        ),
        ({"additional_special_tokens": 7}, "Transformers cannot load the tokenizer from its files"),
    ],
)
def test_tokenizers_that_transformers_reads_otherwise(settings, message, tmp_path, base_folder):
    """Known before the rows are made, which takes long in a large model."""
    folder = tiny.tokenizer_folder(tmp_path / "tokenizer", size=400)
    edit_json(folder / "tokenizer_config.json", **settings)
    with pytest.raises(UserError, match=message):
        transfer(base_folder, folder, tmp_path / "out", method=Never())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer"]


def edit(file):
    return lambda **settings: lambda folder: edit_json(folder / file, **settings)


config, generation, named = map(edit, ("config.json", "generation_config.json", "tokenizer_config.json"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (config(eos_token_id=400), "eos_token_id in config.json is 400; its tokenizer has the ids 0 to 399"),
        (generation(pad_token_id=9), "pad_token_id in generation_config.json is 9, but for Transformers the tokenizer's is 1"),
        (generation(eos_token_id=[7, 8]), r"is \[7, 8\], but for Transformers the tokenizer's is 0"),
        (config(vision={"image_token_id": 4000}), "image_token_id in config.json is 4000"),
        (config(vocab_size=401), "embed_tokens"),
        (named(extra_special_tokens=["<|new|>"]), "tokenizer has 401 ids|the folder opens with 401 ids|'<.new.>' .400."),
        (lambda f: fill(f, np.nan), "for the ids 0, 133, 266, 399 it computes what is not finite"),
        (lambda f: fill(f, 0.5, rows=399), "399 rows|399, 16"),
    ],
)  # fmt: skip
def test_what_would_not_work(damage, message, tmp_path, base_folder, target_folder):
    output = transfer(base_folder, target_folder, tmp_path / "out", method="fvt")
    base, target = load_base_model(base_folder, body=False), load_tokenizer(target_folder)
    check_written(output, base.names, target, ported=True)
    damage(output)
    with pytest.raises(UserError, match=f"the result would not work, so nothing was written: .*({message})"):
        check_written(output, base.names, target, ported=True)


def fill(folder, value, rows=400):
    tensors = load_file(folder / "model.safetensors")
    table = np.full((rows, 16), value, tensors["lm_head.weight"].dtype)
    save_file({**tensors, "lm_head.weight": table}, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_failure_removes_the_output(tmp_path, target_folder):
    """NaN in the base model's last norm, which a transfer copies."""
    base = tiny.base_folder(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="what is not finite"):
        transfer(base, target_folder, tmp_path / "out", method="fvt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base"]


def test_architectures_that_are_not_computed_here(tmp_path, target_folder):
    model = tiny.tokenizer_folder(tmp_path / "model")
    save_file({"wte.weight": np.ones((300, 4), np.float32)}, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps({"model_type": "strange", "vocab_size": 300, "pad_token_id": 1}))
    output = transfer(model, target_folder, tmp_path / "out", method="mean")
    names, target = load_base_model(model, body=False).names, load_tokenizer(target_folder)
    check_written(output, names, target, ported=False)
    save_file({"wte.weight": np.ones((399, 4), np.float32)}, output / "model.safetensors")
    with pytest.raises(UserError, match=r"wte.weight has 399 rows for a tokenizer of 400 ids"):
        check_written(output, names, target, ported=False)


def test_an_export_is_opened_again(tmp_path, monkeypatch):
    """A source tokenizer that is none: the hypernetwork would be of no use."""
    folder = shutil.copytree(find_hypernet("pico"), tmp_path / "hypernet")
    (folder / "source_tokenizer" / "special_tokens_map.json").write_text("{")
    export("pico", tmp_path / "fine")
    with pytest.raises(UserError, match=r"special_tokens_map.json is not JSON"):
        export(folder, tmp_path / "out")

    def spoiled(new, *rest):
        save_hypernet(new, *rest)
        edit_json(new / "config.json", hidden_size=7)

    monkeypatch.setattr("zett.export.save_hypernet", spoiled)
    with pytest.raises(UserError, match=r"the result could not be used, so nothing was written: .* does not fit its config"):
        export("pico", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fine", "hypernet"]
