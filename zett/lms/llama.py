"""The Llama family: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

Reference: Transformers' `modeling_llama.py`; parity is tested in `tests/test_llama.py`.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.lms.layers import Linear, RMSNorm, attention, rope, scan_layers, stack_layers
from zett.lms.weights import TRANSPOSE, Weight


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Shape of a Llama body. Field names follow this project; `from_hf` maps Hugging Face's."""

    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 64
    intermediate_size: int = 768
    rope_theta: float = 10000.0
    rope_scaling: tuple[tuple[str, Any], ...] | None = None
    norm_eps: float = 1e-5
    attention_bias: bool = False
    mlp_bias: bool = False
    max_positions: int = 2048

    @classmethod
    def from_hf(cls, hf: dict) -> "LlamaConfig":
        """Map a Hugging Face `config.json`; raises ValueError for a setting this port does not compute."""
        if hf.get("hidden_act", "silu") != "silu":
            raise ValueError(f"hidden_act is {hf['hidden_act']!r}; the Llama port computes 'silu' only")
        # Transformers 5 writes rope_parameters, 4 wrote rope_theta and rope_scaling.
        rope_parameters = dict(hf.get("rope_parameters") or hf.get("rope_scaling") or {})
        theta = rope_parameters.pop("rope_theta", hf.get("rope_theta", 10000.0))
        kind = rope_parameters.get("rope_type", rope_parameters.get("type", "default"))
        if kind not in ("default", "linear", "llama3"):
            raise ValueError(f"rope type {kind!r} is not supported; supported: default, linear, llama3")
        heads = hf["num_attention_heads"]
        return cls(
            hidden_size=hf["hidden_size"],
            num_layers=hf["num_hidden_layers"],
            num_heads=heads,
            num_kv_heads=hf.get("num_key_value_heads") or heads,
            head_dim=hf.get("head_dim") or hf["hidden_size"] // heads,
            intermediate_size=hf["intermediate_size"],
            rope_theta=float(theta),
            rope_scaling=None if kind == "default" else tuple(sorted(rope_parameters.items())),
            norm_eps=hf.get("rms_norm_eps", 1e-6),
            attention_bias=hf.get("attention_bias", False),
            mlp_bias=hf.get("mlp_bias", False),
            max_positions=hf.get("max_position_embeddings", 2048),
        )

    def to_hf(self) -> dict:
        """The part of a Hugging Face `config.json` that this class stands for."""
        rope_parameters = dict(self.rope_scaling or {"rope_type": "default"})
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_theta": self.rope_theta, **rope_parameters},
            "rms_norm_eps": self.norm_eps,
            "attention_bias": self.attention_bias,
            "mlp_bias": self.mlp_bias,
            "max_position_embeddings": self.max_positions,
        }


def inverse_frequencies(config: LlamaConfig) -> np.ndarray:
    """Rotary inverse frequencies `[head_dim / 2]`, with the linear and Llama-3 scalings."""
    k = config.head_dim
    inv_freq = 1.0 / config.rope_theta ** (np.arange(0, k, 2, dtype=np.float64) / k)
    scaling = dict(config.rope_scaling or {})
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "linear":
        inv_freq /= scaling["factor"]
    elif kind == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        wavelength = 2 * math.pi / inv_freq
        smooth = np.clip((scaling["original_max_position_embeddings"] / wavelength - low) / (high - low), 0, 1)
        inv_freq = (1 - smooth) * inv_freq / scaling["factor"] + smooth * inv_freq
    return inv_freq.astype(np.float32)


class Attention(nnx.Module):
    def __init__(self, c: LlamaConfig, dtype, rngs: nnx.Rngs):
        bias = {"use_bias": c.attention_bias, "dtype": dtype, "rngs": rngs}
        self.q = Linear(c.hidden_size, c.num_heads * c.head_dim, **bias)
        self.k = Linear(c.hidden_size, c.num_kv_heads * c.head_dim, **bias)
        self.v = Linear(c.hidden_size, c.num_kv_heads * c.head_dim, **bias)
        self.o = Linear(c.num_heads * c.head_dim, c.hidden_size, std=(2 * c.num_layers * c.hidden_size) ** -0.5, **bias)
        self.config, self.dtype = c, dtype

    def __call__(self, x_BLD, positions_BL, mask):
        c = self.config
        inv_freq = inverse_frequencies(c)
        q = self.q(x_BLD).reshape(*x_BLD.shape[:2], c.num_heads, c.head_dim)
        k = self.k(x_BLD).reshape(*x_BLD.shape[:2], c.num_kv_heads, c.head_dim)
        v = self.v(x_BLD).reshape(*x_BLD.shape[:2], c.num_kv_heads, c.head_dim)
        out = attention(rope(q, positions_BL, inv_freq), rope(k, positions_BL, inv_freq), v, mask=mask, dtype=self.dtype)
        return self.o(out.reshape(*x_BLD.shape[:2], c.num_heads * c.head_dim))


class MLP(nnx.Module):
    def __init__(self, c: LlamaConfig, dtype, rngs: nnx.Rngs):
        bias = {"use_bias": c.mlp_bias, "dtype": dtype, "rngs": rngs}
        self.gate = Linear(c.hidden_size, c.intermediate_size, **bias)
        self.up = Linear(c.hidden_size, c.intermediate_size, **bias)
        self.down = Linear(c.intermediate_size, c.hidden_size, std=(2 * c.num_layers * c.intermediate_size) ** -0.5, **bias)

    def __call__(self, x):
        return self.down(nnx.silu(self.gate(x)) * self.up(x))


class Layer(nnx.Module):
    def __init__(self, c: LlamaConfig, dtype, rngs: nnx.Rngs):
        self.norm_attention = RMSNorm(c.hidden_size, c.norm_eps)
        self.attention = Attention(c, dtype, rngs)
        self.norm_mlp = RMSNorm(c.hidden_size, c.norm_eps)
        self.mlp = MLP(c, dtype, rngs)

    def __call__(self, x, positions, mask):
        x = x + self.attention(self.norm_attention(x), positions, mask)
        return x + self.mlp(self.norm_mlp(x))


class LlamaBody(nnx.Module):
    """All of a Llama model but its vocabulary: `x [B, L, D] -> h [B, L, D]`, final norm included."""

    def __init__(self, config: LlamaConfig, *, dtype=jnp.float32, rngs: nnx.Rngs):
        self.layers = stack_layers(lambda r: Layer(config, dtype, r), config.num_layers, rngs)
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.config = config

    def __call__(self, x_BLD, *, positions_BL=None, mask_BL=None, keep_hidden=False):
        """Hidden states `[B, L, D]` for input rows `x_BLD`.

        `mask_BL` is False at padding, on either side; positions then count from the first real token.
        With `keep_hidden`, also the input of every layer followed by the output, stacked `[layers + 1, B, L, D]`.
        """
        if positions_BL is None:
            if mask_BL is None:
                positions_BL = jnp.broadcast_to(jnp.arange(x_BLD.shape[1]), x_BLD.shape[:2])
            else:
                positions_BL = jnp.maximum(jnp.cumsum(mask_BL, -1) - 1, 0)
        mask = None if mask_BL is None else mask_BL[:, None, None, :].astype(bool)
        x, inputs = scan_layers(self.layers, x_BLD, positions_BL, mask, keep_hidden=keep_hidden)
        h = self.norm(x)
        return (h, jnp.concatenate([inputs, h[None]])) if keep_hidden else h


def _layer(key: str, path: str, transform=None, when=None) -> Weight:
    return Weight(f"model.layers.{{i}}.{key}", f"layers.{path}", transform, when)


def _projections(module: str, names: dict[str, str], ours: str, bias_field: str) -> list[Weight]:
    rows = []
    for theirs, mine in names.items():
        rows.append(_layer(f"{module}.{theirs}.weight", f"{ours}.{mine}.kernel", TRANSPOSE))
        rows.append(_layer(f"{module}.{theirs}.bias", f"{ours}.{mine}.bias", when=bias_field))
    return rows


WEIGHTS = [
    *_projections("self_attn", {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o"}, "attention", "attention_bias"),
    *_projections("mlp", {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"}, "mlp", "mlp_bias"),
    _layer("input_layernorm.weight", "norm_attention.scale"),
    _layer("post_attention_layernorm.weight", "norm_mlp.scale"),
    Weight("model.norm.weight", "norm.scale"),
]
INPUT_ROWS, OUTPUT_ROWS = "model.embed_tokens.weight", "lm_head.weight"
# Buffers that old checkpoints carry and that are computed here.
IGNORED = [r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"]

# The names under which the registry finds them.
Body, Config = LlamaBody, LlamaConfig
