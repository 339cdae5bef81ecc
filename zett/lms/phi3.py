"""The Phi-3 family (Phi-3, 3.5 and 4-mini): Llama with fused projections, partial rotary positions and LongRoPE."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx

from zett.lms import llama
from zett.lms.decoder import FINAL_NORM, NORM_WEIGHTS, Attention, Decoder, DecoderConfig, Layer, projections
from zett.lms.family import NARROW, WIDEN
from zett.lms.layers import ACTIVATIONS, Linear
from zett.lms.rope import Rope


@dataclasses.dataclass(frozen=True)
class Phi3Config(DecoderConfig):
    defaults: ClassVar[dict[str, Any]] = {
        "rms_norm_eps": 1e-5,
        "original_max_position_embeddings": 4096,
        "max_position_embeddings": 4096,
    }

    @classmethod
    def _fields(cls, hf: dict) -> dict[str, Any]:
        window = hf.get("sliding_window")
        return super()._fields({**hf, "attention_bias": False}) | {
            "windows": None if window is None else (window,) * hf["num_hidden_layers"]
        }

    @classmethod
    def _rope(cls, hf: dict) -> Rope:
        parameters = dict(hf.get("rope_scaling") or hf.get("rope_parameters") or {})
        # Microsoft's first files call LongRoPE "su", some "yarn".
        rope_type = parameters.pop("type", None)
        rope_type = parameters.get("rope_type") or rope_type or "default"
        parameters["rope_type"] = "longrope" if rope_type in ("su", "yarn") else rope_type
        return Rope.from_hf(hf, parameters=parameters)


class Phi3Attention(Attention):
    def make_projections(self, rngs: nnx.Rngs):
        c = self.config
        width = (c.num_heads + 2 * c.num_kv_heads) * c.head_dim
        self.qkv = Linear(c.hidden_size, width, dtype=self.dtype, rngs=rngs)

    def project(self, x_BLD):
        c = self.config
        first_key = c.num_heads * c.head_dim
        return jnp.split(self.qkv(x_BLD), [first_key, first_key + c.num_kv_heads * c.head_dim], -1)


class Phi3MLP(nnx.Module):
    def __init__(self, c: DecoderConfig, dtype, rngs: nnx.Rngs):
        self.gate_up = Linear(c.hidden_size, 2 * c.intermediate_size, dtype=dtype, rngs=rngs)
        std = (2 * c.num_layers * c.intermediate_size) ** -0.5
        self.down = Linear(c.intermediate_size, c.hidden_size, std=std, dtype=dtype, rngs=rngs)
        self.activation = c.activation

    def __call__(self, x):
        gate, up = jnp.split(self.gate_up(x), 2, -1)
        return self.down(ACTIVATIONS[self.activation](gate) * up)


class Phi3Layer(Layer):
    Attention, MLP = Phi3Attention, Phi3MLP


class Phi3Body(Decoder):
    Layer = Phi3Layer


WEIGHTS = (
    *projections("self_attn", {"qkv_proj": "qkv"}, "attention", WIDEN, False),
    *projections("self_attn", {"o_proj": "o"}, "attention", NARROW, False),
    *projections("mlp", {"gate_up_proj": "gate_up"}, "mlp", WIDEN, False),
    *projections("mlp", {"down_proj": "down"}, "mlp", NARROW, False),
    *NORM_WEIGHTS,
    FINAL_NORM,
)
FAMILY = dataclasses.replace(llama.FAMILY, model_types=("phi3",), Config=Phi3Config, Body=Phi3Body, weights=WEIGHTS)
