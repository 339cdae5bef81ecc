"""GGUF files: the models that they hold, equal to what they were made of and to Transformers' reading; wrong ones refused."""

import itertools
import json
import math
from pathlib import Path

import gguf_files
import numpy as np
import pytest
import tiny
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import load_file

from zett import gguf
from zett.errors import UserError
from zett.files.cache import cache_folder
from zett.files.tensors import FLOATS, read_tensor, stored_tensors
from zett.lms import load_base_model
from zett.lms.base import body_shapes
from zett.lms.family import family_of
from zett.lms.known import hf_config_of
from zett.lms.weights import _names
from zett.vocab import load_tokenizer

VOCAB = tiny.tokenizer().get_vocab_size()
LLAMA = {**gguf_files.SHAPE, "model_type": "llama", "vocab_size": VOCAB, "tie_word_embeddings": False}
QWEN = {**LLAMA, "tie_word_embeddings": True}
# Numbers that Transformers' reading takes for granted: Qwen 3's width of heads, Gemma 3's scale of attention.
QWEN3 = {**QWEN, "model_type": "qwen3", "head_dim": 128}
GEMMA = {
    **QWEN, "model_type": "gemma3_text", "num_hidden_layers": 7, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 256, "sliding_window": 5, "rope_theta": 1e6, "query_pre_attn_scalar": 256,
}  # fmt: skip
SCALED = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALED["original_max_position_embeddings"] = 8192
MODELS = {
    "llama": (LLAMA, {}),
    "llama-heads": ({**LLAMA, "head_dim": 12, "num_attention_heads": 2}, {"rope.dimension_count": 12}),
    "llama-biases": ({**LLAMA, "attention_bias": True, "mlp_bias": True}, {}),
    "llama-rope3": ({**LLAMA, "head_dim": 16, "rope_parameters": {**SCALED, "rope_theta": 10000.0}}, {}),
    "llama-linear": (
        {**LLAMA, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
        {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    ),
    "qwen2": ({**QWEN, "model_type": "qwen2"}, {}),
    "qwen2-yarn": (
        {
            **QWEN, "model_type": "qwen2",
            "rope_parameters": {
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0,
            },
        },
        {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 16},
    ),
    "qwen3": (QWEN3, {}),
    "gemma3": (GEMMA, {}),
    "gemma3-narrow": (
        {
            **GEMMA, "head_dim": 16, "query_pre_attn_scalar": 16, "num_hidden_layers": 6,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
        {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
    ),
    "gemma3-pattern": (
        {**GEMMA, "num_hidden_layers": 3, "sliding_window_pattern": 2},
        {"attention.sliding_window_pattern": [True, False, True]},
    ),
    "gemma3-27b": ({**GEMMA, "head_dim": 8, "query_pre_attn_scalar": 16, "num_hidden_layers": 62}, {}),
}  # fmt: skip


def weights_of(config: dict, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights of a model, in torch's layout and numbers that bfloat16 has."""
    family = family_of(config)
    ours = family.Config.from_hf(config)
    shapes = body_shapes(family, ours)
    rng = np.random.default_rng(seed)

    def draw(shape, scale=0.2):
        values = np.round(rng.standard_normal(shape) * scale * 1024) / 1024  # nothing so small that 1 + x would lose it
        return values.astype(FLOATS["BF16"]).astype(np.float32)

    found = {family.input_rows: draw((config["vocab_size"], config["hidden_size"]), 1.0)}
    if not config["tie_word_embeddings"]:
        found[family.output_rows] = draw(found[family.input_rows].shape)
    for row in family.rows(ours):
        for name, _ in _names(row, shapes[row.path]):
            shape = shapes[row.path][1 if "{i}" in row.key else 0 :]
            found[name] = draw(shape[::-1] if row.transform else shape)
    return found


def rope_freqs(config: dict) -> dict[str, np.ndarray]:
    """The tensor that llama.cpp's converter writes for Llama 3's scaling."""
    parameters = config.get("rope_parameters", {})
    if parameters.get("rope_type") != "llama3":
        return {}
    divisors = []
    for i in range(0, config["head_dim"], 2):
        wavelength = 2 * math.pi * config["rope_theta"] ** (i / config["head_dim"])
        if wavelength < 8192 / 4:
            divisors.append(1.0)
        elif wavelength > 8192 / 1:
            divisors.append(8.0)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            divisors.append(1 / ((1 - smooth) / 8.0 + smooth))
    assert len({1.0, 8.0, *divisors}) > 2 and {1.0, 8.0} <= set(divisors)
    return {"rope_freqs.weight": np.asarray(divisors, np.float32)}


def write_model(folder: Path, name: str, **options) -> Path:
    config, settings = MODELS[name]
    options = {"settings": settings, "extra": rope_freqs(config)} | options
    return gguf_files.write(folder / f"{name}.gguf", config, weights_of(config), **options)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("plain"), "llama")


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_what_the_file_was_made_of(name, tmp_path):
    config = MODELS[name][0]
    folder = gguf.convert(write_model(tmp_path, name))
    found, weights = load_file(folder / "model.safetensors"), weights_of(config)
    assert found.keys() == weights.keys()
    for key, value in found.items():
        assert value.dtype == FLOATS["BF16"]
        np.testing.assert_array_equal(value.astype(np.float32), weights[key], err_msg=key)
    written = json.loads((folder / "config.json").read_text())
    assert written["tie_word_embeddings"] == config["tie_word_embeddings"]
    family = family_of(config)
    assert family_of(written) is family and family.Config.from_hf(written) == family.Config.from_hf(config)
    if name not in ("gemma3", "gemma3-27b"):  # large ones, read below
        base = load_base_model(tmp_path / f"{name}.gguf")
        assert len(base.vocab) == VOCAB and base.hf_config["model_type"] == config["model_type"]


@pytest.mark.parametrize("name, kind", [("llama", Type.Q8_0), ("qwen2", Type.Q4_0), ("qwen3", Type.Q4_1), ("gemma3", Type.F16)])
def test_logits_are_those_of_transformers(name, kind, tmp_path):
    ids = np.random.default_rng(0).integers(0, VOCAB, (2, 12))
    gguf_files.check_logits(write_model(tmp_path, name, kind=kind), ids)


@pytest.mark.parametrize("kind", [Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q4_K, Type.Q5_K, Type.Q6_K])
def test_every_type_is_what_transformers_reads(kind, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers.integrations.gguf.dequant import dequantize

    config = {**LLAMA, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}
    plain = kind in (Type.F16, Type.BF16)
    file = gguf_files.write(tmp_path / "m.gguf", config, weights_of(config), kind=kind, raw=not plain)
    stored = stored_tensors(gguf.convert(file))
    if plain:
        expected = torch.tensor(weights_of(config)["model.layers.0.mlp.up_proj.weight"])
    else:
        names = list(gguf_files.named(config, weights_of(config)))
        blocks = gguf_files.random_blocks(kind, (256, 256), names.index("blk.0.ffn_up.weight"))
        expected = dequantize(torch.tensor(blocks.reshape(256, -1)), int(kind)).reshape(256, 256)
    found = read_tensor(stored, "model.layers.0.mlp.up_proj.weight").astype(np.float32)
    assert found.std() > 1e-3
    np.testing.assert_array_equal(found, expected.to(torch.bfloat16).float().numpy())


@pytest.mark.parametrize("alignment", [32, 64, 4096])
def test_alignments(alignment, tmp_path):
    folder = gguf.convert(write_model(tmp_path, "llama", alignment=alignment))
    found = load_file(folder / "model.safetensors")["model.norm.weight"]
    np.testing.assert_array_equal(found.astype(np.float32), weights_of(LLAMA)["model.norm.weight"])


def test_version_2(plain, tmp_path):
    content = plain.read_bytes()
    (tmp_path / "two.gguf").write_bytes(content[:4] + b"\2\0\0\0" + content[8:])
    assert (gguf.convert(tmp_path / "two.gguf") / "config.json").is_file()


# ----------------------------------------------------------------------------------------------------- where files are taken


def test_a_file_is_converted_once(plain, tmp_path):
    folder = gguf.convert(plain)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    (tmp_path / "copy").mkdir()
    again = tmp_path / "copy" / plain.name
    again.write_bytes(plain.read_bytes())
    assert gguf.convert(again) == folder == gguf.convert(plain)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    content = bytearray(plain.read_bytes())
    content[-1] ^= 1  # a lowest bit of a weight, nothing that a size or a sample tells
    again.write_bytes(content)
    assert gguf.convert(again) != folder


def test_files_and_folders_are_taken_for_models_and_tokenizers(plain, tmp_path):
    assert load_base_model(plain, body=False).folder == load_base_model(plain.parent, body=False).folder
    assert hf_config_of(str(plain))["hidden_size"] == LLAMA["hidden_size"]
    by_file, by_folder = load_tokenizer(plain), load_tokenizer(plain.parent)
    assert by_file.tokens == by_folder.tokens == load_tokenizer(tiny.tokenizer_folder(tmp_path / "t")).tokens
    assert by_file.roles["eos"] == 0 and by_file.roles["pad"] == 1


def test_a_folder_with_several_files(plain, tmp_path):
    (tmp_path / "a.gguf").write_bytes(plain.read_bytes())
    (tmp_path / "mmproj-a.gguf").write_bytes(b"GGUF")
    assert gguf.find_gguf(tmp_path) == tmp_path / "a.gguf"
    (tmp_path / "b.gguf").write_bytes(plain.read_bytes())
    with pytest.raises(UserError, match=r"several GGUF files \(a\.gguf, b\.gguf\)"):
        load_base_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert gguf.find_gguf(tmp_path) is None


def test_a_transfer_between_files(plain, tmp_path, capsys):
    from zett.transfer import transfer

    target = gguf_files.write(tmp_path / "t.gguf", MODELS["qwen2"][0], weights_of(MODELS["qwen2"][0]),
                              tokenizer=gguf_files.byte_level("gpt-2", tiny.tokenizer("bpe", 350)))  # fmt: skip
    output = transfer(plain, target, tmp_path / "out", method="fvt")
    assert json.loads((output / "config.json").read_text())["vocab_size"] == tiny.tokenizer("bpe", 350).get_vocab_size()
    assert len(load_base_model(output, body=False).vocab) == tiny.tokenizer("bpe", 350).get_vocab_size()


def test_no_file_is_converted_for_a_hypernetwork_of_another_model(tmp_path):
    from zett.transfer import transfer

    config = {**LLAMA, "hidden_size": 64}
    file = gguf_files.write(tmp_path / "wide.gguf", config, weights_of(config))
    before = cached()
    for settings in ({"method": "hypernet"}, {"hypernet": "pico"}):
        with pytest.raises(UserError, match="it has rows of width 64, not 256"):
            transfer(file, "pico", tmp_path / "out", **settings)
    assert cached() == before


def test_a_file_of_a_tokenizer_alone(tmp_path):
    """As llama.cpp has them for its tests: no tensors, any architecture."""
    import gguf as library

    writer = library.GGUFWriter(tmp_path / "vocab.gguf", "starcoder")
    for name, value in gguf_files.byte_level("starcoder").items():
        gguf_files.add(writer, name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert len(load_tokenizer(tmp_path / "vocab.gguf")) == VOCAB
    with pytest.raises(UserError, match="the architecture is 'starcoder'; read are llama, qwen2, qwen3, gemma3"):
        load_base_model(tmp_path / "vocab.gguf")


# ------------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"expert_count": 8}, "settings that are not known here.*llama.expert_count"),
        ({"attention.key_length": 8, "attention.value_length": 4}, "attention.value_length is 4, but heads are 8 wide"),
        ({"rope.dimension_count": 4, "attention.key_length": 8}, "rope.dimension_count is 4, but heads are 8 wide"),
        ({"rope.scaling.type": "longrope", "rope.scaling.factor": 2.0}, "rope.scaling.type is 'longrope'"),
        ({"attention.causal": False}, "llama.attention.causal is false"),
        ({"block_count": None}, "no setting llama.block_count"),
        ({"block_count": 3}, r"missing: blk\.2\."),
        ({"block_count": 1}, r"unknown: blk\.1\."),
        ({"block_count": 2**31}, "num_hidden_layers is 2147483648"),
        ({"embedding_length": 64}, "misshapen"),
        ({"embedding_length": "wide"}, "llama.embedding_length is 'wide'; it has to be a whole number"),
        ({"attention.head_count": 0}, "attention.head_count is 0"),
        ({"attention.head_count_kv": 3}, "is not a multiple of num_key_value_heads, 3"),
        ({"attention.head_count": [4, 2]}, "attention.head_count differs from layer to layer"),
        ({"attention.layer_norm_rms_epsilon": math.nan}, "rms_norm_eps is nan"),
    ],
)
def test_settings_that_are_wrong(settings, message, tmp_path):
    refused(write_model(tmp_path, "llama", settings=settings), message)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"ggml.pre": "gigachat"}, "cuts words is 'gigachat'; read are gpt-2, smollm"),
        ({"ggml.pre": None}, "cuts words is not stated"),
        ({"ggml.model": "rwkv"}, "the tokenizer is 'rwkv'; read are 'gpt2'"),
        ({"ggml.tokens": None}, "no setting tokenizer.ggml.tokens"),
        ({"ggml.eos_token_id": 10**6}, "eos_token_id is 1000000, but there are"),
        ({"ggml.token_type": [1, 2]}, "2 tokenizer.ggml.token_type for"),
        ({"ggml.merges": ["Ġ zzz"]}, "the merge 'Ġ zzz' is not one of two tokens into a third"),
    ],
)
def test_tokenizers_that_are_wrong(change, message, tmp_path):
    tokenizer = gguf_files.byte_level("smollm") | {f"tokenizer.{name}": value for name, value in change.items()}
    refused(write_model(tmp_path, "llama", tokenizer=tokenizer), message)


def test_tensors_that_are_wrong(tmp_path):
    config = {**LLAMA, "hidden_size": 256}
    weights = weights_of(config)
    refused(
        gguf_files.write(tmp_path / "f64.gguf", LLAMA, weights_of(LLAMA), extra={"x": np.ones(3)}), "type F64; read are F32"
    )
    refused(write_model(tmp_path, "llama", extra={"x.weight": np.ones(3, np.float32)}), "unknown: x.weight")
    odd = {"rope_freqs.weight": np.asarray([1, 2, 3, 4], np.float32)}
    refused(write_model(tmp_path, "llama", extra=odd), "rope_freqs.weight is not that of Llama 3")
    weights["model.norm.weight"][3] = np.nan
    refused(gguf_files.write(tmp_path / "nan.gguf", config, weights), "output_norm.weight holds values that are not finite")


def refused(file: Path, message: str) -> None:
    """One line, and nothing left in the cache."""
    before = cached()
    with pytest.raises(UserError, match=message) as caught:
        load_base_model(file)
    assert "\n" not in str(caught.value) and str(file) in str(caught.value)
    assert cached() == before


def cached() -> set[str]:
    folder = cache_folder() / "gguf"
    return {p.name for p in folder.iterdir() if p.is_dir()} if folder.is_dir() else set()


def test_a_command_line_says_it_in_one_line(tmp_path, capsys):
    from zett.cli import main

    (tmp_path / "half.gguf").write_bytes(write_model(tmp_path, "llama").read_bytes()[:3000])
    for model, tokenizer in itertools.permutations([str(tmp_path / "half.gguf"), "pico"]):
        with pytest.raises(SystemExit) as exit:
            main(["transfer", "--model", model, "--tokenizer", tokenizer, "--output", str(tmp_path / "out"), "--method", "fvt"])
        assert exit.value.code == 2
        *_, error = capsys.readouterr().err.splitlines()  # after the phases
        assert error.startswith("zett: error: ") and "half.gguf is not a GGUF file that can be read: it ends in" in error
    assert not (tmp_path / "out").exists()
