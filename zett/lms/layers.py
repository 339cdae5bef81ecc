"""Layers shared by the base-model ports and the hypernetwork.

Shapes are written as suffixes: B batch, L positions, D model width, F feed-forward width, H query heads, N key/value heads,
K head width, V vocabulary rows, S surface-form positions.
"""

import functools
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from zett.errors import UserError
from zett.lms.cache import Cache, LayerCache

# What a backward pass keeps of each layer, so as not to compute it again: everything ("none"), its input alone ("full"), or its
# input and the results of its matrix products ("dots"). "auto": everything on CPUs; elsewhere "dots", since making cheap things
# again takes less than writing them to memory and reading them.
Remat = Literal["auto", "none", "full", "dots"]


def product_dtype(name, where: str = "dtype"):
    """The dtype of matrix products called `name`: "float32", "bfloat16", or "auto": bfloat16 if the hardware multiplies it.

    A CPU without bfloat16 instructions would emulate it, far slower than float32. UserError for another name; `where` is the
    argument that it was given as.
    """
    if name != "auto":
        return _checked_dtype(name, where)
    if jax.default_backend() != "cpu":
        return jnp.dtype(jnp.bfloat16)
    try:
        with open("/proc/cpuinfo") as file:
            flags = file.read()
    except OSError:
        flags = ""
    return jnp.dtype(jnp.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else jnp.float32)


def _checked_dtype(name, where: str):
    try:
        dtype = jnp.dtype(name)
        if dtype.name in ("float32", "bfloat16"):
            return dtype
    except TypeError:
        pass
    raise UserError(f"{where} is {name!r}; it has to be 'float32', 'bfloat16' or 'auto'")


def activation_dtype(name: str, products):
    """The dtype of activations between matrix products: `name`, or for "auto" that of the `products` on accelerators.

    There, bfloat16 halves memory and traffic. On a CPU "auto" is float32, since it would convert back and forth for every
    operation.
    """
    if name != "auto":
        return jnp.dtype(name)
    return jnp.dtype(jnp.float32 if jax.default_backend() == "cpu" else products)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def dot(x, w, dtype):
    """`x [..., I] @ w [I, O] -> [..., O]` with operands in `dtype`, float32 sums, result in `x.dtype`.

    The backward products have operands in `dtype`, too. By itself, JAX would multiply the float32 cotangent with a bfloat16
    operand, which is slower on every backend, and twice as slow on CPUs.
    """
    return _dot_forward(x, w, dtype)[0]


def _product(a, b, dimensions, dtype, result=jnp.float32):
    # float32 means float32: without this a TPU multiplies in bfloat16 and an NVIDIA GPU in TF32.
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    # If operands and result are bfloat16, the hardware still sums in float32. Asking for a bfloat16 result makes what
    # rematerialisation keeps bfloat16, too.
    inside = dtype if result == dtype else jnp.float32
    product = jax.lax.dot_general(
        a.astype(dtype), b.astype(dtype), dimensions, precision=precision, preferred_element_type=inside
    )
    return product.astype(result)


def _dot_forward(x, w, dtype):
    # This does not call `dot`: rematerialisation would not see the product inside of it, and so could not keep it.
    return _product(x, w, (((x.ndim - 1,), (0,)), ((), ())), dtype, x.dtype), (x, w)


def _dot_backward(dtype, residuals, g):
    x, w = residuals
    dx = _product(g, w, (((g.ndim - 1,), (1,)), ((), ())), dtype, x.dtype)
    batch = tuple(range(x.ndim - 1))
    return dx, _product(x, g, ((batch, batch), ((), ())), dtype, w.dtype)


dot.defvjp(_dot_forward, _dot_backward)


class Linear(nnx.Module):
    """Dense layer, kernel stored `[in, out]`; truncated-normal initialisation with standard deviation `std`."""

    def __init__(self, n_in: int, n_out: int, *, dtype, rngs: nnx.Rngs, use_bias: bool = False, std: float | None = None):
        scale = n_in**-0.5 if std is None else std
        self.kernel = nnx.Param(jax.random.truncated_normal(rngs.params(), -2, 2, (n_in, n_out)) * scale)
        self.bias = nnx.Param(jnp.zeros(n_out)) if use_bias else None
        self.dtype = dtype

    def __call__(self, x):
        y = dot(x, self.kernel[...], self.dtype)
        return y if self.bias is None else y + self.bias[...].astype(y.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square normalisation over the last axis, computed in float32; the factor is `offset + scale`."""

    def __init__(self, width: int, eps: float, offset: float = 0.0):
        self.scale = nnx.Param(jnp.full(width, 1.0 - offset))
        self.eps, self.offset = eps, offset

    def __call__(self, x):
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), -1, keepdims=True) + self.eps)
        scale = self.scale[...]
        return (normed * (scale + self.offset if self.offset else scale)).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, computed in float32."""

    def __init__(self, width: int, eps: float, use_bias: bool = True):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width)) if use_bias else None
        self.eps = eps

    def __call__(self, x):
        return layer_norm(x, self.scale[...], None if self.bias is None else self.bias[...], self.eps)


def layer_norm(x, scale, bias, eps):
    x32 = x.astype(jnp.float32)
    centred = x32 - jnp.mean(x32, -1, keepdims=True)
    normed = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + eps)
    return (normed * scale if bias is None else normed * scale + bias).astype(x.dtype)


ACTIVATIONS: dict[str, Callable] = {
    "silu": nnx.silu,
    "swish": nnx.silu,
    "relu": nnx.relu,
    "gelu": functools.partial(nnx.gelu, approximate=False),
    "gelu_new": nnx.gelu,
    "gelu_pytorch_tanh": nnx.gelu,
    "gelu_fast": nnx.gelu,
    "quick_gelu": lambda x: x * nnx.sigmoid(1.702 * x),
}


def check_activation(name: str) -> str:
    """`name` if it is one of ACTIVATIONS; ValueError otherwise."""
    if name not in ACTIVATIONS:
        raise ValueError(f"hidden_act is {name!r}; supported: {', '.join(sorted(ACTIVATIONS))}")
    return name


def rope(x_BLHK, positions_BL, inv_freq, factor=1.0):
    """Rotary position embedding in Hugging Face's half-split layout. Angles are float32, since positions are large numbers.

    inv_freq `[R / 2]`: the first R of the K columns are rotated. factor: of cosines and sines (YaRN, LongRoPE).
    """
    return rotated(x_BLHK, *rotation(positions_BL, inv_freq, factor))


def rotation(positions_BL, inv_freq, factor=1.0):
    """Cosines and sines `[B, L, 1, R / 2]` that `rotated` takes."""
    angles = positions_BL[:, :, None, None].astype(jnp.float32) * inv_freq
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    if not (isinstance(factor, float) and factor == 1.0):
        cos, sin = cos * factor, sin * factor
    return cos, sin


def rotated(x_BLHK, cos, sin):
    """The first R columns of each head, rotated; see `rope`."""
    width = 2 * cos.shape[-1]
    a, b = jnp.split(x_BLHK[..., :width].astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BLHK.dtype)
    return turned if width == x_BLHK.shape[-1] else jnp.concatenate([turned, x_BLHK[..., width:]], -1)


def positions_and_mask(x_BLD, positions_BL=None, mask_BL=None, segments_BL=None, cache: Cache | None = None):
    """Positions `[B, L]` and attention mask `[B, 1, 1 or L, L]` (or None) of a batch, as every body takes them.

    mask_BL is False at padding, which may be on either side; positions then count from the first real token. segments_BL
    numbers the sequences that are packed into a row: each is a run of columns that attends only to itself, and its positions
    count from its start. With a cache, there is neither of them: positions go on from what it holds, and it makes the mask.
    """
    batch = x_BLD.shape[:2]
    if cache is not None:
        if mask_BL is not None or segments_BL is not None:
            raise ValueError("texts that are read with a cache can be neither masked nor packed")
        return (cache.columns(batch[1]) if positions_BL is None else positions_BL), None
    if positions_BL is None:
        index = jnp.broadcast_to(jnp.arange(batch[1]), batch)
        if segments_BL is not None:
            first = jnp.pad(segments_BL[:, 1:] != segments_BL[:, :-1], ((0, 0), (1, 0)))
            positions_BL = index - jax.lax.cummax(jnp.where(first, index, 0), axis=1)
        elif mask_BL is not None:
            positions_BL = jnp.maximum(jnp.cumsum(mask_BL, -1) - 1, 0)
        else:
            positions_BL = index
    mask = None if mask_BL is None else mask_BL[:, None, None, :].astype(bool)
    if segments_BL is not None:
        same = (segments_BL[:, :, None] == segments_BL[:, None, :])[:, None]
        mask = same if mask is None else mask & same
    return positions_BL, mask


def learned_positions(table_PD, positions_BL, segments_BL=None):
    """Rows `[B, L, D]` of a table of learned positions. ValueError for texts that are longer than the table, if shapes tell:
    JAX would give all positions beyond the last one the last row.
    """
    length, most = positions_BL.shape[1], table_PD.shape[0]
    if segments_BL is None and length > most:
        raise ValueError(f"texts of {length} tokens, but the model has positions for {most}")
    return table_PD[positions_BL]


def checkpointed(f, remat: Remat, *, prevent_cse: bool = True):
    """`f`, but a backward pass keeps only what `remat` says, and computes the rest again."""
    if remat == "auto":
        remat = "none" if jax.default_backend() == "cpu" else "dots"
    if remat == "none":
        return f
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if remat == "dots" else None
    return jax.checkpoint(f, policy=policy, prevent_cse=prevent_cse)


# Up to this many layers are unrolled: on CPUs a loop is a fifth slower, and small models compile fast in any case.
UNROLLED = 8


def scan_layers(
    layers, x, *args, per_layer: dict | None = None, keep_hidden: bool = False, remat: Remat = "none",
    cache: Cache | None = None, **kwargs,
):  # fmt: skip
    """Run layers stacked along a leading axis in order; beyond `UNROLLED`, compile time does not grow with their number.

    Every layer is called with `args`, `kwargs` and its slices of the arrays `per_layer`. Returns the last layer's output and,
    if `keep_hidden`, every layer's input stacked `[layers, ...]`; with a cache, whose part every layer gets, the extended cache
    instead of the inputs.
    """
    graphdef, state = nnx.split(layers)
    number = jax.tree.leaves(state)[0].shape[0]

    def step(x, slices):
        layer_state, own, kept = slices
        layer = nnx.merge(graphdef, layer_state)
        if cache is None:
            return layer(x, *args, **kwargs, **own), (x if keep_hidden else None)
        part = LayerCache(kept[0], kept[1], cache.used)
        return layer(x, *args, **kwargs, **own, cache=part), (part.keys, part.values)

    # In unrolled layers, the compiler would merge equal computations and so undo the recomputation; in a loop it cannot.
    step = checkpointed(step, remat, prevent_cse=number <= UNROLLED)
    kept = None if cache is None else (cache.keys, cache.values)
    xs = (state, per_layer or {}, kept)
    # With a cache, most steps read one token, and their time goes into reading weights: unrolled, three times as much on a CPU.
    unroll = number if number <= UNROLLED and cache is None else 1
    x, ys = jax.lax.scan(step, x, xs, unroll=unroll)
    return x, (ys if cache is None else Cache(ys[0], ys[1], cache.used + x.shape[1]))


def with_kept(h, kept, *, keep_hidden: bool, cache: Cache | None):
    """What a body returns: `h`, with all hidden states or the extended cache (`kept`, from `scan_layers`) where asked for."""
    if cache is not None:
        return h, kept
    return (h, jnp.concatenate([kept, h[None]])) if keep_hidden else h


def stack_layers(make, number: int, rngs: nnx.Rngs):
    """Build `number` layers with parameters stacked along a leading axis."""

    @nnx.split_rngs(splits=number)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs):
        return make(rngs)

    return create(rngs)
