"""The config.json of the model in a GGUF file, as Transformers would have written it."""

import math
from typing import Any

import numpy as np

from zett.errors import UserError
from zett.gguf.header import Header
from zett.gguf.settings import Settings
from zett.gguf.weights import read_values

# Name in GGUF -> model_type and class of Transformers.
ARCHITECTURES = {
    "llama": ("llama", "LlamaForCausalLM"),  # Mistral's dense models have this name, too
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
    "gemma3": ("gemma3_text", "Gemma3ForCausalLM"),
}
# Say nothing about what is computed.
IGNORED = {"vocab_size", "tensor_data_layout", "rope.scaling.finetuned", "pooling_type"}
LOCAL_THETA = 10000.0  # of Gemma 3's layers with a window, which files do not state
GEMMA_27B_LAYERS = 62  # llama.cpp knows the model by them, whose attention is scaled by another number than the width of heads
# Llama 3's scaling of its rotary frequencies, which a file holds as the finished divisors.
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}


def architecture_of(header: Header) -> str:
    """The architecture's name in GGUF; UserError for one that is not read."""
    architecture = Settings(header, "general.").text("architecture")
    parts = Settings(header, "split.").whole("count", 0)
    if parts > 1:
        raise UserError(f"{header.file} is one of {parts} parts of a model; join them first: llama-gguf-split --merge")
    if architecture not in ARCHITECTURES:
        raise UserError(f"{header.file}: the architecture is {architecture!r}; read are {', '.join(ARCHITECTURES)}")
    return architecture


def hf_config(header: Header) -> dict:
    """The config.json, whose numbers are checked. UserError for what is not known, missing or impossible."""
    from zett.lms.family import read_family  # imports this package

    architecture = architecture_of(header)
    settings = Settings(header, f"{architecture}.")
    model_type, name = ARCHITECTURES[architecture]
    hidden, heads = settings.whole("embedding_length"), settings.whole("attention.head_count")
    if heads < 1:
        raise UserError(f"{header.file}: {architecture}.attention.head_count is {heads}; it has to be at least 1")
    if not settings.flag("attention.causal", True):
        raise UserError(f"{header.file}: {architecture}.attention.causal is false; causal models are read")
    rotated = settings.whole("rope.dimension_count", None)
    head_dim = settings.whole("attention.key_length", rotated or hidden // heads)
    widths = {"rope.dimension_count": rotated, "attention.value_length": settings.whole("attention.value_length", None)}
    for key, width in widths.items():
        if width not in (None, head_dim):
            raise UserError(f"{header.file}: {architecture}.{key} is {width}, but heads are {head_dim} wide: not computed here")
    embeddings = header.tensors.get("token_embd.weight")
    config: dict[str, Any] = {
        "architectures": [name],
        "model_type": model_type,
        "vocab_size": embeddings.shape[0] if embeddings else 0,
        "hidden_size": hidden,
        "intermediate_size": settings.whole("feed_forward_length"),
        "num_hidden_layers": settings.whole("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": settings.whole("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": settings.whole("context_length"),
        "rms_norm_eps": settings.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "dtype": "bfloat16",
    }
    config |= _gemma3(settings, config) if architecture == "gemma3" else _llama_like(settings, config, header)
    settings.check_known(IGNORED)
    config |= special_ids(header)
    read_family(config, header.file)  # whose checks of the numbers are those of every config.json
    return config


def special_ids(header: Header) -> dict:
    """The fields of config.json and generation_config.json that name special tokens."""
    settings = Settings(header, "tokenizer.ggml.")
    fields = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
    found = {field: settings.whole(key, None) for field, key in fields.items()}
    return {field: number for field, number in found.items() if number is not None}


def _llama_like(settings: Settings, config: dict, header: Header) -> dict:
    first = [name for name in header.tensors if name.startswith("blk.0.")]
    fields: dict[str, Any] = {"hidden_act": "silu"}
    if config["model_type"] != "qwen2":  # whose biases are no setting
        fields["attention_bias"] = "blk.0.attn_q.bias" in first
    if config["model_type"] == "llama":
        fields["mlp_bias"] = "blk.0.ffn_gate.bias" in first
    theta = settings.number("rope.freq_base", 10000.0)
    rope = _scaling(settings, config)
    divisors = _divisors(header)
    if divisors is not None:
        if len(rope) > 1:
            raise UserError(f"{header.file} has both rope_freqs.weight and a rope.scaling.type: not computed here")
        rope = _llama3(divisors, theta, config["head_dim"], header)
    return fields | {"rope_theta": theta, "rope_parameters": {"rope_theta": theta, **rope}}


def _gemma3(settings: Settings, config: dict) -> dict:
    layers, window = config["num_hidden_layers"], settings.whole("attention.sliding_window", 0)
    theta, local_theta = settings.number("rope.freq_base", 1_000_000.0), settings.number("rope.freq_base_swa", LOCAL_THETA)
    local, period = _local_layers(settings, layers)
    local = [bool(window) and here for here in local]
    wide = layers == GEMMA_27B_LAYERS
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": False,
        "sliding_window": window or None,
        "sliding_window_pattern": period,
        "layer_types": ["sliding_attention" if here else "full_attention" for here in local],
        "query_pre_attn_scalar": config["hidden_size"] // config["num_attention_heads"] if wide else config["head_dim"],
        "final_logit_softcapping": settings.number("final_logit_softcapping", None),
        "rope_theta": theta,
        "rope_local_base_freq": local_theta,
        "rope_parameters": {
            "full_attention": {"rope_theta": theta, **_scaling(settings, config)},
            "sliding_attention": {"rope_theta": local_theta, "rope_type": "default"},
        },
    }


def _local_layers(settings: Settings, layers: int) -> tuple[list[bool], int]:
    """Which layers of Gemma 3 have a window, and every how manieth has none."""
    if isinstance(settings.values.get("attention.sliding_window_pattern"), list):
        local = settings.flags("attention.sliding_window_pattern")
        if len(local) != layers:
            raise UserError(f"{settings.file}: gemma3.attention.sliding_window_pattern is of {len(local)} layers, not {layers}")
        return local, [*local, False].index(False) + 1
    period = settings.whole("attention.sliding_window_pattern", 6)
    if not 1 <= layers <= 1024 or period < 1:
        raise UserError(f"{settings.file}: gemma3 has {layers} layers, of which every {period}th is global: impossible")
    return [(i + 1) % period != 0 for i in range(layers)], period


def _scaling(settings: Settings, config: dict) -> dict:
    """How all rotary frequencies are scaled, as Hugging Face's rope_parameters."""
    kind, old = settings.text("rope.scaling.type", "none"), settings.number("rope.scale_linear", 1)
    factor = settings.number("rope.scaling.factor", old)
    original = settings.whole("rope.scaling.original_context_length", None)
    if kind == "none" and old != 1:
        kind = "linear"
    if kind == "none" or factor == 1:
        return {"rope_type": "default"}
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor}
    if kind == "yarn":
        stated = {} if original is None else {"original_max_position_embeddings": original}
        return {"rope_type": "yarn", "factor": factor, **stated}
    raise UserError(f"{settings.file}: rope.scaling.type is {kind!r}; read are none, linear and yarn")


def _divisors(header: Header) -> np.ndarray | None:
    """What the file divides each rotary frequency by, or None."""
    tensor = header.tensors.get("rope_freqs.weight")
    if tensor is None:
        return None
    if tensor.type != "F32" or len(tensor.shape) != 1 or tensor.shape[0] > 2**16:
        raise UserError(f"{header.file}: rope_freqs.weight is {tensor.type} {list(tensor.shape)}; it has to be a row of F32")
    divisors = read_values(header.file, tensor).astype(np.float64)
    return None if np.all(divisors == 1) else divisors


def _llama3(divisors: np.ndarray, theta: float, head_dim: int, header: Header) -> dict:
    """The settings of Llama 3's scaling with these divisors."""
    factor = float(f"{divisors.max():.6g}")
    low, high, original = LLAMA3.values()
    if len(divisors) == head_dim // 2 and factor > 0 and theta > 0:
        wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
        smooth = np.clip((original / wavelengths - low) / (high - low), 0, 1)
        if np.allclose(divisors, 1 / ((1 - smooth) / factor + smooth), rtol=1e-4):
            return {"rope_type": "llama3", "factor": factor, **LLAMA3}
    raise UserError(f"{header.file}: the scaling in rope_freqs.weight is not that of Llama 3, the only one that is known here")
