"""Base models in and out: exact round trips, and one clear error for anything that is wrong with a folder."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from zett.errors import UserError
from zett.lms import load_base_model, save_base_model, weights

REPOSITORY = Path(__file__).parents[1]


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
from zett.lms.llama import WEIGHTS

def mesh(**axes):
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(jax.sharding.AxisType.Auto,) * len(axes))

folder = sys.argv[1]
specs = {row.path: row.spec for row in WEIGHTS}
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
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", ON_A_MESH, str(pristine)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "the mesh {'tensor': 3} does not divide these parameters evenly: layers.attention" in done.stdout


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


A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
LIES = {  # header and length of the data; the header's own length where it is another
    "overlapping": ({"a": A, "b": {**A, "data_offsets": [4, 12]}}, 12),
    "negative offset": ({"a": {**A, "data_offsets": [-8, 0]}}, 8),
    "backwards": ({"a": {**A, "data_offsets": [8, 0]}}, 8),
    "negative shape": ({"a": {**A, "shape": [-2]}}, 8),
    "hole": ({"a": {**A, "data_offsets": [4, 12]}}, 12),
    "bytes left over": ({"a": A}, 16),
    "truncated": ({"a": A}, 7),
    "shape and size": ({"a": {**A, "shape": [3]}}, 8),
    "dtype and size": ({"a": {**A, "dtype": "BF16"}}, 8),
    "unknown dtype": ({"a": {**A, "dtype": "F31"}}, 8),
    "huge shape": ({"a": {**A, "shape": [2**33, 2**33]}}, 8),
    "huge offset": ({"a": {**A, "data_offsets": [0, 2**64]}}, 8),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, 8),
    "not a tensor": ({"a": [[[[]]]]}, 0),
    "a header longer than memory": ({}, 0, 2**63),
    "a header longer than the file": ({}, 0, 200_000_000),
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(lie, tmp_path):
    header, length, *claimed = LIES[lie]
    text = json.dumps(header).encode()
    content = (claimed[0] if claimed else len(text)).to_bytes(8, "little") + text + bytes(length)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is not a complete safetensors file"):
        weights.stored_tensors(tmp_path)


def test_a_tensor_in_two_shards(folder):
    shard(folder)
    path = folder / "model-00002-of-00003.safetensors"
    tensors = {**load_file(path), "lm_head.weight": np.zeros((300, 16), np.float32)}
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"hold tensors twice: lm_head\.weight in model-00001-of-00003\S+ and model-00002"):
        load_base_model(folder)


@pytest.mark.parametrize("fails", [None, errno.EXDEV, errno.ENOSYS])
def test_copying_runs_of_tensors(fails, pristine, tmp_path, monkeypatch):
    """Also between file systems that the system does not copy between by itself."""
    if fails and hasattr(os, "copy_file_range"):

        def copy_file_range(*args):
            raise OSError(fails, "no")

        monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    stored = weights.stored_tensors(pristine)
    names = sorted(stored, key=lambda name: stored[name].start)
    changed = names[3]
    tensors = {
        name: weights.read_tensor(stored, name) + 1 if name == changed else stored[name] for name in names if name != names[5]
    }
    weights.write_tensors(tmp_path / "model.safetensors", tensors, {"format": "pt"})
    expected, written = load_file(pristine / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert written.keys() == expected.keys() - {names[5]}
    for name, value in written.items():
        np.testing.assert_array_equal(value, expected[name] + (name == changed))


def test_copying_from_a_file_that_shrinks(pristine, tmp_path):
    stored = weights.stored_tensors(pristine)["model.norm.weight"]
    shrunk = weights.Stored(tmp_path / "shrunk", stored.dtype, stored.shape, 0, stored.nbytes)
    shrunk.file.write_bytes(bytes(stored.nbytes - 1))
    with pytest.raises(UserError, match="shrunk became shorter"):
        weights.write_tensors(tmp_path / "model.safetensors", {"a": shrunk}, {})


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
    with pytest.raises(UserError, match=r"would be lost: chapter\.tex"):
        tiny.base_folder(tmp_path / "thesis")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis"] and (tmp_path / "thesis" / "chapter.tex").exists()
    tiny.base_folder(tmp_path / "model")
    tiny.base_folder(tmp_path / "model")  # a model may be replaced
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "thesis"]
