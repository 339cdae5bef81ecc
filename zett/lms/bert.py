"""BERT: a bidirectional encoder with learned positions and post-norm layers, with or without its masked-LM head.

The head's transform is part of the body, its bias part of the table. Reference: Transformers' `modeling_bert.py`; parity is
tested in `tests/lms/test_encoders.py`.
"""

import dataclasses
import functools
from typing import ClassVar, Self

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
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class BertConfig(BodyConfig):
    """Shape of a BERT body.

    first_position: row of the position table that a text's first token gets.
    """

    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    activation: str = "gelu"
    head_activation: str = "gelu"
    norm_eps: float = 1e-12
    max_positions: int = 512
    first_position: int = 0
    type_vocab_size: int = 2

    causal: ClassVar[bool] = False

    @classmethod
    def from_hf(cls, hf: dict) -> Self:
        positions = hf.get("position_embedding_type", "absolute")
        if positions != "absolute":
            raise ValueError(f"position_embedding_type is {positions!r}; only 'absolute' positions are computed here")
        for switch in ("is_decoder", "add_cross_attention"):
            if hf.get(switch):
                raise ValueError(f"{switch} is true; only bidirectional encoders are computed here")
        return cls(
            hidden_size=hf["hidden_size"],
            num_layers=hf["num_hidden_layers"],
            num_heads=hf["num_attention_heads"],
            intermediate_size=hf["intermediate_size"],
            activation=check_activation(hf.get("hidden_act", "gelu")),
            head_activation=hf.get("hidden_act", "gelu"),
            norm_eps=hf.get("layer_norm_eps", 1e-12),
            max_positions=hf.get("max_position_embeddings", 512),
            type_vocab_size=hf.get("type_vocab_size", 2),
        )


class Layer(nnx.Module):
    def __init__(self, c: BertConfig, dtype, rngs: nnx.Rngs):
        linear = functools.partial(Linear, use_bias=True, dtype=dtype, rngs=rngs)
        self.q = linear(c.hidden_size, c.hidden_size)
        self.k = linear(c.hidden_size, c.hidden_size)
        self.v = linear(c.hidden_size, c.hidden_size)
        self.o = linear(c.hidden_size, c.hidden_size)
        self.norm_attention = LayerNorm(c.hidden_size, c.norm_eps)
        self.up = linear(c.hidden_size, c.intermediate_size)
        self.down = linear(c.intermediate_size, c.hidden_size)
        self.norm_mlp = LayerNorm(c.hidden_size, c.norm_eps)
        self.config, self.dtype = c, dtype

    def __call__(self, x, mask):
        c = self.config
        heads = (*x.shape[:2], c.num_heads, c.head_dim)
        q, k, v = (project(x).reshape(heads) for project in (self.q, self.k, self.v))
        out = attention(q, k, v, mask=mask, causal=False, dtype=self.dtype)
        x = self.norm_attention(x + self.o(out.reshape(x.shape)))
        return self.norm_mlp(x + self.down(ACTIVATIONS[c.activation](self.up(x))))


class Head(nnx.Module):
    """The layers between the encoder and the output rows of a masked LM."""

    def __init__(self, c, dtype, rngs: nnx.Rngs, *, dense_bias: bool = True, norm_bias: bool = True):
        self.dense = Linear(c.hidden_size, c.hidden_size, use_bias=dense_bias, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(c.hidden_size, c.norm_eps, norm_bias)
        self.activation = c.head_activation

    def __call__(self, x):
        return self.norm(ACTIVATIONS[self.activation](self.dense(x)))


class BertBody(nnx.Module):
    """All of a BERT model but its vocabulary: `x [B, L, D] -> h [B, L, D]`; every token is of type 0."""

    def __init__(self, config: BertConfig, *, dtype=jnp.float32, remat: Remat = "none", rngs: nnx.Rngs):
        c = config
        self.positions = nnx.Param(0.02 * jax.random.normal(rngs.params(), (c.max_positions, c.hidden_size)))
        self.token_types = nnx.Param(0.02 * jax.random.normal(rngs.params(), (c.type_vocab_size, c.hidden_size)))
        self.norm = LayerNorm(c.hidden_size, c.norm_eps)
        self.layers = stack_layers(lambda r: Layer(c, dtype, r), c.num_layers, rngs)
        self.head = Head(c, dtype, rngs) if c.head else None
        self.config, self.remat = c, remat

    def __call__(self, x_BLD, *, positions_BL=None, mask_BL=None, segments_BL=None, keep_hidden=False):
        """Hidden states `[B, L, D]` for input rows `x_BLD`: what the output rows multiply, or the encoder's if it has no head.

        mask_BL, segments_BL and default positions: see `positions_and_mask`; positions count from 0. With `keep_hidden`, also
        the input of every layer followed by the encoder's output, stacked `[layers + 1, B, L, D]`.
        """
        positions_BL, mask = positions_and_mask(x_BLD, positions_BL, mask_BL, segments_BL)
        positions = learned_positions(self.positions[self.config.first_position :], positions_BL, segments_BL)
        x = self.norm(x_BLD + self.token_types[...][0] + positions).astype(x_BLD.dtype)
        x, inputs = scan_layers(self.layers, x, mask, keep_hidden=keep_hidden, remat=self.remat)
        h = x if self.head is None else self.head(x)
        return (h, jnp.concatenate([inputs, x[None]])) if keep_hidden else h


def encoder_rows(prefix: str) -> list[Weight]:
    """The table of weights of a BERT or RoBERTa encoder whose tensors' names begin with `prefix`."""
    layer, attended = f"{prefix}encoder.layer.{{i}}", f"{prefix}encoder.layer.{{i}}.attention"
    return [
        Weight(f"{prefix}embeddings.position_embeddings.weight", "positions", spec=(None, "fsdp")),
        Weight(f"{prefix}embeddings.token_type_embeddings.weight", "token_types", spec=(None, "fsdp")),
        *norm_rows(f"{prefix}embeddings.LayerNorm", "norm"),
        *dense_rows(f"{attended}.self.query", "layers.q", WIDEN),
        *dense_rows(f"{attended}.self.key", "layers.k", WIDEN),
        *dense_rows(f"{attended}.self.value", "layers.v", WIDEN),
        *dense_rows(f"{attended}.output.dense", "layers.o", NARROW),
        *norm_rows(f"{attended}.output.LayerNorm", "layers.norm_attention"),
        *dense_rows(f"{layer}.intermediate.dense", "layers.up", WIDEN),
        *dense_rows(f"{layer}.output.dense", "layers.down", NARROW),
        *norm_rows(f"{layer}.output.LayerNorm", "layers.norm_mlp"),
    ]


def head_rows(dense: str, norm: str) -> list[Weight]:
    """The table of weights of a masked-LM head's transform."""
    rows = dense_rows(dense, "head.dense", WIDEN) + norm_rows(norm, "head.norm")
    return [dataclasses.replace(row, when="head") for row in rows]


# The first checkpoints have TensorFlow's names.
RENAMED = {r"LayerNorm\.gamma$": "LayerNorm.weight", r"LayerNorm\.beta$": "LayerNorm.bias"}

FAMILY = Family(
    model_types=("bert",),
    Config=BertConfig,
    Body=BertBody,
    weights=(
        *encoder_rows("bert."),
        *head_rows("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm"),
    ),
    input_rows="bert.embeddings.word_embeddings.weight",
    output_rows="cls.predictions.decoder.weight",
    bias="cls.predictions.bias",
    copies={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    prefix="bert.",
    head="cls.predictions.",
    renamed=RENAMED,
    # Buffers, and heads of other tasks: copied, but not computed.
    ignored=(r"bert\.embeddings\.position_ids", r"bert\.pooler\..*", r"cls\.seq_relationship\..*", r"classifier\..*"),
    tied_default=True,
)
