"""Losses: pure functions of arrays."""

import functools

import jax
import jax.numpy as jnp

NEG_INF = -1e30


def chunked_cross_entropy(
    h, out_rows, bias, targets, weights, *, num_valid, softcap: float | None = None, chunk: int = 1024, dtype=jnp.float32
):
    """Weighted sum of the negative log-likelihoods of `targets`, in nats, without ever holding all logits.

    h `[N, D]`, out_rows `[V, D]`, bias `[V]` (log-weights or zeros), targets `[N]`, weights `[N]` float32; rows from
    `num_valid` on do not exist. softcap: products become `softcap * tanh(product / softcap)` before the bias.

    Logits exist for `chunk` positions at a time; gradients with respect to `h`, `out_rows` and `bias` are made in the same
    pass, so nothing is computed twice.
    """
    n = h.shape[0]
    padding = -n % chunk
    h = jnp.pad(h, ((0, padding), (0, 0)))
    targets = jnp.pad(targets, (0, padding))
    weights = jnp.pad(weights, (0, padding))
    return _cross_entropy(h, out_rows, bias, targets, weights, num_valid, softcap, chunk, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7, 8))
def _cross_entropy(h, out_rows, bias, targets, weights, num_valid, softcap, chunk, dtype):
    def body(total, xs):
        loss, _ = _chunk_loss(xs, out_rows, bias, num_valid, softcap, dtype)
        return total + loss, None

    return jax.lax.scan(body, jnp.float32(0), _chunks(h, targets, weights, chunk))[0]


def _chunks(h, targets, weights, chunk):
    return h.reshape(-1, chunk, h.shape[-1]), targets.reshape(-1, chunk), weights.reshape(-1, chunk)


def _matmul(a, b, contract, dtype):
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    dimensions = ((contract[:1], contract[1:]), ((), ()))
    return jax.lax.dot_general(
        a.astype(dtype), b.astype(dtype), dimensions, precision=precision, preferred_element_type=jnp.float32
    )


def _chunk_loss(xs, out_rows, bias, num_valid, softcap, dtype):
    h, targets, weights = xs
    products = _matmul(h, out_rows, (1, 1), dtype)
    slope = None
    if softcap is not None:
        saturation = jnp.tanh(products / softcap)
        products, slope = softcap * saturation, 1 - jnp.square(saturation)
    logits = products + bias
    logits = jnp.where(jnp.arange(out_rows.shape[0]) < num_valid, logits, NEG_INF)
    top = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    unnormalised = jnp.exp(logits - top)
    total = unnormalised.sum(-1, keepdims=True)
    chosen = jnp.take_along_axis(logits, targets[:, None], -1)
    nll = (jnp.log(total) + top - chosen)[:, 0]
    return (nll * weights).sum(), (unnormalised, total, slope)


def _cross_entropy_forward(h, out_rows, bias, targets, weights, num_valid, softcap, chunk, dtype):
    def body(carry, xs):
        loss_sum, d_rows, d_bias = carry
        h_c, targets_c, weights_c = xs
        loss, (unnormalised, total, slope) = _chunk_loss(xs, out_rows, bias, num_valid, softcap, dtype)
        d_logits = unnormalised * (weights_c[:, None] / total)
        d_logits = d_logits.at[jnp.arange(chunk), targets_c].add(-weights_c)
        d_products = d_logits if slope is None else d_logits * slope
        d_h = _matmul(d_products, out_rows, (1, 0), dtype)
        d_rows = d_rows + _matmul(d_products, h_c, (0, 0), dtype)
        return (loss_sum + loss, d_rows, d_bias + d_logits.sum(0)), d_h.astype(h.dtype)

    zero = (jnp.float32(0), jnp.zeros(out_rows.shape, jnp.float32), jnp.zeros(bias.shape, jnp.float32))
    (loss, d_rows, d_bias), d_h = jax.lax.scan(body, zero, _chunks(h, targets, weights, chunk))
    return loss, (d_h.reshape(h.shape), d_rows.astype(out_rows.dtype), d_bias.astype(bias.dtype))


def _cross_entropy_backward(softcap, chunk, dtype, residuals, g):
    d_h, d_rows, d_bias = residuals
    return (d_h * g.astype(d_h.dtype), d_rows * g.astype(d_rows.dtype), d_bias * g.astype(d_bias.dtype), None, None, None)


_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)
