"""Attention, by XLA or by cuDNN's kernels."""

import contextlib
import contextvars
import re
from typing import Literal

import jax
import jax.numpy as jnp

from zett.errors import UserError
from zett.lms.cache import LayerCache

Attention = Literal["auto", "xla", "cudnn"]

# What computes attention while a step is traced: a setting, and the compute capability of the GPU that the step is planned for.
_ATTENTION: contextvars.ContextVar[tuple[str, float | None]] = contextvars.ContextVar("attention", default=("auto", None))


@contextlib.contextmanager
def attention_by(setting: Attention, planned: float | None = None):
    """Within this, `attention` is computed by XLA or cuDNN as `setting` says.

    planned: a compute capability; what is traced within then has the shapes of a run on such a GPU, and is not to be run.
    """
    token = _ATTENTION.set((setting, planned))
    try:
        yield
    finally:
        _ATTENTION.reset(token)


def attention(
    q_BLHK, k_BLNK, v_BLNK, *, mask=None, causal=True, window=None, scale=None, softcap=None,
    cache: LayerCache | None = None, dtype,
):  # fmt: skip
    """Attention `[B, L, H, K]` with operands in `dtype` and the softmax in float32.

    mask: broadcastable to `[B, 1 or H, L, L]`, True where a query may look; causality is added here. window: counted as in
    Transformers, where a query sees keys less than `window` back if causal, else at most `window` away; it may be a traced
    scalar. scale: factor of the logits (None: `K ** -0.5`). softcap: logits become `softcap * tanh(logits / softcap)`.
    cache: what came before these tokens, if they go on from there; it gets their keys and values.
    On NVIDIA GPUs, cuDNN's flash attention is used if it takes these arguments; see `attention_by`.
    """
    length = q_BLHK.shape[1]
    if cache is not None:
        # There are more keys than queries, so all that a query may see is said by the mask.
        k_BLNK, v_BLNK = cache.extend(k_BLNK, v_BLNK)
        mask, causal, window = cache.mask(length, window), False, None
    dtype = jnp.dtype(dtype)
    q, k, v = (x.astype(dtype) for x in (q_BLHK, k_BLNK, v_BLNK))
    if isinstance(window, int) and window >= length:
        window = None
    # cuDNN takes a causal window as a number, and then skips the blocks outside of it.
    counted = causal and isinstance(window, int)
    masked = mask is not None or (window is not None and not counted)
    cudnn = cache is None and by_cudnn(dtype, q.shape[-1], length, masked, softcap)
    if window is not None and not (cudnn and counted):
        back = jnp.arange(length)[:, None] - jnp.arange(length)
        near = (back < window if causal else jnp.abs(back) <= window)[None, None]
        mask = near if mask is None else mask & near
    # float32 means float32: without this a TPU multiplies in bfloat16 and an NVIDIA GPU in TF32.
    exact = jax.default_matmul_precision("highest") if dtype == jnp.float32 else contextlib.nullcontext()
    with exact:
        if softcap is not None:
            out = _softcapped_attention(q, k, v, mask, causal, scale, softcap)
        elif cudnn and _ATTENTION.get()[1] is not None:
            out = _planned_attention(q, k, v)
        elif cudnn:
            out = jax.nn.dot_product_attention(
                q, k, v, mask=None if mask is None else jnp.broadcast_to(mask, (*mask.shape[:2], length, length)),
                is_causal=causal, scale=scale, local_window_size=(window - 1, 0) if counted else None, implementation="cudnn",
            )  # fmt: skip
        else:
            out = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, scale=scale)
    return out.astype(q_BLHK.dtype)


def by_cudnn(dtype, width: int, length: int, masked: bool, softcap: float | None = None) -> bool:
    """Whether cuDNN computes the attention of heads of `width` on `length` positions. UserError if it is told to and cannot."""
    setting, planned = _ATTENTION.get()
    if setting == "xla":
        return False
    capability = _compute_capability() if planned is None else planned
    if softcap is not None:
        reason = "logits with a soft cap"
    else:
        reason = cudnn_refuses(capability, dtype, width, length, masked=masked)
    if reason and setting == "cudnn":
        raise UserError(f"config.train.attention is 'cudnn', which does not take {reason}; 'auto' takes XLA's there")
    return not reason


def _compute_capability() -> float:
    """Of the NVIDIA GPU that is computed on; 0 elsewhere."""
    if jax.default_backend() != "gpu":
        return 0.0
    name = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    return float(name) if re.fullmatch(r"\d+\.\d+", name) else 0.0  # AMD's have other names


def cudnn_refuses(capability: float, dtype, width: int, length: int, *, masked: bool) -> str:
    """For what reason cuDNN's flash attention has no kernel, forward and backward, for heads of `width`; "" if it has.

    The conditions are those of jax._src.cudnn.
    """
    most = 256 if capability >= 9 else 128
    if capability < 8:
        return "other devices than NVIDIA GPUs from compute capability 8.0 on"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"products in {dtype.name}"
    if width % 8 or width > most:
        return f"heads of width {width}: a multiple of 8 up to {most} is needed"
    return f"texts of {length} tokens, an odd number, with a mask" if masked and length % 2 else ""


@jax.custom_vjp
def _planned_attention(q, k, v):
    """The shapes of cuDNN's attention, for plans: machines that have no cuDNN cannot trace it."""
    return jnp.zeros_like(q)


def _planned_forward(q, k, v):
    sums = jnp.zeros((q.shape[0], q.shape[2], q.shape[1]), jnp.float32)  # logarithms of the softmax's sums
    out = jnp.zeros_like(q)
    return out, (q, k, v, out, sums)


_planned_attention.defvjp(_planned_forward, lambda residuals, g: residuals[:3])


def _softcapped_attention(q_BLHK, k_BLNK, v_BLNK, mask, causal, scale, softcap):
    b, length, heads, width = q_BLHK.shape
    groups = k_BLNK.shape[2]
    q = q_BLHK.reshape(b, length, groups, heads // groups, width)
    logits = jnp.einsum("blngk,bmnk->bnglm", q, k_BLNK, preferred_element_type=jnp.float32)
    logits = softcap * jnp.tanh(logits * ((width**-0.5 if scale is None else scale) / softcap))
    allowed = jnp.tril(jnp.ones((length, length), bool))[None, None] if causal else jnp.ones((1, 1, 1, k_BLNK.shape[1]), bool)
    allowed = allowed if mask is None else allowed & mask
    # One mask for all heads, or one for each query head.
    allowed = allowed[:, :, None] if allowed.shape[1] == 1 else allowed.reshape(-1, groups, heads // groups, *allowed.shape[2:])
    # Not minus infinity, so that a query which may look nowhere gets numbers instead of NaN.
    logits = jnp.where(allowed, logits, -0.7 * jnp.finfo(jnp.float32).max)
    probabilities = jax.nn.softmax(logits, -1).astype(q_BLHK.dtype)
    return jnp.einsum("bnglm,bmnk->blngk", probabilities, v_BLNK).reshape(q_BLHK.shape)
