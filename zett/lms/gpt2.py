"""GPT-2: LayerNorm, learned positions, fused query/key/value projection.

Reference: Transformers' `modeling_gpt2.py`; parity is tested in `tests/lms/test_gpt.py`.
"""

import dataclasses
import functools
from typing import Self

import jax
import jax.numpy as jnp
from flax import nnx

from zett.lms.attention import attention
from zett.lms.config import BodyConfig
from zett.lms.family import NARROW, WIDEN, Family, Weight, dense_rows, norm_rows
from zett.lms.layers import (
    ACTIVATIONS,
    LayerNorm,
    Linear,
    Remat,
    check_activation,
    learned_positions,
    positions_and_mask,
    scan_layers,
    stack_layers,
    with_kept,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class GPT2Config(BodyConfig):
    """Shape of a GPT-2 body.

    scale_by_width: attention logits are divided by the root of the head width. scale_by_layer: and by the layer's number.
    """

    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    activation: str = "gelu_new"
    norm_eps: float = 1e-5
    max_positions: int = 1024
    scale_by_width: bool = True
    scale_by_layer: bool = False

    @classmethod
    def from_hf(cls, hf: dict) -> Self:
        if hf.get("add_cross_attention"):
            raise ValueError("add_cross_attention is true; the GPT-2 port computes decoders alone")
        return cls(
            hidden_size=hf["n_embd"],
            num_layers=hf["n_layer"],
            num_heads=hf["n_head"],
            intermediate_size=hf.get("n_inner") or 4 * hf["n_embd"],
            activation=check_activation(hf.get("activation_function", "gelu_new")),
            norm_eps=hf.get("layer_norm_epsilon", 1e-5),
            max_positions=hf.get("n_positions", 1024),
            scale_by_width=hf.get("scale_attn_weights", True),
            scale_by_layer=hf.get("scale_attn_by_inverse_layer_idx", False),
        )


class Layer(nnx.Module):
    def __init__(self, c: GPT2Config, dtype, rngs: nnx.Rngs):
        linear = functools.partial(Linear, use_bias=True, dtype=dtype, rngs=rngs)
        self.norm_attention = LayerNorm(c.hidden_size, c.norm_eps)
        self.qkv = linear(c.hidden_size, 3 * c.hidden_size)
        self.o = linear(c.hidden_size, c.hidden_size)
        self.norm_mlp = LayerNorm(c.hidden_size, c.norm_eps)
        self.up = linear(c.hidden_size, c.intermediate_size)
        self.down = linear(c.intermediate_size, c.hidden_size)
        self.config, self.dtype = c, dtype

    def __call__(self, x, mask, number, cache=None):
        c = self.config
        heads = (*x.shape[:2], c.num_heads, c.head_dim)
        q, k, v = (part.reshape(heads) for part in jnp.split(self.qkv(self.norm_attention(x)), 3, -1))
        if c.scale_by_layer:
            q = q / number
        scale = None if c.scale_by_width else 1.0
        out = attention(q, k, v, mask=mask, scale=scale, cache=cache, dtype=self.dtype)
        x = x + self.o(out.reshape(x.shape))
        return x + self.down(ACTIVATIONS[c.activation](self.up(self.norm_mlp(x))))


class GPT2Body(nnx.Module):
    """All of a GPT-2 model but its vocabulary: `x [B, L, D] -> h [B, L, D]`, final norm included."""

    def __init__(self, config: GPT2Config, *, dtype=jnp.float32, remat: Remat = "none", rngs: nnx.Rngs):
        shape = (config.max_positions, config.hidden_size)
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), shape))
        self.layers = stack_layers(lambda r: Layer(config, dtype, r), config.num_layers, rngs)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)
        self.config, self.remat = config, remat

    def __call__(self, x_BLD, *, positions_BL=None, mask_BL=None, segments_BL=None, keep_hidden=False, cache=None):
        """Hidden states `[B, L, D]` for input rows `x_BLD`; mask_BL, segments_BL, default positions: see `positions_and_mask`.

        With `keep_hidden`, also the input of every layer followed by the output, stacked `[layers + 1, B, L, D]`. With a cache
        of what came before `x_BLD`, also the cache that holds these tokens, too.
        """
        positions_BL, mask = positions_and_mask(x_BLD, positions_BL, mask_BL, segments_BL, cache)
        positions = learned_positions(self.positions[...], positions_BL, segments_BL)
        x = (x_BLD + positions).astype(x_BLD.dtype)
        numbers = {"number": jnp.arange(1, self.config.num_layers + 1, dtype=x.dtype)}
        x, kept = scan_layers(self.layers, x, mask, per_layer=numbers, keep_hidden=keep_hidden, remat=self.remat, cache=cache)
        return with_kept(self.norm(x), kept, keep_hidden=keep_hidden, cache=cache)


# GPT-2's dense layers are Transformers' Conv1D, which stores `[in, out]`, so nothing is transposed.
_dense_rows = functools.partial(dense_rows, transform=None)

FAMILY = Family(
    model_types=("gpt2",),
    Config=GPT2Config,
    Body=GPT2Body,
    weights=(
        Weight("transformer.wpe.weight", "positions", spec=(None, "fsdp")),
        *norm_rows("transformer.h.{i}.ln_1", "layers.norm_attention"),
        *_dense_rows("transformer.h.{i}.attn.c_attn", "layers.qkv", WIDEN),
        *_dense_rows("transformer.h.{i}.attn.c_proj", "layers.o", NARROW),
        *norm_rows("transformer.h.{i}.ln_2", "layers.norm_mlp"),
        *_dense_rows("transformer.h.{i}.mlp.c_fc", "layers.up", WIDEN),
        *_dense_rows("transformer.h.{i}.mlp.c_proj", "layers.down", NARROW),
        *norm_rows("transformer.ln_f", "norm"),
    ),
    input_rows="transformer.wte.weight",
    output_rows="lm_head.weight",
    prefix="transformer.",
    ignored=(r"transformer\.h\.\d+\.attn\.(masked_)?bias",),  # causal masks in old checkpoints
    tied_default=True,
)
