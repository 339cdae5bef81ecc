"""Folders that are no models: each is refused by name, at once, by every method and before anything is written."""

import ast
import json
import shlex
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import tiny
from lms.folders import edit_json
from safetensors.numpy import load_file, save_file

from zett.errors import UserError
from zett.lms import load_base_model
from zett.lms.checks import check_config, quantised
from zett.lms.family import FAMILIES, Unported
from zett.lms.known import hf_config_of
from zett.plan.shapes import base_of
from zett.transfer import transfer


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return tiny.tokenizer_folder(tmp_path_factory.mktemp("target") / "tokenizer", size=400)


def edit_weights(folder, change):
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}
BAD_CONFIGS = [
    ({"model_type": ...}, "config.json has no model_type, or None; it has to name the architecture, such as 'llama'"),
    ({"model_type": ["llama"]}, r"has no model_type, or \['llama'\]"),
    ({"num_hidden_layers": -3}, "num_hidden_layers is -3; it has to be a whole number, at least 1 and at most 1,024"),
    ({"num_hidden_layers": "four"}, "num_hidden_layers is 'four'; it has to be a whole number"),
    ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; it has to be a whole number"),
    ({"num_hidden_layers": 2.5}, r"num_hidden_layers is 2\.5; it has to be a whole number"),
    ({"num_hidden_layers": None}, "num_hidden_layers is None; it has to be a whole number"),
    ({"num_hidden_layers": True}, "num_hidden_layers is True; it has to be a whole number"),
    ({"hidden_size": 0}, "hidden_size is 0; it has to be a whole number"),
    ({"num_attention_heads": 0}, "num_attention_heads is 0; it has to be a whole number"),
    ({"num_key_value_heads": 3}, "num_attention_heads, 4, is not a multiple of num_key_value_heads, 3"),
    ({"head_dim": 3}, "heads are 3 wide; rotary positions take pairs"),
    ({"vocab_size": 10**12}, "vocab_size is 1000000000000; it has to be a whole number"),
    ({"rms_norm_eps": -1e-6}, "rms_norm_eps is -1e-06; it has to be at least 0 and less than 1"),
    ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan; it has to be at least 0 and less than 1"),
    ({"rope_theta": -10000.0}, r"rope_theta is -10000\.0; it has to be greater than 0"),
    ({"rope_theta": "large"}, "rope_theta is 'large'; it has to be greater than 0"),
    ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'; it has to be true or false"),
    ({"hidden_act": "sillu"}, "hidden_act is 'sillu', which does not exist; there are .*silu"),
    ({"hidden_act": 3}, "hidden_act is 3, which does not exist"),
    ({"rope_parameters": {"rope_type": "yarrn"}}, "the rope type in rope_parameters is 'yarrn', which does not exist; .*yarn"),
    ({"rope_scaling": {"type": "nonsense"}}, "the rope type in rope_scaling is 'nonsense', which does not exist"),
    ({"rope_scaling": "linear"}, "rope_scaling is 'linear'; it has to be an object with a rope_type"),
    ({"rope_scaling": {"type": "linear", "factor": "two"}}, r"rope_scaling\.factor is 'two'; it has to be a number"),
    ({"rope_scaling": {"type": "linear", "factor": -2.0}}, r"rope_scaling\.factor is -2\.0; .* a number, greater than 0"),
    ({"rope_scaling": LLAMA3}, r"low_freq_factor \(4\.0\) has to be below high_freq_factor \(1\.0\)"),
    ({"quantization_config": {"quant_method": "squash"}}, "quant_method in .* is 'squash', which is not known; .*gptq"),
    ({"quantization_config": {}}, "quant_method in quantization_config is None, which is not known"),
    ({"quantization_config": "gptq"}, "quantization_config is 'gptq'; it has to be an object"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), BAD_CONFIGS, ids=lambda x: str(x)[:60])
def test_bad_configs_are_refused_by_every_path(folder, target, tmp_path, changes, message):
    """Loading with and without the body, a transfer without training, and the dry run, which reads config.json alone."""
    edit_json(folder / "config.json", **changes)
    clock = time.process_time()
    for attempt in (
        lambda: load_base_model(folder),
        lambda: load_base_model(folder, body=False),
        lambda: transfer(folder, target, tmp_path / "out", method="fvt"),
        lambda: base_of("model", hf_config_of(str(folder))),
    ):
        with pytest.raises(UserError, match=message) as error:
            attempt()
        assert not isinstance(error.value, Unported) and "\n" not in str(error.value)
    assert time.process_time() - clock < 10  # no measure of speed: a billion layers took for ever
    assert not (tmp_path / "out").exists()


def test_architectures_that_are_not_ported_are_checked_too(folder, target, tmp_path):
    edit_json(folder / "config.json", model_type="falcon", num_hidden_layers=-3)
    with pytest.raises(UserError, match="num_hidden_layers is -3"):
        transfer(folder, target, tmp_path / "out", method="mean")
    # Some have a number for each layer, or functions of their own.
    own = {"num_hidden_layers": 2, "intermediate_size": [24, 32], "hidden_act": "ours", "auto_map": {"AutoModel": "x.Model"}}
    edit_json(folder / "config.json", **own)
    assert load_base_model(folder, body=False).params is None


OTHERS = (
    "albert apertus arcee bloom camembert cohere2 deepseek_v3 electra falcon gemma3 gemma3n glm4 gpt_oss gptj granite lfm2 "
    "llama4 mamba mixtral mpt nemotron opt phi qwen2_vl qwen3_next stablelm t5 xlnet zamba2"
).split()


@pytest.mark.parametrize("kind", [*FAMILIES, *OTHERS])
def test_what_transformers_writes_is_fine(kind):
    """Default configs; of all of them once, when the limits were chosen."""
    from transformers import CONFIG_MAPPING

    if kind not in CONFIG_MAPPING:
        pytest.skip(f"this version of Transformers has no {kind}")
    config = json.loads(CONFIG_MAPPING[kind]().to_json_string(use_diff=False))
    check_config(config, Path("config.json"), ported=kind in FAMILIES)
    assert quantised(config, Path("config.json")) is None


def test_more_layers_than_the_weights_have(folder):
    edit_json(folder / "config.json", num_hidden_layers=900)
    with pytest.raises(UserError, match=r"config\.json says 900 layers, but the weights beside it have 2"):
        load_base_model(folder, body=False)


# ------------------------------------------------------------------------------------------------------- quantised


def coded(tensors: dict, modules: str, make) -> dict:
    """The tensors with the matrices whose names hold `modules` as `make` codes them."""
    kept = {name: x for name, x in tensors.items() if not (modules in name and x.ndim == 2)}
    for name, x in tensors.items():
        if name not in kept:
            kept |= {f"{name.removesuffix('.weight')}.{suffix}": value for suffix, value in make(x).items()}
    return kept


def gptq(x):
    out, width = x.shape
    parts = {"qweight": (width // 8, out), "qzeros": (1, max(out // 8, 1)), "g_idx": (width,)}
    return {k: np.zeros(shape, np.int32) for k, shape in parts.items()} | {"scales": np.ones((1, out), np.float16)}


def awq(x):
    out, width = x.shape
    return {"qweight": np.zeros((width, out // 8), np.int32), "scales": np.ones((1, out), np.float16)}


def bitsandbytes(x):
    return {"weight": np.zeros((x.size // 2, 1), np.uint8), "weight.absmax": np.ones(x.size // 64 + 1, np.float32)}


def fp8(x):
    return {"weight": x.astype(ml_dtypes.float8_e4m3fn), "weight_scale": np.ones((1,), np.float32)}


QUANTISED = {
    "GPTQ": ({"quant_method": "gptq", "bits": 4}, gptq),
    "AWQ": ({"quant_method": "awq", "bits": 4}, awq),
    "bitsandbytes": ({"load_in_4bit": True}, bitsandbytes),
    "compressed-tensors": ({"quant_method": "compressed-tensors", "format": "float-quantized"}, fp8),
    "FP8": ({"quant_method": "fp8"}, fp8),
}


@pytest.mark.parametrize("method", QUANTISED)
def test_of_quantised_models_the_rows_alone_are_exchanged(method, folder, target, tmp_path):
    settings, make = QUANTISED[method]
    edit_weights(folder, lambda tensors: coded(tensors, "layers.", make))
    edit_json(folder / "config.json", quantization_config=settings)
    with pytest.raises(Unported, match=f"the weights are quantised with {method}, which is not computed here"):
        load_base_model(folder)
    output = transfer(folder, target, tmp_path / "out", method="fvt")
    before, after = raw(folder), raw(output)
    rows = {"model.embed_tokens.weight", "lm_head.weight"}
    assert before.keys() == after.keys() and {name for name in before if before[name] != after[name]} == rows
    assert json.loads((output / "config.json").read_text())["quantization_config"] == settings


def raw(folder) -> dict:
    """Types and bytes, as NumPy has no names for some."""
    data = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    return {k: (t["dtype"], t["shape"], data[8 + size :][slice(*t["data_offsets"])]) for k, t in header.items()}


@pytest.mark.parametrize("method", QUANTISED)
@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
def test_quantised_rows_are_refused(method, module, folder, target, tmp_path):
    """Copied as they are, they would be another vocabulary's."""
    settings, make = QUANTISED[method]
    edit_weights(folder, lambda tensors: coded(tensors, module, make))
    edit_json(folder / "config.json", quantization_config=settings)
    with pytest.raises(UserError, match=rf"quantised with {method}, and so are the rows of its vocabulary: \S*{module}"):
        transfer(folder, target, tmp_path / "out", method="fvt")
    assert not (tmp_path / "out").exists()


def test_a_quantised_model_without_its_output_rows(folder):
    edit_weights(folder, lambda tensors: {k: v for k, v in coded(tensors, "layers.", gptq).items() if k != "lm_head.weight"})
    edit_json(folder / "config.json", quantization_config=QUANTISED["GPTQ"][0])
    with pytest.raises(UserError, match="quantised with GPTQ, and its output rows are not found"):
        load_base_model(folder, body=False)


@pytest.mark.parametrize(("name", "method"), [("quantize_config.json", "GPTQ"), ("quant_config.json", "AWQ")])
def test_quantised_by_an_older_program(folder, name, method):
    edit_weights(folder, lambda tensors: coded(tensors, "layers.", gptq))
    (folder / name).write_text("{}")
    with pytest.raises(UserError, match=f"is quantised with {method}, as {name} says, but its config.json has no quantiz"):
        load_base_model(folder, body=False)


# -------------------------------------------------------------------------------------------------------- adapters


def adapter(folder, **settings):
    folder.mkdir()
    edit_json(folder / "adapter_config.json", **{"peft_type": "LORA", "base_model_name_or_path": "some/base", **settings})
    save_file({"base_model.model.x.lora_A.weight": np.zeros((2, 2), np.float32)}, folder / "adapter_model.safetensors")
    return folder


def test_adapters_say_how_to_merge_them(target, tmp_path):
    # Quotes and spaces in names are the shell's and Python's to misread.
    folder = adapter(tmp_path / "my 'lora' \"1\"")
    with pytest.raises(UserError) as error:
        transfer(folder, target, tmp_path / "out", method="fvt")
    message = str(error.value)
    assert "holds an adapter (LORA, of some/base), not a whole model; merge it first, with this command" in message
    python, option, program = shlex.split(message[message.index("python -c ") :])
    calls = [node for node in ast.walk(ast.parse(program)) if isinstance(node, ast.Call)]
    given = [ast.literal_eval(call.args[0]) for call in calls if call.args]
    assert (python, option) == ("python", "-c")
    assert sorted(given) == sorted([str(folder), f"{folder}-merged", "some/base", f"{folder}-merged"])
    (folder / "tokenizer_config.json").write_text("{}")  # the adapter has a tokenizer of its own
    with pytest.raises(UserError) as error:
        load_base_model(folder)
    assert "some/base" not in shlex.split(str(error.value).split("this command")[1])[-1]


def test_an_adapter_beside_a_model_is_refused(folder):
    """Transformers would put it on top, and the rows of the base would be another's."""
    edit_json(folder / "adapter_config.json", peft_type="LORA", base_model_name_or_path="some/base")
    with pytest.raises(UserError, match="holds an adapter"):
        load_base_model(folder, body=False)


def test_adapters_that_cannot_be_merged(tmp_path):
    with pytest.raises(UserError, match=r"holds an adapter \(PREFIX_TUNING, of some/base\) that cannot be merged"):
        load_base_model(adapter(tmp_path / "prefix", peft_type="PREFIX_TUNING"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "adapter_config.json").write_text("[")
    with pytest.raises(UserError, match=r"holds an adapter, not a model, and its adapter_config\.json cannot be read"):
        load_base_model(tmp_path / "broken")


def test_an_adapter_on_the_hub(tmp_path, monkeypatch):
    import huggingface_hub

    folder = adapter(tmp_path / "downloaded")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(UserError, match=r"holds an adapter \(LORA, of some/base\), not a whole model; merge it first"):
        load_base_model("someone/lora")
