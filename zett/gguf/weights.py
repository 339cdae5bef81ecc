"""Tensors of a GGUF file under Hugging Face's names, dequantised one by one as they are written."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from zett.errors import UserError
from zett.files.tensors import listed
from zett.gguf.header import Header, Tensor

TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q5_K", "Q6_K")
CHUNK = 2**20  # values dequantised at a time, which takes about ten times as many bytes
DTYPE = jnp.dtype("bfloat16")

# GGUF's name -> Hugging Face's, and the shape in letters: v vocabulary, d width, q and k queries' and keys' heads together,
# h one head, f feed-forward width.
MODEL = {
    "token_embd.weight": ("model.embed_tokens.weight", "vd"),
    "output_norm.weight": ("model.norm.weight", "d"),
    "output.weight": ("lm_head.weight", "vd"),
}
LAYER = {
    "attn_norm.weight": ("input_layernorm.weight", "d"),
    "attn_q.weight": ("self_attn.q_proj.weight", "qd"),
    "attn_k.weight": ("self_attn.k_proj.weight", "kd"),
    "attn_v.weight": ("self_attn.v_proj.weight", "kd"),
    "attn_output.weight": ("self_attn.o_proj.weight", "dq"),
    "ffn_gate.weight": ("mlp.gate_proj.weight", "fd"),
    "ffn_up.weight": ("mlp.up_proj.weight", "fd"),
    "ffn_down.weight": ("mlp.down_proj.weight", "df"),
}
NORMS = {"ffn_norm.weight": ("post_attention_layernorm.weight", "d")}
GEMMA_NORMS = {
    "post_attention_norm.weight": ("post_attention_layernorm.weight", "d"),
    "ffn_norm.weight": ("pre_feedforward_layernorm.weight", "d"),
    "post_ffw_norm.weight": ("post_feedforward_layernorm.weight", "d"),
}
QK_NORMS = {
    "attn_q_norm.weight": ("self_attn.q_norm.weight", "h"),
    "attn_k_norm.weight": ("self_attn.k_norm.weight", "h"),
}
QKV_BIASES = {
    "attn_q.bias": ("self_attn.q_proj.bias", "q"),
    "attn_k.bias": ("self_attn.k_proj.bias", "k"),
    "attn_v.bias": ("self_attn.v_proj.bias", "k"),
}
OUTPUT_BIAS = {"attn_output.bias": ("self_attn.o_proj.bias", "d")}
MLP_BIASES = {
    "ffn_gate.bias": ("mlp.gate_proj.bias", "f"),
    "ffn_up.bias": ("mlp.up_proj.bias", "f"),
    "ffn_down.bias": ("mlp.down_proj.bias", "d"),
}


@dataclasses.dataclass(frozen=True)
class Converted:
    """A tensor in Hugging Face's layout that is made when it is written; `np.asarray` makes it.

    heads: of rows that are paired for rotation as llama.cpp does it (columns 2i and 2i + 1 of a head), else 0. minus_one: norms
    that the file holds as the factor itself, and Hugging Face as its difference to 1.
    """

    file: Path
    tensor: Tensor
    heads: int = 0
    minus_one: bool = False
    done: Callable[[int], Any] = lambda nbytes: None

    dtype = DTYPE

    @property
    def shape(self) -> tuple[int, ...]:
        return self.tensor.shape

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPE.itemsize

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        raw = _raw(self.file, self.tensor)
        values = np.empty((len(raw), self.shape[-1]), DTYPE)
        step = max(1, CHUNK // self.shape[-1])
        for i in range(0, len(raw), step):
            rows = _dequantised(raw[i : i + step], self.tensor.type)
            if not np.isfinite(rows).all():
                raise UserError(f"{self.file}: {self.tensor.name} holds values that are not finite; copy or download it again")
            values[i : i + step] = rows - 1 if self.minus_one else rows
        values = values.reshape(self.shape)
        if self.heads:
            pairs = values.reshape(self.heads, -1, 2, *self.shape[1:])
            values = pairs.swapaxes(1, 2).reshape(self.shape)
        self.done(self.nbytes)
        return values if dtype is None else values.astype(dtype)


def read_values(file: Path, tensor: Tensor) -> np.ndarray:
    """A small tensor in float32."""
    return _dequantised(_raw(file, tensor), tensor.type).reshape(tensor.shape)


def _raw(file: Path, tensor: Tensor) -> np.ndarray:
    """The bytes of each row."""
    rows = math.prod(tensor.shape[:-1])
    return np.memmap(file, np.uint8, "r", tensor.start, (rows, tensor.nbytes // rows))


def _dequantised(raw: np.ndarray, kind: str) -> np.ndarray:
    from gguf.constants import GGMLQuantizationType
    from gguf.quants import dequantize

    with np.errstate(all="ignore"):  # a damaged scale is found by its result
        return dequantize(np.ascontiguousarray(raw), GGMLQuantizationType[kind]).astype(np.float32, copy=False)


def convert_tensors(header: Header, config: dict, done: Callable[[int], Any]) -> dict[str, Converted]:
    """The model's tensors by Hugging Face's names. UserError that lists what is missing, unknown, misshapen or of another type.

    done: called with the bytes of each tensor once it is made.
    """
    names = _names(config)
    found = {name: tensor for name, tensor in header.tensors.items() if name != "rope_freqs.weight"}
    types = sorted({t.type for t in found.values()} - set(TYPES))
    if types:
        raise UserError(f"{header.file} holds tensors of type {', '.join(types)}; read are {', '.join(TYPES)}")
    faults = []
    if missing := sorted(names.keys() - found.keys()):
        faults.append(f"missing: {listed(missing)}")
    if unknown := sorted(found.keys() - names.keys()):
        faults.append(f"unknown: {listed(unknown)}")
    wrong = [n for n in sorted(names.keys() & found.keys()) if found[n].shape != names[n][1]]
    if wrong:
        faults.append("misshapen: " + listed([f"{n} is {list(found[n].shape)}, not {list(names[n][1])}" for n in wrong]))
    if faults:
        raise UserError(f"the tensors in {header.file} are not those of its settings: {'; '.join(faults)}")
    permuted = config["model_type"] == "llama"
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    converted = {}
    for name, tensor in found.items():
        rotated = heads.get(name.split(".")[-2], 0) if permuted else 0
        minus_one = config["model_type"] == "gemma3_text" and name.endswith("norm.weight")
        converted[names[name][0]] = Converted(header.file, tensor, rotated, minus_one, done)
    return converted


def _names(config: dict) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Hugging Face's name and the shape of every tensor that the model has, by GGUF's name."""
    kind, width = config["model_type"], config["head_dim"]
    layer = LAYER | (GEMMA_NORMS if kind == "gemma3_text" else NORMS)
    if kind in ("qwen3", "gemma3_text"):
        layer |= QK_NORMS
    if kind == "qwen2" or config.get("attention_bias"):
        layer |= QKV_BIASES
    if config.get("attention_bias"):
        layer |= OUTPUT_BIAS
    if config.get("mlp_bias"):
        layer |= MLP_BIASES
    sizes = {
        "v": config["vocab_size"],
        "d": config["hidden_size"],
        "q": config["num_attention_heads"] * width,
        "k": config["num_key_value_heads"] * width,
        "h": width,
        "f": config["intermediate_size"],
    }
    names = {ours: theirs for ours, theirs in MODEL.items() if ours != "output.weight" or not config["tie_word_embeddings"]}
    for i in range(config["num_hidden_layers"]):
        names |= {f"blk.{i}.{ours}": (f"model.layers.{i}.{theirs}", letters) for ours, (theirs, letters) in layer.items()}
    return {ours: (theirs, tuple(sizes[letter] for letter in letters)) for ours, (theirs, letters) in names.items()}
