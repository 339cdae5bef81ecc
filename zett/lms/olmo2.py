"""The OLMo 2 family: Llama with norms after attention and feed-forward network, and queries and keys normalised as a whole."""

import dataclasses
from typing import Any, ClassVar, Literal

from flax import nnx

from zett.lms import llama
from zett.lms.decoder import (
    ATTENTION_WEIGHTS,
    FINAL_NORM,
    MLP,
    MLP_WEIGHTS,
    QK_NORM_WEIGHTS,
    Attention,
    Decoder,
    DecoderConfig,
    layer_norm,
)
from zett.lms.layers import RMSNorm


@dataclasses.dataclass(frozen=True)
class Olmo2Config(DecoderConfig):
    defaults: ClassVar[dict[str, Any]] = {"rms_norm_eps": 1e-5, "max_position_embeddings": 2048}
    qk_norm: ClassVar[Literal["all"]] = "all"


class Olmo2Layer(nnx.Module):
    def __init__(self, c: DecoderConfig, dtype, rngs: nnx.Rngs):
        self.attention = Attention(c, dtype, rngs)
        self.norm_attended = RMSNorm(c.hidden_size, c.norm_eps)
        self.mlp = MLP(c, dtype, rngs)
        self.norm_fed = RMSNorm(c.hidden_size, c.norm_eps)

    def __call__(self, x, rotations, mask, *, rotary, window, cache=None):
        x = x + self.norm_attended(self.attention(x, rotations, mask, rotary=rotary, window=window, cache=cache))
        return x + self.norm_fed(self.mlp(x))


class Olmo2Body(Decoder):
    Layer = Olmo2Layer


WEIGHTS = (
    *ATTENTION_WEIGHTS,
    *QK_NORM_WEIGHTS,
    *MLP_WEIGHTS,
    layer_norm("post_attention_layernorm", "norm_attended"),
    layer_norm("post_feedforward_layernorm", "norm_fed"),
    FINAL_NORM,
)
FAMILY = dataclasses.replace(llama.FAMILY, model_types=("olmo2",), Config=Olmo2Config, Body=Olmo2Body, weights=WEIGHTS)
