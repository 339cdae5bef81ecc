"""Weights of base models in and out: exact round trips, and one clear error for all that does not fit the config."""

import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from lms.folders import edit_json, shard
from runs import ROOT, environment
from safetensors.numpy import load_file, save_file

from zett.errors import UserError
from zett.files.tensors import stored_tensors
from zett.lms import load_base_model, weights
from zett.lms.folder import save_base_model


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
    stored = stored_tensors(tmp_path / "tied")
    assert {t.dtype for t in stored.values()} == {"BF16"} and "lm_head.weight" not in stored


def test_shards_are_the_single_file(pristine, folder):
    shard(folder)
    one, many = load_base_model(pristine), load_base_model(folder)
    assert jax.tree.all(jax.tree.map(np.array_equal, one.params, many.params))
    np.testing.assert_array_equal(one.table.output, many.table.output)
    assert one.fingerprint == many.fingerprint


def test_dtype_of_parameters(pristine):
    whole, half = load_base_model(pristine), load_base_model(pristine, param_dtype="bfloat16")
    assert half.table.input.dtype == np.float32 and half.fingerprint == whole.fingerprint
    for x, y in zip(jax.tree.leaves(whole.params), jax.tree.leaves(half.params)):
        assert y.dtype == (jax.numpy.bfloat16 if y.ndim > 2 else np.float32)  # norms are computed in float32
        np.testing.assert_array_equal(x.astype(y.dtype), y)


def test_parameters_are_whole_where_layers_go_to_the_device_one_by_one(pristine, monkeypatch):
    """As on an accelerator."""
    expected = load_base_model(pristine, param_dtype="bfloat16").params
    monkeypatch.setattr(weights, "HOST_MEMORY", ())
    params = load_base_model(pristine, param_dtype="bfloat16").params
    assert jax.tree.all(jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), params, expected))


ON_A_MESH = """
import sys
import jax, numpy as np
from zett.errors import UserError
from zett.lms import load_base_model, weights
from zett.lms.llama import FAMILY

def mesh(**axes):
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(jax.sharding.AxisType.Auto,) * len(axes))

folder = sys.argv[1]
specs = {row.path: row.spec for row in FAMILY.weights}
expected = weights.flatten(load_base_model(folder).params)
axes = {"data": 1, "fsdp": 4, "tensor": 2}
for memory in (("cpu",), ()):  # the second as on an accelerator, whose memory is not the host's
    weights.HOST_MEMORY = memory
    base = load_base_model(folder, mesh=mesh(**axes))
    for path, value in weights.flatten(base.params).items():
        assert value.dtype == np.float32 and np.array_equal(value, expected[path]), path
        parts = np.prod([axes.get(axis, 1) for axis in specs[path]], dtype=int)
        shards = value.addressable_shards
        assert len(shards) == 8 and len({str(s.index) for s in shards}) == parts, (path, axes)
        assert all(s.data.size * parts == value.size for s in shards)
        assert all(np.array_equal(s.data, expected[path][s.index]) for s in shards)
    assert len(base.table.input.addressable_shards) == 8 and base.table.input.is_fully_replicated
try:
    load_base_model(folder, mesh=mesh(tensor=3))
except UserError as error:
    print(error)
"""


def test_loading_onto_a_mesh(pristine):
    command = [sys.executable, "-c", ON_A_MESH, str(pristine)]
    done = subprocess.run(command, cwd=ROOT, env=environment(8), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "the mesh {'tensor': 3} does not divide these parameters evenly: layers.attention" in done.stdout


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
