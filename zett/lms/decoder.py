"""What the decoder families with RMSNorm and rotary positions share: each of them is this decoder with other settings.

Reference: Transformers' `modeling_*.py` of the families; parity is tested in `tests/lms/test_decoders.py`.
"""

import dataclasses
from typing import Any, ClassVar, Literal, Self

import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.lms.attention import attention
from zett.lms.config import BodyConfig
from zett.lms.family import NARROW, WIDEN, Weight, dense_rows
from zett.lms.layers import (
    ACTIVATIONS,
    Linear,
    Remat,
    RMSNorm,
    check_activation,
    positions_and_mask,
    rotated,
    rotation,
    scan_layers,
    stack_layers,
    with_kept,
)
from zett.lms.rope import Rope


@dataclasses.dataclass(frozen=True)
class DecoderConfig(BodyConfig):
    """Shape of a decoder.

    windows: for each layer how far it looks back (None: to the beginning), or None for all layers. attention_scale: factor of
    the attention logits (None: `head_dim ** -0.5`). The class variables are the same for all models of a family.
    """

    hidden_size: int = 256
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_dim: int = 64
    intermediate_size: int = 768
    activation: str = "silu"
    norm_eps: float = 1e-5
    attention_bias: bool = False
    mlp_bias: bool = False
    max_positions: int = 2048
    rope: Rope = Rope()
    windows: tuple[int | None, ...] | None = None
    attention_scale: float | None = None
    attention_softcap: float | None = None
    logit_softcap: float | None = None

    # Transformers' defaults, for fields that a config.json may lack.
    defaults: ClassVar[dict[str, Any]] = {"max_position_embeddings": 2048}
    rope_theta: ClassVar[float] = 10000.0
    own_head_dim: ClassVar[bool] = True
    qk_norm: ClassVar[Literal["head", "all"] | None] = None  # queries and keys are normalised, each head or all together
    norm_offset: ClassVar[float] = 0.0  # the factor of a norm is this plus its weight
    scaled_inputs: ClassVar[bool] = False  # input rows are multiplied by the square root of the model width

    @property
    def qkv_bias(self) -> bool:
        return self.attention_bias

    @property
    def layer_windows(self) -> tuple[int | None, ...]:
        return self.windows or (None,) * self.num_layers

    @property
    def ropes(self) -> tuple[Rope | None, ...]:
        """The rotary positions of each layer; None for a layer without positions."""
        return (self.rope,) * self.num_layers

    @property
    def restarts(self) -> tuple[int, ...]:
        return tuple(length for rope in dict.fromkeys(self.ropes) if rope is not None for length in rope.restarts)

    @classmethod
    def from_hf(cls, hf: dict) -> Self:
        config = cls(**cls._fields({**cls.defaults, **hf}))
        config.rope.check_width(config.head_dim)
        return config

    @classmethod
    def _fields(cls, hf: dict) -> dict[str, Any]:
        heads = hf["num_attention_heads"]
        if hf.get("use_bidirectional_attention"):
            raise ValueError("use_bidirectional_attention is set; this port computes causal attention only")
        return {
            "hidden_size": hf["hidden_size"],
            "num_layers": hf["num_hidden_layers"],
            "num_heads": heads,
            "num_kv_heads": hf.get("num_key_value_heads") or heads,
            "head_dim": hf.get("head_dim") or hf["hidden_size"] // heads,
            "intermediate_size": hf["intermediate_size"],
            "activation": check_activation(hf.get("hidden_activation") or hf.get("hidden_act") or "silu"),
            "norm_eps": hf.get("rms_norm_eps", 1e-6),
            "attention_bias": hf.get("attention_bias", False),
            "mlp_bias": hf.get("mlp_bias", False),
            "max_positions": hf["max_position_embeddings"],
            "rope": cls._rope(hf),
        }

    @classmethod
    def _rope(cls, hf: dict) -> Rope:
        found = Rope.from_hf(hf, theta=cls.rope_theta)
        if found.partial != 1.0:
            raise ValueError(f"partial_rotary_factor is {found.partial}; this port rotates whole heads only")
        return found


def layer_windows(hf: dict, sliding: list[bool]) -> tuple[int | None, ...] | None:
    """Each layer's window, by the config's `layer_types`; if it has none, `sliding` says which layers have a window."""
    types = hf.get("layer_types") or ["sliding_attention" if local else "full_attention" for local in sliding]
    unknown = sorted(set(types) - {"sliding_attention", "full_attention"})
    if unknown or len(types) != len(sliding):
        raise ValueError(f"layer_types has {len(types)} entries, {unknown or 'all known'}, for {len(sliding)} layers")
    if "sliding_attention" not in types:
        return None
    if not hf.get("sliding_window"):
        raise ValueError("layer_types has sliding_attention, but there is no sliding_window")
    return tuple(hf["sliding_window"] if layer_type == "sliding_attention" else None for layer_type in types)


class Attention(nnx.Module):
    def __init__(self, c: DecoderConfig, dtype, rngs: nnx.Rngs):
        self.config, self.dtype = c, dtype
        self.make_projections(rngs)
        std = (2 * c.num_layers * c.hidden_size) ** -0.5
        self.o = Linear(c.num_heads * c.head_dim, c.hidden_size, std=std, use_bias=c.attention_bias, dtype=dtype, rngs=rngs)
        if c.qk_norm:
            widths = (c.head_dim,) * 2 if c.qk_norm == "head" else (c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim)
            self.q_norm, self.k_norm = (RMSNorm(width, c.norm_eps, c.norm_offset) for width in widths)

    def make_projections(self, rngs: nnx.Rngs):
        c = self.config
        options = {"use_bias": c.qkv_bias, "dtype": self.dtype, "rngs": rngs}
        self.q = Linear(c.hidden_size, c.num_heads * c.head_dim, **options)
        self.k = Linear(c.hidden_size, c.num_kv_heads * c.head_dim, **options)
        self.v = Linear(c.hidden_size, c.num_kv_heads * c.head_dim, **options)

    def project(self, x_BLD):
        """Queries, keys and values, `[B, L, heads * K]` each."""
        return self.q(x_BLD), self.k(x_BLD), self.v(x_BLD)

    def __call__(self, x_BLD, rotations, mask, *, rotary, window, cache=None):
        """rotations: cosines and sines of each kind of rotary positions; `rotary`: which of the kinds is this layer's."""
        c = self.config
        q, k, v = self.project(x_BLD)
        if c.qk_norm == "all":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (y.reshape(*x_BLD.shape[:2], -1, c.head_dim) for y in (q, k, v))
        if c.qk_norm == "head":
            q, k = self.q_norm(q), self.k_norm(k)
        cos, sin = (kinds[rotary] for kinds in rotations)
        out = attention(
            rotated(q, cos, sin), rotated(k, cos, sin), v,
            mask=mask, window=window, scale=c.attention_scale, softcap=c.attention_softcap,
            cache=cache, dtype=self.dtype,
        )  # fmt: skip
        return self.o(out.reshape(*x_BLD.shape[:2], c.num_heads * c.head_dim))


class MLP(nnx.Module):
    def __init__(self, c: DecoderConfig, dtype, rngs: nnx.Rngs):
        options = {"use_bias": c.mlp_bias, "dtype": dtype, "rngs": rngs}
        self.gate = Linear(c.hidden_size, c.intermediate_size, **options)
        self.up = Linear(c.hidden_size, c.intermediate_size, **options)
        self.down = Linear(c.intermediate_size, c.hidden_size, std=(2 * c.num_layers * c.intermediate_size) ** -0.5, **options)
        self.activation = c.activation

    def __call__(self, x):
        return self.down(ACTIVATIONS[self.activation](self.gate(x)) * self.up(x))


class Layer(nnx.Module):
    """Norms before attention and feed-forward network."""

    Attention: type = Attention
    MLP: type = MLP

    def __init__(self, c: DecoderConfig, dtype, rngs: nnx.Rngs):
        self.norm_attention = RMSNorm(c.hidden_size, c.norm_eps, c.norm_offset)
        self.attention = self.Attention(c, dtype, rngs)
        self.norm_mlp = RMSNorm(c.hidden_size, c.norm_eps, c.norm_offset)
        self.mlp = self.MLP(c, dtype, rngs)

    def __call__(self, x, rotations, mask, *, rotary, window, cache=None):
        x = x + self.attention(self.norm_attention(x), rotations, mask, rotary=rotary, window=window, cache=cache)
        return x + self.mlp(self.norm_mlp(x))


class Decoder(nnx.Module):
    """All of a model but its vocabulary: `x [B, L, D] -> h [B, L, D]`, final norm included.

    dtype: of matrix products. remat: what a backward pass keeps of each layer; see `layers.Remat`.
    """

    Layer: type = Layer

    def __init__(self, config: DecoderConfig, *, dtype=jnp.float32, remat: Remat = "none", rngs: nnx.Rngs):
        self.layers = stack_layers(lambda r: self.Layer(config, dtype, r), config.num_layers, rngs)
        self.norm: Any = RMSNorm(config.hidden_size, config.norm_eps, config.norm_offset)
        self.config, self.dtype, self.remat = config, dtype, remat

    def __call__(self, x_BLD, *, positions_BL=None, mask_BL=None, segments_BL=None, keep_hidden=False, cache=None):
        """Hidden states `[B, L, D]` for input rows `x_BLD`; see `positions_and_mask` for padding and packed sequences.

        With `keep_hidden`, also the input of every layer followed by the output, stacked `[layers + 1, B, L, D]`. With a cache
        of what came before `x_BLD`, also the cache that holds these tokens, too.
        """
        c = self.config
        if c.scaled_inputs:
            # Transformers rounds the factor to the model's dtype, and the models were trained with it rounded.
            x_BLD = x_BLD * jnp.asarray(c.hidden_size**0.5, self.dtype).astype(x_BLD.dtype)
        positions_BL, mask = positions_and_mask(x_BLD, positions_BL, mask_BL, segments_BL, cache)
        everywhere = x_BLD.shape[1] if cache is None else cache.size
        windows = [min(window or everywhere, everywhere) for window in c.layer_windows]
        # Cosines and sines are computed once, not in every layer.
        kinds = list(dict.fromkeys(c.ropes))
        each = [rotation(positions_BL, *_frequencies(found, c, positions_BL)) for found in kinds]
        rotations = tuple(jnp.stack(values) for values in zip(*each))
        same: dict[str, Any] = {}
        per_layer: dict[str, Any] = {}
        if len(set(windows)) == 1:
            same["window"] = windows[0]
        else:
            per_layer["window"] = np.asarray(windows)
        if len(kinds) == 1:
            same["rotary"] = 0
        else:
            per_layer["rotary"] = np.asarray([kinds.index(found) for found in c.ropes])
        x, kept = scan_layers(
            self.layers, x_BLD, rotations, mask, **same,
            per_layer=per_layer, keep_hidden=keep_hidden, remat=self.remat, cache=cache,
        )  # fmt: skip
        return with_kept(self.norm(x), kept, keep_hidden=keep_hidden, cache=cache)


def _frequencies(found: Rope | None, c: DecoderConfig, positions_BL):
    """Inverse frequencies and factor of a layer. Without positions, all frequencies are zero, which rotates nothing."""
    if found is None:
        return np.zeros(c.head_dim // 2, np.float32), 1.0
    return found.frequencies(c.head_dim, c.max_positions, positions_BL)


# ---------------------------------------------------------------------------------------------------------- weights


def projections(module: str, names: dict[str, str], ours: str, spec: tuple, bias: str | bool) -> list[Weight]:
    """Rows of some `Linear`s of each layer. names: Hugging Face's name to ours. spec, bias: as for `dense_rows`."""
    layers = [dense_rows(f"model.layers.{{i}}.{module}.{k}", f"layers.{ours}.{v}", spec, bias=bias) for k, v in names.items()]
    return [row for rows in layers for row in rows]


def layer_norm(key: str, path: str) -> Weight:
    return Weight(f"model.layers.{{i}}.{key}.weight", f"layers.{path}.scale")


ATTENTION_WEIGHTS = [
    *projections("self_attn", {"q_proj": "q", "k_proj": "k", "v_proj": "v"}, "attention", WIDEN, "qkv_bias"),
    *projections("self_attn", {"o_proj": "o"}, "attention", NARROW, "attention_bias"),
]
QK_NORM_WEIGHTS = [
    layer_norm("self_attn.q_norm", "attention.q_norm"),
    layer_norm("self_attn.k_norm", "attention.k_norm"),
]
MLP_WEIGHTS = [
    *projections("mlp", {"gate_proj": "gate", "up_proj": "up"}, "mlp", WIDEN, "mlp_bias"),
    *projections("mlp", {"down_proj": "down"}, "mlp", NARROW, "mlp_bias"),
]
NORM_WEIGHTS = [
    layer_norm("input_layernorm", "norm_attention"),
    layer_norm("post_attention_layernorm", "norm_mlp"),
]
FINAL_NORM = Weight("model.norm.weight", "norm.scale")
# Buffers in old checkpoints; here they are computed.
ROTARY_BUFFERS = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
