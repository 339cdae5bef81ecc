"""GPT-NeoX and Pythia: LayerNorm, rotary positions on a part of each head, attention and MLP side by side.

Reference: Transformers' `modeling_gpt_neox.py`; parity is tested in `tests/lms/test_gpt.py`.
"""

import dataclasses
import functools
from typing import Self

import jax.numpy as jnp
from flax import nnx

from zett.lms.attention import attention
from zett.lms.config import BodyConfig
from zett.lms.family import NARROW, WIDEN, Family, dense_rows, norm_rows
from zett.lms.layers import (
    ACTIVATIONS,
    LayerNorm,
    Linear,
    Remat,
    check_activation,
    positions_and_mask,
    rope,
    scan_layers,
    stack_layers,
    with_kept,
)  # fmt: skip
from zett.lms.rope import Rope


@dataclasses.dataclass(frozen=True)
class GPTNeoXConfig(BodyConfig):
    """Shape of a GPT-NeoX body.

    parallel: whether the MLP reads the same input as attention, instead of attention's output. Both outputs are added to the
    input.
    """

    hidden_size: int = 6144
    num_layers: int = 44
    num_heads: int = 64
    intermediate_size: int = 24576
    activation: str = "gelu"
    norm_eps: float = 1e-5
    attention_bias: bool = True
    parallel: bool = True
    rope: Rope = Rope(partial=0.25)
    max_positions: int = 2048

    @property
    def restarts(self) -> tuple[int, ...]:
        return self.rope.restarts

    @classmethod
    def from_hf(cls, hf: dict) -> Self:
        return cls(
            hidden_size=hf["hidden_size"],
            num_layers=hf["num_hidden_layers"],
            num_heads=hf["num_attention_heads"],
            intermediate_size=hf["intermediate_size"],
            activation=check_activation(hf.get("hidden_act", "gelu")),
            norm_eps=hf.get("layer_norm_eps", 1e-5),
            attention_bias=hf.get("attention_bias", True),
            parallel=hf.get("use_parallel_residual", True),
            rope=Rope.from_hf(
                {"partial_rotary_factor": hf.get("rotary_pct", 0.25), **hf}, theta=hf.get("rotary_emb_base", 10000.0)
            ),
            max_positions=hf.get("max_position_embeddings", 2048),
        )


class Layer(nnx.Module):
    def __init__(self, c: GPTNeoXConfig, dtype, rngs: nnx.Rngs):
        linear = functools.partial(Linear, dtype=dtype, rngs=rngs)
        self.norm_attention = LayerNorm(c.hidden_size, c.norm_eps)
        self.qkv = linear(c.hidden_size, 3 * c.hidden_size, use_bias=c.attention_bias)
        self.o = linear(c.hidden_size, c.hidden_size, use_bias=c.attention_bias)
        self.norm_mlp = LayerNorm(c.hidden_size, c.norm_eps)
        self.up = linear(c.hidden_size, c.intermediate_size, use_bias=True)
        self.down = linear(c.intermediate_size, c.hidden_size, use_bias=True)
        self.config, self.dtype = c, dtype

    def attend(self, x, positions, inv_freq, factor, mask, cache=None):
        # Query, key and value of a head lie side by side.
        qkv = self.qkv(x).reshape(*x.shape[:2], self.config.num_heads, -1)
        q, k, v = jnp.split(qkv, 3, -1)
        q, k = (rope(part, positions, inv_freq, factor) for part in (q, k))
        return self.o(attention(q, k, v, mask=mask, cache=cache, dtype=self.dtype).reshape(x.shape))

    def __call__(self, x, positions, inv_freq, factor, mask, cache=None):
        attended = x + self.attend(self.norm_attention(x), positions, inv_freq, factor, mask, cache)
        read = x if self.config.parallel else attended
        return attended + self.down(ACTIVATIONS[self.config.activation](self.up(self.norm_mlp(read))))


class GPTNeoXBody(nnx.Module):
    """All of a GPT-NeoX model but its vocabulary: `x [B, L, D] -> h [B, L, D]`, final norm included."""

    def __init__(self, config: GPTNeoXConfig, *, dtype=jnp.float32, remat: Remat = "none", rngs: nnx.Rngs):
        self.layers = stack_layers(lambda r: Layer(config, dtype, r), config.num_layers, rngs)
        self.norm = LayerNorm(config.hidden_size, config.norm_eps)
        self.config, self.remat = config, remat

    def __call__(self, x_BLD, *, positions_BL=None, mask_BL=None, segments_BL=None, keep_hidden=False, cache=None):
        """Hidden states `[B, L, D]` for input rows `x_BLD`; mask_BL, segments_BL, default positions: see `positions_and_mask`.

        With `keep_hidden`, also the input of every layer followed by the output, stacked `[layers + 1, B, L, D]`. With a cache
        of what came before `x_BLD`, also the cache that holds these tokens, too.
        """
        c = self.config
        positions_BL, mask = positions_and_mask(x_BLD, positions_BL, mask_BL, segments_BL, cache)
        inv_freq, factor = c.rope.frequencies(c.head_dim, c.max_positions, positions_BL)
        x, kept = scan_layers(
            self.layers, x_BLD, positions_BL, inv_freq, factor, mask, keep_hidden=keep_hidden, remat=self.remat, cache=cache
        )
        return with_kept(self.norm(x), kept, keep_hidden=keep_hidden, cache=cache)


_LAYER = "gpt_neox.layers.{i}"
FAMILY = Family(
    model_types=("gpt_neox",),
    Config=GPTNeoXConfig,
    Body=GPTNeoXBody,
    weights=(
        *norm_rows(f"{_LAYER}.input_layernorm", "layers.norm_attention"),
        *dense_rows(f"{_LAYER}.attention.query_key_value", "layers.qkv", WIDEN, bias="attention_bias"),
        *dense_rows(f"{_LAYER}.attention.dense", "layers.o", NARROW, bias="attention_bias"),
        *norm_rows(f"{_LAYER}.post_attention_layernorm", "layers.norm_mlp"),
        *dense_rows(f"{_LAYER}.mlp.dense_h_to_4h", "layers.up", WIDEN),
        *dense_rows(f"{_LAYER}.mlp.dense_4h_to_h", "layers.down", NARROW),
        *norm_rows("gpt_neox.final_layer_norm", "norm"),
    ),
    input_rows="gpt_neox.embed_in.weight",
    output_rows="embed_out.weight",
    prefix="gpt_neox.",
    renamed={r"^lm_head\.": "embed_out."},
    # Causal masks and rotary frequencies in old checkpoints.
    ignored=(r"gpt_neox\.layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)",),
)
