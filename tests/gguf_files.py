"""GGUF files that tests write, with the `gguf` library's own writer and its table of names, as llama.cpp's converter would."""

from pathlib import Path

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from gguf import GGMLQuantizationType as Type
from gguf import TokenType

from zett.lms import load_base_model

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
}
# Where a block has its scales, 16-bit floats: the rest may be any bytes.
SCALES = {Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,), Type.Q4_0: (0,), Type.Q4_1: (0, 2), Type.Q8_0: (0,)}
SHAPE = {
    "vocab_size": 0,  # that of the tokenizer
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
# Of a model of one layer.
SHAPES = {
    "model.embed_tokens.weight": (260, 32), "model.norm.weight": (32,), "model.layers.0.input_layernorm.weight": (32,),
    "model.layers.0.self_attn.q_proj.weight": (32, 32), "model.layers.0.self_attn.k_proj.weight": (16, 32),
    "model.layers.0.self_attn.v_proj.weight": (16, 32), "model.layers.0.self_attn.o_proj.weight": (32, 32),
    "model.layers.0.mlp.gate_proj.weight": (64, 32), "model.layers.0.mlp.up_proj.weight": (64, 32),
    "model.layers.0.mlp.down_proj.weight": (32, 64), "model.layers.0.post_attention_layernorm.weight": (32,),
}  # fmt: skip


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys in llama.cpp's order: what is rotated together lies together."""
    pairs = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def random_blocks(kind: Type, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Bytes of a quantised tensor whose values are of moderate size."""
    block, width = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (int(np.prod(shape)) // block, width), np.uint8)
    for place in SCALES[kind]:
        scale = (rng.uniform(0.5, 1.5, len(blocks)) * 1e-3).astype(np.float16)
        blocks[:, place : place + 2] = scale.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(*shape[:-1], -1)


def named(config: dict, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hugging Face's tensors as llama.cpp stores them, by GGUF's names."""
    names = gguf.get_tensor_name_map(ARCHITECTURES[config["model_type"]], config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    stored = {}
    for name, weight in weights.items():
        weight = np.asarray(weight, np.float32)
        if config["model_type"] == "llama" and (part := name.split(".")[-2]) in heads:
            weight = permuted(weight, heads[part])
        if config["model_type"] == "gemma3_text" and name.endswith("norm.weight"):
            weight = weight + 1
        stored[names.get_name(name, try_suffixes=(".weight", ".bias"))] = weight
    return stored


def write(
    file: Path, config: dict, weights: dict[str, np.ndarray], *, kind: Type = Type.F32, settings=None, tokenizer=None,
    raw: bool = False, extra=None, alignment: int | None = None,
) -> Path:  # fmt: skip
    """A GGUF file of a model. kind: of its matrices. settings: below the architecture's name, more or others (None: without).

    tokenizer: what is added to the tokenizer's settings. raw: matrices are random blocks of `kind`. extra: more tensors.
    """
    model_type = config["model_type"]
    architecture = "gemma3" if model_type == "gemma3_text" else model_type
    writer = gguf.GGUFWriter(file, architecture)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_name("tiny")
    stated = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": float(config["rope_theta"]),
        "attention.key_length": config.get("head_dim"),
        "attention.value_length": config.get("head_dim"),
        "attention.sliding_window": config.get("sliding_window"),
    }
    for name, value in (stated | (settings or {})).items():
        add(writer, f"{architecture}.{name}", value)
    for name, value in (byte_level("smollm") if tokenizer is None else tokenizer).items():
        add(writer, name, value)
    for i, (name, weight) in enumerate(named(config, weights).items()):
        if weight.ndim == 1 or kind == Type.F32:
            writer.add_tensor(name, weight)
        elif raw:
            writer.add_tensor(name, random_blocks(kind, weight.shape, i), raw_dtype=kind)
        else:
            writer.add_tensor(name, gguf.quantize(weight, kind), raw_dtype=kind)
    for name, weight in (extra or {}).items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def add(writer, name: str, value) -> None:
    """A setting of the type that fits the value; None: not written."""
    if value is None:
        return
    if isinstance(value, bool):
        writer.add_bool(name, value)
    elif isinstance(value, int):
        writer.add_uint32(name, value)
    elif isinstance(value, float):
        writer.add_float32(name, value)
    elif isinstance(value, str):
        writer.add_string(name, value)
    else:
        writer.add_array(name, value)


# ------------------------------------------------------------------------------------------------------------- tokenizers


def byte_level(pre: str | None, source=None, **more) -> dict:
    """Settings of a byte-level BPE: those of `source`, a `tokenizers.Tokenizer`, cut into words as `pre` says."""
    import json

    spec = json.loads((source or tiny.tokenizer()).to_str())
    special = {token["id"]: token for token in spec["added_tokens"]}
    tokens = {i: token for token, i in spec["model"]["vocab"].items()} | {i: t["content"] for i, t in special.items()}
    kinds = [
        TokenType.NORMAL if i not in special else TokenType.CONTROL if special[i]["special"] else TokenType.USER_DEFINED
        for i in range(len(tokens))
    ]
    settings = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [tokens[i] for i in range(len(tokens))],
        "tokenizer.ggml.token_type": [int(kind) for kind in kinds],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in spec["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 1,
    }
    return settings | {f"tokenizer.{name}": value for name, value in more.items()}


def sentencepiece(pieces: dict[str, float], **more) -> dict:
    """Settings of a SentencePiece BPE with these scores, bytes and Llama's special tokens before them."""
    special = ["<unk>", "<s>", "</s>"]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    user = more.pop("user", [])
    tokens = [*special, *bytes_, *user, *pieces]
    kinds = [*kinds, *[TokenType.BYTE] * 256, *[TokenType.USER_DEFINED] * len(user), *[TokenType.NORMAL] * len(pieces)]
    settings = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * (259 + len(user)) + list(pieces.values()),
        "tokenizer.ggml.token_type": [int(kind) for kind in kinds],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return settings | {f"tokenizer.{name}": value for name, value in more.items()}


def transformers_model(file: Path, *, dtype="bfloat16"):
    """The model in `file` as Transformers reads it; its `from_pretrained` would need one more package to do the same."""
    torch = pytest.importorskip("torch")
    import transformers
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    config = transformers.AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = load_gguf_checkpoint(file, return_tensors=True, model_to_load=model, torch_dtype=getattr(torch, dtype))["tensors"]
    result = model.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=False)
    assert set(result.missing_keys) <= {"lm_head.weight"} and not result.unexpected_keys
    model.tie_weights()
    return model.eval()


def check_logits(file: Path, ids: np.ndarray) -> None:
    """Our logits are those of Transformers' reading, with weights rounded to bfloat16 as ours are."""
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        expected = transformers_model(file)(torch.tensor(ids)).logits.numpy()
    base = load_base_model(file)

    @jax.jit
    def run(table):
        h = nnx.merge(base.graphdef, base.params)(table.embed(ids), mask_BL=jnp.ones(ids.shape, bool))
        return table.unembed(h, base.config.logit_softcap)

    with jax.default_matmul_precision("highest"):
        np.testing.assert_allclose(run(base.table), expected, rtol=1e-4, atol=1e-4)
