"""StarCoder2: a decoder with LayerNorm, biases, an MLP without gate, and a sliding window.

Reference: Transformers' `modeling_starcoder2.py`; parity is tested in `tests/lms/test_gpt.py`.
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from flax import nnx

from zett.lms.decoder import ATTENTION_WEIGHTS, Attention, Decoder, DecoderConfig
from zett.lms.family import NARROW, WIDEN, Family, dense_rows, norm_rows
from zett.lms.layers import ACTIVATIONS, LayerNorm, Linear, Remat


@dataclasses.dataclass(frozen=True)
class Starcoder2Config(DecoderConfig):
    """Shape of a StarCoder2 body."""

    defaults: ClassVar[dict[str, Any]] = {
        "hidden_act": "gelu_pytorch_tanh",
        "norm_epsilon": 1e-5,
        "use_bias": True,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    }

    @classmethod
    def _fields(cls, hf: dict) -> dict[str, Any]:
        window = hf.get("sliding_window")
        return {
            **super()._fields(hf),
            "norm_eps": hf["norm_epsilon"],
            "attention_bias": hf["use_bias"],
            "mlp_bias": hf["use_bias"],
            "windows": None if window is None else (window,) * hf["num_hidden_layers"],
        }


class MLP(nnx.Module):
    def __init__(self, c: Starcoder2Config, dtype, rngs: nnx.Rngs):
        options = {"use_bias": c.mlp_bias, "dtype": dtype, "rngs": rngs}
        self.up = Linear(c.hidden_size, c.intermediate_size, **options)
        self.down = Linear(c.intermediate_size, c.hidden_size, **options)
        self.activation = c.activation

    def __call__(self, x):
        return self.down(ACTIVATIONS[self.activation](self.up(x)))


class Layer(nnx.Module):
    def __init__(self, c: Starcoder2Config, dtype, rngs: nnx.Rngs):
        self.norm_attention = LayerNorm(c.hidden_size, c.norm_eps)
        self.attention = Attention(c, dtype, rngs)
        self.norm_mlp = LayerNorm(c.hidden_size, c.norm_eps)
        self.mlp = MLP(c, dtype, rngs)

    def __call__(self, x, rotations, mask, *, rotary, window, cache=None):
        x = x + self.attention(self.norm_attention(x), rotations, mask, rotary=rotary, window=window, cache=cache)
        return x + self.mlp(self.norm_mlp(x))


class Starcoder2Body(Decoder):
    """All of a StarCoder2 model but its vocabulary; see `Decoder`."""

    Layer = Layer

    def __init__(self, config: Starcoder2Config, *, dtype=jnp.float32, remat: Remat = "none", rngs: nnx.Rngs):
        super().__init__(config, dtype=dtype, remat=remat, rngs=rngs)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)


FAMILY = Family(
    model_types=("starcoder2",),
    Config=Starcoder2Config,
    Body=Starcoder2Body,
    weights=(
        *ATTENTION_WEIGHTS,
        *norm_rows("model.layers.{i}.input_layernorm", "layers.norm_attention"),
        *norm_rows("model.layers.{i}.post_attention_layernorm", "layers.norm_mlp"),
        *dense_rows("model.layers.{i}.mlp.c_fc", "layers.mlp.up", WIDEN, bias="mlp_bias"),
        *dense_rows("model.layers.{i}.mlp.c_proj", "layers.mlp.down", NARROW, bias="mlp_bias"),
        *norm_rows("model.norm", "norm"),
    ),
    input_rows="model.embed_tokens.weight",
    output_rows="lm_head.weight",
    prefix="model.",
    tied_default=True,
)
