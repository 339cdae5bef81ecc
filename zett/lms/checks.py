"""What a config.json may say, whatever is done with the model: numbers within their ranges, and names of settings that exist.

A model that Transformers could not load is refused here, before it is computed or copied. Settings that exist, but that the
ports do not compute, are refused elsewhere (`family.read_family`), since such a model can still be copied
(`zett/lms/unported.py`).
"""

import json
import shlex
from pathlib import Path

from zett.errors import UserError
from zett.lms.config import BodyConfig
from zett.values import Within

LAYERS, HEADS, WIDTHS, POSITIONS = Within(1, 1024), Within(1, 2**14), Within(1, 2**20), Within(1, 2**30)
# Whole numbers, by the names that architectures give them.
SIZES: dict[str, Within] = {
    "vocab_size": Within(1, 2**24),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), LAYERS),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "num_heads"), HEADS),
    **dict.fromkeys(("hidden_size", "intermediate_size", "n_embd", "n_inner", "d_model", "d_ff"), WIDTHS),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "original_max_position_embeddings"), POSITIONS),
    **dict.fromkeys(("type_vocab_size", "head_dim"), Within(0, 2**20)),  # 0: none, or that of the width
    "sliding_window": Within(0, 2**30),
}
# Fields that a port cannot do without.
NEEDED = {
    "vocab_size", "num_hidden_layers", "n_layer", "num_attention_heads", "n_head", "hidden_size", "n_embd", "intermediate_size",
    "max_position_embeddings", "n_positions",
}  # fmt: skip
EPSILON, BASE, PART = Within(0, 1, below=True), Within(0, 10**15, above=True), Within(0, 1)
NUMBERS: dict[str, Within] = {
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon"), EPSILON),
    **dict.fromkeys(("rope_theta", "rotary_emb_base", "rope_local_base_freq", "global_rope_theta", "local_rope_theta"), BASE),
    **dict.fromkeys(("partial_rotary_factor", "rotary_pct"), PART),
    **dict.fromkeys(("query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"), BASE),
}
FLAGS = ("tie_word_embeddings", "attention_bias", "mlp_bias", "use_bias", "use_parallel_residual")
# The names that Transformers knows; the ports compute some of them (`rope.ROPE_TYPES`, `layers.ACTIVATIONS`).
ACTIVATIONS = (
    "gelu gelu_10 gelu_accurate gelu_fast gelu_new gelu_python gelu_python_tanh gelu_pytorch_tanh hardswish laplace leaky_relu "
    "linear mish prelu quick_gelu relu relu2 relu6 sigmoid silu sqrtsoftplus swish tanh xielu"
).split()
ROPES = "axial default dynamic linear llama3 longrope mrope proportional su yarn".split()
ROPE_NUMBERS = {
    "factor", "low_freq_factor", "high_freq_factor", "attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim",
    "original_max_position_embeddings", "rope_theta", "partial_rotary_factor", "short_factor", "long_factor",
}  # fmt: skip
FINITE = Within(-(10**15), 10**15)
QUANTISED = {
    "aqlm": "AQLM", "auto-round": "AutoRound", "awq": "AWQ", "bitnet": "BitNet", "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors", "eetq": "EETQ", "fbgemm_fp8": "FBGEMM FP8", "fouroversix": "FourOverSix",
    "fp8": "FP8", "fp_quant": "FP-Quant", "gptq": "GPTQ", "higgs": "HIGGS", "hqq": "HQQ", "metal": "Metal",
    "modelopt": "ModelOpt", "mxfp4": "MXFP4", "mxfp8": "MXFP8", "nvfp4": "NVFP4", "quanto": "Quanto", "quark": "Quark",
    "sinq": "SINQ", "spqr": "SpQR", "torchao": "torchao", "vptq": "VPTQ",
}  # fmt: skip
# Files in which older programs wrote what belongs in config.json.
QUANTISATION_FILES = {"quantize_config.json": "GPTQ", "quant_config.json": "AWQ"}


def check_config(hf_config: dict, where: Path, *, ported: bool) -> None:
    """UserError for settings that no model can have.

    ported: whether the architecture is computed here, so that each field has a known meaning.
    """
    model_type = hf_config.get("model_type")
    if not isinstance(model_type, str):
        raise UserError(
            f"{where} has no model_type, or {model_type!r}; it has to name the architecture, such as 'llama': without it no "
            "program can load the model"
        )
    # A language model inside a larger model has a part of the config for itself.
    for part in (hf_config, *(v for v in hf_config.values() if isinstance(v, dict) and "vocab_size" in v)):
        _check_numbers(part, where, ported)
        _check_ropes(part, where, own_code="auto_map" in hf_config)
        for name in ("hidden_act", "hidden_activation", "activation_function", "classifier_activation"):
            value = part.get(name)
            # A model with its own code may have its own functions.
            if value is None or "auto_map" in hf_config or not (isinstance(value, str) or ported):
                continue
            if value not in ACTIVATIONS:
                raise UserError(f"{where}: {name} is {value!r}, which does not exist; there are {', '.join(ACTIVATIONS)}")


def _check_numbers(part: dict, where: Path, ported: bool) -> None:
    for name, within in (SIZES | NUMBERS).items():
        if name not in part or (part[name] is None and not (ported and name in NEEDED)):
            continue
        whole = "a whole number, " if name in SIZES else ""
        # An architecture that is not ported may have a number for each layer, or something else, under the same name.
        values = part[name] if isinstance(part[name], list) and not ported else [part[name]]
        for value in values:
            if isinstance(value, dict) and not ported:
                continue
            # Some architectures compute a size and write it as 1200.0.
            fraction = isinstance(value, float) and (ported or value % 1 != 0)
            if isinstance(value, bool) or (whole and fraction) or value not in within:
                raise UserError(f"{where}: {name} is {value!r}; it has to be {whole}{within}")
    for name in FLAGS:
        if not isinstance(part.get(name, False), bool | None):
            raise UserError(f"{where}: {name} is {part[name]!r}; it has to be true or false")


def _check_ropes(part: dict, where: Path, *, own_code: bool) -> None:
    for name in ("rope_scaling", "rope_parameters"):
        value = part.get(name)
        if value is None:
            continue
        if not isinstance(value, dict):
            raise UserError(f"{where}: {name} is {value!r}; it has to be an object with a rope_type, or null")
        by_layer = {f"{name}.{layers}": one for layers, one in value.items() if isinstance(one, dict)}
        for path, one in (by_layer or {name: value}).items():
            rope_type = one.get("rope_type") or one.get("type") or "default"
            if rope_type not in ROPES and not own_code:
                raise UserError(
                    f"{where}: the rope type in {path} is {rope_type!r}, which does not exist; there are {', '.join(ROPES)}"
                )
            _check_rope_numbers(one, f"{where}: {path}")


def _check_rope_numbers(one: dict, path: str) -> None:
    for name in sorted(ROPE_NUMBERS & one.keys()):
        within = BASE if name in ("factor", "rope_theta", "original_max_position_embeddings") else FINITE
        for number in one[name] if name in ("short_factor", "long_factor") and isinstance(one[name], list) else [one[name]]:
            if number is not None and (isinstance(number, bool) or number not in within):
                raise UserError(f"{path}.{name} is {number!r}; it has to be a number, {within}")
    low, high = one.get("low_freq_factor"), one.get("high_freq_factor")
    if low is not None and high is not None and low >= high:
        raise UserError(f"{path}: low_freq_factor ({low}) has to be below high_freq_factor ({high})")


def check_heads(config: BodyConfig, where: Path) -> None:
    """UserError if a family's config divides its width or its heads unevenly."""
    if not config.own_head_dim and config.hidden_size % config.num_heads:
        raise UserError(
            f"{where}: the width, {config.hidden_size}, is not a multiple of the number of attention heads, {config.num_heads}"
        )
    groups = config.num_kv_heads
    if config.num_heads % groups:
        raise UserError(f"{where}: num_attention_heads, {config.num_heads}, is not a multiple of num_key_value_heads, {groups}")
    if config.own_head_dim and config.head_dim % 2:  # every family with such a setting has rotary positions
        raise UserError(f"{where}: heads are {config.head_dim} wide; rotary positions take pairs of their columns")


def quantised(hf_config: dict, where: Path) -> str | None:
    """By which method the weights of the model are quantised; None if they are not. UserError for an unknown method."""
    part = next((c for c in (hf_config, *hf_config.values()) if isinstance(c, dict) and c.keys() & _QUANTISATION), None)
    if part is None:
        return None
    settings = part.get("quantization_config", part.get("compression_config"))
    if settings is None:
        return None
    if not isinstance(settings, dict):
        raise UserError(f"{where}: quantization_config is {settings!r}; it has to be an object with a quant_method")
    method = settings.get("quant_method")
    if method is None and any(settings.get(f"load_in_{bits}bit") for bits in (4, 8)):
        method = "bitsandbytes"
    if not isinstance(method, str) or method not in QUANTISED:
        raise UserError(
            f"{where}: the quant_method in quantization_config is {method!r}, which is not known; there are "
            f"{', '.join(QUANTISED)}"
        )
    return QUANTISED[method]


_QUANTISATION = {"quantization_config", "compression_config"}


def check_quantisation_file(folder: Path, hf_config: dict) -> None:
    """UserError for a folder from an older program that wrote how it is quantised into another file than config.json."""
    for name, method in QUANTISATION_FILES.items():
        if (folder / name).is_file() and not hf_config.keys() & _QUANTISATION:
            raise UserError(
                f"{folder} is quantised with {method}, as {name} says, but its config.json has no quantization_config, without "
                "which no program would know; give the model that it was made from"
            )


# Adapters that add prompts and change no weights, so that nothing could be merged.
PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT")


def check_adapter(folder: Path) -> None:
    """UserError, with the command that merges it, for the folder of an adapter (PEFT, LoRA)."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        return
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        adapter_type, base = settings["peft_type"], settings.get("base_model_name_or_path")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{folder} holds an adapter, not a model, and its {file.name} cannot be read") from None
    if adapter_type in PROMPTS:
        raise UserError(
            f"{folder} holds an adapter ({adapter_type}, of {base}) that cannot be merged into a model; give the model alone"
        )
    merged = json.dumps(f"{folder.resolve().as_posix()}-merged")
    adapter = json.dumps(folder.resolve().as_posix())
    # An adapter is stored with a tokenizer if it changed the vocabulary.
    tokenizer = adapter if (folder / "tokenizer_config.json").is_file() else json.dumps(base)
    program = (
        f"from peft import AutoPeftModelForCausalLM as M; from transformers import AutoTokenizer as T; "
        f"M.from_pretrained({adapter}).merge_and_unload().save_pretrained({merged}); "
        f"T.from_pretrained({tokenizer}).save_pretrained({merged})"
    )
    raise UserError(
        f"{folder} holds an adapter ({adapter_type}, of {base}), not a whole model; merge it first, with this command, and "
        f"give its result: python -c {shlex.quote(program)}"
    )
