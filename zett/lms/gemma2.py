"""The Gemma 2 family: Gemma with norms on both sides of each part, soft-capped logits, and a window in every other layer."""

import dataclasses
from typing import Any, ClassVar

from flax import nnx

from zett.lms import llama
from zett.lms.decoder import (
    ATTENTION_WEIGHTS,
    FINAL_NORM,
    MLP,
    MLP_WEIGHTS,
    Attention,
    Decoder,
    DecoderConfig,
    layer_norm,
    layer_windows,
)
from zett.lms.layers import RMSNorm


@dataclasses.dataclass(frozen=True)
class Gemma2Config(DecoderConfig):
    defaults: ClassVar[dict[str, Any]] = {
        "head_dim": 256,
        "num_key_value_heads": 4,
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 8192,
    }
    norm_offset: ClassVar[float] = 1.0
    scaled_inputs: ClassVar[bool] = True

    @classmethod
    def _fields(cls, hf: dict) -> dict[str, Any]:
        return super()._fields(hf) | {
            "windows": layer_windows(hf, [i % 2 == 0 for i in range(hf["num_hidden_layers"])]),
            "attention_scale": hf["query_pre_attn_scalar"] ** -0.5,
            "attention_softcap": hf["attn_logit_softcapping"],
            "logit_softcap": hf["final_logit_softcapping"],
        }


class Gemma2Layer(nnx.Module):
    def __init__(self, c: DecoderConfig, dtype, rngs: nnx.Rngs):
        norm = (c.hidden_size, c.norm_eps, c.norm_offset)
        self.norm_attention, self.norm_attended = RMSNorm(*norm), RMSNorm(*norm)
        self.attention = Attention(c, dtype, rngs)
        self.norm_mlp, self.norm_fed = RMSNorm(*norm), RMSNorm(*norm)
        self.mlp = MLP(c, dtype, rngs)

    def __call__(self, x, rotations, mask, *, rotary, window, cache=None):
        attended = self.attention(self.norm_attention(x), rotations, mask, rotary=rotary, window=window, cache=cache)
        x = x + self.norm_attended(attended)
        return x + self.norm_fed(self.mlp(self.norm_mlp(x)))


class Gemma2Body(Decoder):
    Layer = Gemma2Layer


WEIGHTS = (
    *ATTENTION_WEIGHTS,
    *MLP_WEIGHTS,
    layer_norm("input_layernorm", "norm_attention"),
    layer_norm("post_attention_layernorm", "norm_attended"),
    layer_norm("pre_feedforward_layernorm", "norm_mlp"),
    layer_norm("post_feedforward_layernorm", "norm_fed"),
    FINAL_NORM,
)
FAMILY = dataclasses.replace(
    llama.FAMILY, model_types=("gemma2",), Config=Gemma2Config, Body=Gemma2Body, weights=WEIGHTS, tied_default=True
)
