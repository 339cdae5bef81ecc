"""Losses: pure functions of arrays."""

import functools

import jax
import jax.numpy as jnp

NEG_INF = -1e30


def chunked_cross_entropy(
    h, out_rows, bias, targets, weights, *, num_valid, softcap: float | None = None, chunk: int = 1024, dtype=jnp.float32
):
    """Weighted sum of the negative log-likelihoods of `targets`, in nats, without ever holding all logits.

    h `[N, D]` or `[B, L, D]`, out_rows `[V, D]`, bias `[V]` (log-weights or zeros), targets and weights (float32) `[N]` or
    `[B, L]`; rows from `num_valid` on do not exist. softcap: product `p` becomes `softcap * tanh(p / softcap)`, then the bias
    is added.

    Logits exist for about `chunk` positions at a time. Gradients with respect to `h`, `out_rows` and `bias` are computed in the
    same pass, so nothing is computed twice. Each chunk holds some positions of every row of a batch: a device has only some of
    the rows, and so it has work in every chunk.
    """
    if h.ndim == 2:
        h, targets, weights = h[None], targets[None], weights[None]
    cut, _ = _cutting(targets.shape, chunk)
    return _cross_entropy(cut(h), out_rows, bias, cut(targets), cut(weights), num_valid, softcap, dtype)


def token_nats(h, out_rows, bias, targets, *, num_valid, softcap: float | None = None, chunk: int = 1024, dtype=jnp.float32):
    """The negative log-likelihood of each of `targets [B, L]`, in nats; arguments as of `chunked_cross_entropy`.

    For losses that are no weighted sum of these: their gradient says only afterwards how much each of them counts, so it takes
    the logits a second time.
    """
    cut, whole = _cutting(targets.shape, chunk)
    return whole(_token_nats(cut(h), out_rows, bias, cut(targets), num_valid, softcap, dtype))


def _cutting(shape: tuple[int, int], chunk: int):
    """From arrays `[B, L, ...]` to chunks `[chunks, positions, ...]`, and from numbers by chunk and position back."""
    batch, length = shape
    size = min(max(chunk // batch, 1), length)

    def cut(x):
        x = jnp.pad(x, ((0, 0), (0, -length % size)) + ((0, 0),) * (x.ndim - 2))
        x = x.reshape(batch, -1, size, *x.shape[2:]).swapaxes(0, 1)
        return x.reshape(x.shape[0], batch * size, *x.shape[3:])

    def whole(x):
        return x.reshape(-1, batch, size).swapaxes(0, 1).reshape(batch, -1)[:, :length]

    return cut, whole


LOGITS = 2**29  # bytes of logits, float32, that are in an accelerator's memory at a time; with their gradient three times that


def chunk_of(setting: int, rows: int, *, cpu: bool) -> int:
    """How many positions have their logits in memory at a time, over `rows` rows: `setting`, or if that is 0 what is best.

    On a CPU few, which fit its caches. An accelerator adds the gradient of the rows up once a chunk, so the fewer the better.
    """
    return setting or (1024 if cpu else max(1024, 1 << max(LOGITS // (4 * max(rows, 1)), 1).bit_length() - 1))


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def _cross_entropy(h, out_rows, bias, targets, weights, num_valid, softcap, dtype):
    """h `[chunks, positions, D]`, targets and weights `[chunks, positions]`."""

    def body(total, xs):
        loss, _ = _chunk_loss(xs, out_rows, bias, num_valid, softcap, dtype)
        return total + loss, None

    return jax.lax.scan(body, jnp.float32(0), (h, targets, weights))[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _token_nats(h, out_rows, bias, targets, num_valid, softcap, dtype):
    """`[chunks, positions]`."""
    return jax.lax.map(lambda xs: _chunk_nats(xs[0], xs[1], out_rows, bias, num_valid, softcap, dtype)[0], (h, targets))


def _matmul(a, b, contract, dtype):
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None
    dimensions = ((contract[:1], contract[1:]), ((), ()))
    return jax.lax.dot_general(
        a.astype(dtype), b.astype(dtype), dimensions, precision=precision, preferred_element_type=jnp.float32
    )


def _chunk_loss(xs, out_rows, bias, num_valid, softcap, dtype):
    h, targets, weights = xs
    nll, rest = _chunk_nats(h, targets, out_rows, bias, num_valid, softcap, dtype)
    return (nll * weights).sum(), rest


def _chunk_nats(h, targets, out_rows, bias, num_valid, softcap, dtype):
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
    return (jnp.log(total) + top - chosen)[:, 0], (unnormalised, total, slope)


def _cross_entropy_forward(h, out_rows, bias, targets, weights, num_valid, softcap, dtype):
    def body(carry, xs):
        loss_sum, d_rows, d_bias = carry
        h_c, targets_c, weights_c = xs
        loss, (unnormalised, total, slope) = _chunk_loss(xs, out_rows, bias, num_valid, softcap, dtype)
        # Compared instead of indexed: a scatter would be one more pass over all logits, this is part of the one that is made.
        chosen = targets_c[:, None] == jnp.arange(out_rows.shape[0])
        d_logits = unnormalised * (weights_c[:, None] / total) - jnp.where(chosen, weights_c[:, None], 0)
        d_products = d_logits if slope is None else d_logits * slope
        d_h = _matmul(d_products, out_rows, (1, 0), dtype)
        d_rows = d_rows + _matmul(d_products, h_c, (0, 0), dtype)
        return (loss_sum + loss, d_rows, d_bias + d_logits.sum(0)), d_h.astype(h.dtype)

    zero = (jnp.float32(0), jnp.zeros(out_rows.shape, jnp.float32), jnp.zeros(bias.shape, jnp.float32))
    (loss, d_rows, d_bias), d_h = jax.lax.scan(body, zero, (h, targets, weights))
    return loss, (d_h, d_rows.astype(out_rows.dtype), d_bias.astype(bias.dtype))


def _cross_entropy_backward(softcap, dtype, residuals, g):
    d_h, d_rows, d_bias = residuals
    return (d_h * g.astype(d_h.dtype), d_rows * g.astype(d_rows.dtype), d_bias * g.astype(d_bias.dtype), None, None, None)


_cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def _token_nats_forward(h, out_rows, bias, targets, num_valid, softcap, dtype):
    kept = (h, out_rows, bias, targets, num_valid)
    return _token_nats(*kept, softcap, dtype), kept


def _token_nats_backward(softcap, dtype, kept, g):
    h, out_rows, bias, targets, num_valid = kept
    # The gradient of a sum whose weights are those that each number counts with.
    _, (d_h, d_rows, d_bias) = _cross_entropy_forward(h, out_rows, bias, targets, g, num_valid, softcap, dtype)
    return d_h, d_rows, d_bias, None, None


_token_nats.defvjp(_token_nats_forward, _token_nats_backward)


# ----------------------------------------------------------------------------------------------- gradient accumulation


def summed(f, trained, constants, batch, number: int):
    """Sum of `f(trained, constants, part)`, a scalar, over `number` parts of the rows of all arrays in `batch`; see below."""

    def alone(trained, constants, part):
        return f(trained, constants, part), ()

    return summed_with(alone, trained, constants, batch, number)[0]


def summed_with(f, trained, constants, batch, number: int):
    """Sums of both results of `f(trained, constants, part)`, a scalar and a tree of scalars, over `number` parts of `batch`.

    The second have no gradient. A part has a share of the rows of all arrays in the batch.

    Gradients with respect to `trained` (a pytree; integers in it, such as a table's number of rows, have none) are computed in
    the same pass. So only the activations of one part exist at a time, and nothing is computed twice. Each part takes rows from
    everywhere in the batch, so that every device has work in it.
    """
    if number == 1:
        total, others = f(trained, constants, batch)
        return total, jax.lax.stop_gradient(others)
    parts = in_parts(batch, number)
    leaves, structure = jax.tree.flatten(trained)
    floats = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]

    def of_floats(values, others_and_constants, part):
        others, constants = others_and_constants
        whole = [None if i in floats else leaf for i, leaf in enumerate(others)]
        for i, value in zip(floats, values):
            whole[i] = value
        return f(jax.tree.unflatten(structure, whole), constants, part)

    others = [0.0 if i in floats else leaf for i, leaf in enumerate(leaves)]
    return _summed(of_floats, [leaves[i] for i in floats], (others, constants), parts)


def in_parts(batch, number: int):
    """All arrays `[B, ...]` as `[number, B / number, ...]`, for a loop over the parts; `from_parts` is the reverse."""
    return jax.tree.map(lambda rows: rows.reshape(-1, number, *rows.shape[1:]).swapaxes(0, 1), batch)


def from_parts(parts):
    return jax.tree.map(lambda rows: rows.swapaxes(0, 1).reshape(-1, *rows.shape[2:]), parts)


def _nothing(f, x, constants, parts):
    """Zeros of the shape of what `f` gives of a part."""
    found = jax.eval_shape(f, x, constants, jax.tree.map(lambda rows: rows[0], parts))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), found)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(f, x, constants, parts):
    def body(sums, part):
        return jax.tree.map(jnp.add, sums, f(x, constants, part)), None

    return jax.lax.scan(body, _nothing(f, x, constants, parts), parts)[0]


def _summed_forward(f, x, constants, parts):
    def body(sums, part):
        return jax.tree.map(jnp.add, sums, jax.value_and_grad(f, has_aux=True)(x, constants, part)), None

    start = (_nothing(f, x, constants, parts), jax.tree.map(jnp.zeros_like, x))
    return jax.lax.scan(body, start, parts)[0]


def _summed_backward(f, gradient, g):
    return jax.tree.map(lambda part: part * g[0], gradient), None, None


_summed.defvjp(_summed_forward, _summed_backward)
