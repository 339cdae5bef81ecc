"""ModernBERT: a bidirectional pre-norm encoder with rotary positions, gated MLPs, and local attention in most layers.

The masked-LM head's transform is part of the body, its bias part of the table. Reference: Transformers'
`modeling_modernbert.py`; parity is tested in `tests/lms/test_encoders.py`.
"""

import dataclasses
import functools
from typing import ClassVar, Self

import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.lms.attention import attention
from zett.lms.bert import Head
from zett.lms.config import BodyConfig
from zett.lms.family import NARROW, TRANSPOSE, WIDEN, Family, Weight, dense_rows, norm_rows
from zett.lms.layers import (
    ACTIVATIONS,
    LayerNorm,
    Linear,
    Remat,
    check_activation,
    layer_norm,
    positions_and_mask,
    rope,
    scan_layers,
    stack_layers,
)  # fmt: skip
from zett.lms.rope import Rope


@dataclasses.dataclass(frozen=True)
class ModernBertConfig(BodyConfig):
    """Shape of a ModernBERT body.

    local: for each layer, whether a token looks at most `window` tokens away, with the positions `local_rope`.
    output_bias: whether the masked-LM head has a bias.
    """

    hidden_size: int = 768
    num_layers: int = 22
    num_heads: int = 12
    intermediate_size: int = 1152
    activation: str = "gelu"
    head_activation: str = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    head_bias: bool = False
    local: tuple[bool, ...] = (False, *(True, True, False) * 7)
    window: int = 64
    rope: Rope = Rope(theta=160_000.0)
    local_rope: Rope = Rope()
    max_positions: int = 8192
    output_bias: bool = True

    causal: ClassVar[bool] = False

    @property
    def layer_windows(self) -> tuple[int | None, ...]:
        return tuple(self.window if local else None for local in self.local)

    @property
    def head_dense_bias(self) -> bool:
        return self.head and self.head_bias

    @property
    def head_norm_bias(self) -> bool:
        return self.head and self.norm_bias

    @classmethod
    def from_hf(cls, hf: dict) -> Self:
        number, every = hf["num_hidden_layers"], hf.get("global_attn_every_n_layers", 3)
        types = hf.get("layer_types") or ["sliding_attention" if i % every else "full_attention" for i in range(number)]
        if len(types) != number or not set(types) <= {"sliding_attention", "full_attention"}:
            raise ValueError(f"layer_types {types} is not 'sliding_attention' or 'full_attention' for each of {number} layers")
        everywhere = hf.get("global_rope_theta") or 160_000.0
        ropes = hf.get("rope_parameters") or {}
        return cls(
            hidden_size=hf["hidden_size"],
            num_layers=number,
            num_heads=hf["num_attention_heads"],
            intermediate_size=hf["intermediate_size"],
            activation=check_activation(hf.get("hidden_activation", "gelu")),
            head_activation=check_activation(hf.get("classifier_activation", "gelu")),
            norm_eps=hf.get("norm_eps", 1e-5),
            norm_bias=hf.get("norm_bias", False),
            attention_bias=hf.get("attention_bias", False),
            mlp_bias=hf.get("mlp_bias", False),
            head_bias=hf.get("classifier_bias", False),
            local=tuple(layer_type == "sliding_attention" for layer_type in types),
            window=hf.get("local_attention", 128) // 2,
            rope=Rope.from_hf(hf, theta=everywhere, parameters=ropes.get("full_attention")),
            local_rope=Rope.from_hf(
                hf, theta=hf.get("local_rope_theta", 10_000.0) or everywhere, parameters=ropes.get("sliding_attention")
            ),
            max_positions=hf.get("max_position_embeddings", 8192),
            output_bias=hf.get("decoder_bias", True),
        )


class Layer(nnx.Module):
    def __init__(self, c: ModernBertConfig, dtype, rngs: nnx.Rngs):
        linear = functools.partial(Linear, dtype=dtype, rngs=rngs)
        self.qkv = linear(c.hidden_size, 3 * c.hidden_size, use_bias=c.attention_bias)
        self.o = linear(c.hidden_size, c.hidden_size, use_bias=c.attention_bias)
        self.norm_mlp = LayerNorm(c.hidden_size, c.norm_eps, c.norm_bias)
        self.up = linear(c.hidden_size, 2 * c.intermediate_size, use_bias=c.mlp_bias)
        self.down = linear(c.intermediate_size, c.hidden_size, use_bias=c.mlp_bias)
        self.config, self.dtype = c, dtype

    def attend(self, x, positions, mask, inv_freq, factor, window):
        heads = (*x.shape[:2], self.config.num_heads, -1)
        q, k, v = (part.reshape(heads) for part in jnp.split(self.qkv(x), 3, -1))
        q, k = (rope(part, positions, inv_freq, factor) for part in (q, k))
        return self.o(attention(q, k, v, mask=mask, causal=False, window=window, dtype=self.dtype).reshape(x.shape))

    def __call__(self, x, positions, mask, bare, norm_scale, norm_bias, inv_freq, factor, window):
        # The first layer has no norm before its attention, since its input rows are normalised already.
        normed = jnp.where(bare, x, layer_norm(x, norm_scale, norm_bias, self.config.norm_eps))
        x = x + self.attend(normed, positions, mask, inv_freq, factor, window)
        act, gate = jnp.split(self.up(self.norm_mlp(x)), 2, -1)
        return x + self.down(ACTIVATIONS[self.config.activation](act) * gate)


class ModernBertBody(nnx.Module):
    """All of a ModernBERT model but its vocabulary: `x [B, L, D] -> h [B, L, D]`."""

    def __init__(self, config: ModernBertConfig, *, dtype=jnp.float32, remat: Remat = "none", rngs: nnx.Rngs):
        c = config
        self.norm = LayerNorm(c.hidden_size, c.norm_eps, c.norm_bias)
        self.attention_norms = stack_layers(lambda r: LayerNorm(c.hidden_size, c.norm_eps, c.norm_bias), c.num_layers - 1, rngs)
        self.layers = stack_layers(lambda r: Layer(c, dtype, r), c.num_layers, rngs)
        self.final_norm = LayerNorm(c.hidden_size, c.norm_eps, c.norm_bias)
        self.head = Head(c, dtype, rngs, dense_bias=c.head_bias, norm_bias=c.norm_bias) if c.head else None
        self.config, self.remat = c, remat

    def __call__(self, x_BLD, *, positions_BL=None, mask_BL=None, segments_BL=None, keep_hidden=False):
        """Hidden states `[B, L, D]` for input rows `x_BLD`: what the output rows multiply, or the encoder's if it has no head.

        mask_BL, segments_BL and default positions: see `positions_and_mask`. With `keep_hidden`, also the input of every layer
        followed by the encoder's output, stacked `[layers + 1, B, L, D]`.
        """
        c = self.config
        positions_BL, mask = positions_and_mask(x_BLD, positions_BL, mask_BL, segments_BL)
        local = np.asarray(c.local)
        everywhere, nearby = (r.frequencies(c.head_dim, c.max_positions, positions_BL) for r in (c.rope, c.local_rope))
        norms = self.attention_norms
        per_layer = {
            "bare": np.arange(c.num_layers) == 0,
            "norm_scale": jnp.pad(norms.scale[...], ((1, 0), (0, 0)), constant_values=1),
            "norm_bias": None if norms.bias is None else jnp.pad(norms.bias[...], ((1, 0), (0, 0))),
            "inv_freq": jnp.where(local[:, None], nearby[0], everywhere[0]),
            "factor": jnp.where(local, nearby[1], everywhere[1]),
            "window": np.where(local, c.window, x_BLD.shape[1]),
        }
        x, inputs = scan_layers(
            self.layers, self.norm(x_BLD), positions_BL, mask, per_layer=per_layer, keep_hidden=keep_hidden, remat=self.remat
        )
        x = self.final_norm(x)
        h = x if self.head is None else self.head(x)
        return (h, jnp.concatenate([inputs, x[None]])) if keep_hidden else h


_LAYER = "model.layers.{i}"
FAMILY = Family(
    model_types=("modernbert",),
    Config=ModernBertConfig,
    Body=ModernBertBody,
    weights=(
        *norm_rows("model.embeddings.norm", "norm", bias="norm_bias"),
        *(dataclasses.replace(row, first=1) for row in norm_rows(f"{_LAYER}.attn_norm", "attention_norms", bias="norm_bias")),
        *dense_rows(f"{_LAYER}.attn.Wqkv", "layers.qkv", WIDEN, bias="attention_bias"),
        *dense_rows(f"{_LAYER}.attn.Wo", "layers.o", NARROW, bias="attention_bias"),
        *norm_rows(f"{_LAYER}.mlp_norm", "layers.norm_mlp", bias="norm_bias"),
        *dense_rows(f"{_LAYER}.mlp.Wi", "layers.up", WIDEN, bias="mlp_bias"),
        *dense_rows(f"{_LAYER}.mlp.Wo", "layers.down", NARROW, bias="mlp_bias"),
        *norm_rows("model.final_norm", "final_norm", bias="norm_bias"),
        Weight("head.dense.weight", "head.dense.kernel", TRANSPOSE, "head", WIDEN),
        Weight("head.dense.bias", "head.dense.bias", when="head_dense_bias"),
        Weight("head.norm.weight", "head.norm.scale", when="head"),
        Weight("head.norm.bias", "head.norm.bias", when="head_norm_bias"),
    ),
    input_rows="model.embeddings.tok_embeddings.weight",
    output_rows="decoder.weight",
    bias="decoder.bias",
    prefix="model.",
    head="head.",
    ignored=(r"classifier\..*",),  # heads of other tasks: copied, but not computed
    tied_default=True,
)
