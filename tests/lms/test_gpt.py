"""GPT-2, GPT-NeoX and StarCoder2 against Transformers: golden files everywhere, fresh ones where PyTorch is installed."""

import json

import jax
import numpy as np
import pytest
from flax import nnx
from lms import parity
from safetensors.numpy import load_file, save_file

from zett.errors import UserError
from zett.lms import load_base_model
from zett.lms.family import family_of
from zett.transfer import transfer

VARIANTS = parity.variants("gpt2", "gpt_neox", "starcoder2")


@pytest.mark.parametrize("variant", parity.by_family(VARIANTS))
def test_parity(variant, tmp_path):
    parity.check_parity(variant, tmp_path)


@pytest.mark.slow
def test_golden_files_are_those_of_this_transformers():
    parity.check_golden_files(VARIANTS)


@pytest.mark.parametrize("variant", ["gpt2-plain", "gpt_neox-parallel", "starcoder2-window"])
def test_bfloat16(variant, tmp_path):
    parity.check_bfloat16(variant, tmp_path)


def test_padding_and_length_of_learned_positions(tmp_path):
    base = load_base_model(parity.base_folder("gpt2-plain", tmp_path))
    parity.check_padding(base)
    with pytest.raises(ValueError, match="texts of 17 tokens, but the model has positions for 16"):
        jax.eval_shape(nnx.merge(base.graphdef, base.params), np.zeros((1, 17, 16), np.float32))


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2}),
        ("gpt2", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_inner": 24, "scale_attn_weights": False}),
        ("gpt_neox", {**parity.SHAPE, "rotary_pct": 0.5, "rotary_emb_base": 100}),
        ("gpt_neox", {**parity.SHAPE, "rope_scaling": {"type": "linear", "factor": 2.0}, "use_parallel_residual": False}),
        ("starcoder2", parity.SHAPE),
        ("starcoder2", {**parity.SHAPE, "sliding_window": 8, "use_bias": False, "num_key_value_heads": 1}),
    ],
)
def test_configs_mean_what_transformers_makes_of_them(kind, fields):
    parity.check_config(kind, fields)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention is true"),
        ("gpt2", {"activation_function": "mish"}, "mish"),
        ("gpt_neox", {"rope_scaling": {"type": "proportional"}}, "rope type 'proportional' is not supported"),
        ("starcoder2", {"hidden_act": "mish"}, "mish"),
    ],
)
def test_settings_that_are_not_computed_are_refused(kind, change, message):
    shape = {"n_embd": 16, "n_layer": 2, "n_head": 2, **parity.SHAPE}
    with pytest.raises(ValueError, match=message):
        family_of({"model_type": kind}).Config.from_hf({**shape, **change})


def test_names_that_files_have(tmp_path):
    """Without head, with the masks of old files, and with both names of GPT-NeoX's head; but not a mixture."""
    plain = load_base_model(parity.base_folder("gpt2-plain", tmp_path / "plain"))
    folder = parity.base_folder("gpt2-plain", tmp_path / "headless")
    tensors = {name.removeprefix("transformer."): value for name, value in load_file(folder / "model.safetensors").items()}
    tensors["h.0.attn.bias"] = np.tril(np.ones((1, 1, 16, 16), np.uint8))
    tensors["h.1.attn.masked_bias"] = np.asarray(-1e4, np.float32)
    save_file(tensors, folder / "model.safetensors")
    headless = load_base_model(folder)
    assert jax.tree.all(jax.tree.map(np.array_equal, plain.params, headless.params))
    tensors["transformer.ln_f.bias"] = tensors.pop("ln_f.bias")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"missing: transformer\.h\.0.*unknown: "):
        load_base_model(folder)

    folder = parity.base_folder("gpt_neox-parallel", tmp_path / "neox")
    tensors = load_file(folder / "model.safetensors")
    tensors["embed_out.weight"] = tensors.pop("lm_head.weight")
    assert load_base_model(folder, body=False).names.output == ("lm_head.weight",)
    save_file(tensors, folder / "model.safetensors")
    assert load_base_model(folder, body=False).names.output == ("embed_out.weight",)


@pytest.mark.parametrize("variant", ["gpt2-plain", "gpt_neox-parallel", "starcoder2-plain"])
def test_transfer_loads_in_transformers(variant, tmp_path):
    pytest.importorskip("torch")
    folder = parity.torch_folder(variant, tmp_path / "base")
    target = parity.save_tokenizer(tmp_path / "target", parity.TOKENS[::-1])
    output = transfer(folder, target, tmp_path / "out", method="fvt")
    assert json.loads((output / "config.json").read_text())["vocab_size"] == 32
    ids = np.random.default_rng(0).integers(0, 32, (2, 12))
    old = parity.torch_output("AutoModelForCausalLM", folder, ids, np.ones_like(ids))
    # The target's tokens are the source's in the opposite order, and keep their rows.
    new = parity.torch_output("AutoModelForCausalLM", output, 31 - ids, np.ones_like(ids))
    np.testing.assert_allclose(new[..., ::-1], old, rtol=1e-4, atol=1e-4)
