"""Layers shared by the base-model ports and the hypernetwork.

Shapes are written as suffixes: B batch, L positions, D model width, F feed-forward width, H query heads, N key/value heads,
K head width, V vocabulary rows, S surface-form positions.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx


def product_dtype(name: str):
    """The dtype of matrix products called `name`: "float32", "bfloat16", or "auto", bfloat16 where the hardware multiplies it.

    On a CPU without bfloat16 instructions it would be emulated, far slower than float32.
    """
    if name != "auto":
        return jnp.dtype(name)
    if jax.default_backend() != "cpu":
        return jnp.dtype(jnp.bfloat16)
    try:
        with open("/proc/cpuinfo") as file:
            flags = file.read()
    except OSError:
        flags = ""
    return jnp.dtype(jnp.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def dot(x, w, dtype):
    """`x [..., I] @ w [I, O] -> [..., O]` with operands in `dtype`, float32 sums, result in `x.dtype`.

    The backward products run with the same operand type: left to itself JAX would multiply the float32 cotangent with
    mixed operands, which is slower on every backend and twice as slow on CPUs.
    """
    return _product(x, w, (((x.ndim - 1,), (0,)), ((), ())), dtype).astype(x.dtype)


def _product(a, b, dimensions, dtype):
    # float32 means float32: without this a TPU multiplies in bfloat16 and an NVIDIA GPU in TF32.
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    return jax.lax.dot_general(
        a.astype(dtype), b.astype(dtype), dimensions, precision=precision, preferred_element_type=jnp.float32
    )


def _dot_forward(x, w, dtype):
    return dot(x, w, dtype), (x, w)


def _dot_backward(dtype, residuals, g):
    x, w = residuals
    dx = _product(g, w, (((g.ndim - 1,), (1,)), ((), ())), dtype)
    batch = tuple(range(x.ndim - 1))
    dw = _product(x, g, ((batch, batch), ((), ())), dtype)
    return dx.astype(x.dtype), dw.astype(w.dtype)


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
    """Root-mean-square normalisation over the last axis, computed in float32."""

    def __init__(self, width: int, eps: float):
        self.scale = nnx.Param(jnp.ones(width))
        self.eps = eps

    def __call__(self, x):
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), -1, keepdims=True) + self.eps)
        return (normed * self.scale[...]).astype(x.dtype)


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis, computed in float32."""

    def __init__(self, width: int, eps: float):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width))
        self.eps = eps

    def __call__(self, x):
        x32 = x.astype(jnp.float32)
        centred = x32 - jnp.mean(x32, -1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), -1, keepdims=True) + self.eps)
        return (normed * self.scale[...] + self.bias[...]).astype(x.dtype)


def rope(x_BLHK, positions_BL, inv_freq):
    """Rotary position embedding in the half-split layout of Hugging Face; angles in float32 because positions are large."""
    angles = positions_BL[:, :, None, None].astype(jnp.float32) * inv_freq
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x_BLHK.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1).astype(x_BLHK.dtype)


def attention(q_BLHK, k_BLNK, v_BLNK, *, mask=None, dtype):
    """Causal attention; `mask` [B, 1 or H, L, L] is True where a query may look (causality is added here)."""
    out = jax.nn.dot_product_attention(
        q_BLHK.astype(dtype), k_BLNK.astype(dtype), v_BLNK.astype(dtype), mask=mask, is_causal=True
    )
    return out.astype(q_BLHK.dtype)


# Up to this many layers are unrolled: on CPUs a loop costs a fifth of the speed, and small models compile fast either way.
UNROLLED = 8


def scan_layers(layers, x, *args, keep_hidden: bool = False):
    """Run layers stacked along a leading axis in order; beyond `UNROLLED`, compile time does not grow with their number.

    Returns the last layer's output and, if `keep_hidden`, every layer's input stacked `[layers, ...]`.
    """
    graphdef, state = nnx.split(layers)

    def step(x, layer_state):
        return nnx.merge(graphdef, layer_state)(x, *args), (x if keep_hidden else None)

    number = jax.tree.leaves(state)[0].shape[0]
    return jax.lax.scan(step, x, state, unroll=number if number <= UNROLLED else 1)


def stack_layers(make, number: int, rngs: nnx.Rngs):
    """Build `number` layers with parameters stacked along a leading axis."""

    @nnx.split_rngs(splits=number)
    @nnx.vmap(in_axes=0, out_axes=0)
    def create(rngs):
        return make(rngs)

    return create(rngs)
