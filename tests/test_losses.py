"""The chunked cross-entropy against plain log_softmax: value and every gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zett.losses import chunked_cross_entropy, summed, summed_with, token_nats
from zett.table import EmbeddingTable


def reference(h, rows, bias, targets, weights, num_valid, softcap=None):
    products = jnp.matmul(h, rows.T, precision="highest")
    logits = ((products if softcap is None else softcap * jnp.tanh(products / softcap)) + bias)[:, :num_valid]
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], 1)[:, 0]
    return (nll * weights).sum()


def problem(n=23, d=6, v=11, num_valid=9, seed=0):
    rng = np.random.default_rng(seed)
    h, rows, bias = rng.normal(size=(n, d)), rng.normal(size=(v, d)), rng.normal(size=v)
    weights = rng.random(n) * (rng.random(n) > 0.3)
    arrays = [jnp.asarray(x, jnp.float32) for x in (h, rows, bias, weights)]
    return *arrays, jnp.asarray(rng.integers(0, num_valid, n)), num_valid


@pytest.mark.parametrize(
    ("chunk", "softcap"), [(4, None), (23, None), (64, None), (4, 1.5)]
)  # a chunk that does not divide n, is n, exceeds n
def test_value_and_gradients(chunk, softcap):
    h, rows, bias, weights, targets, num_valid = problem()

    def ours(h, rows, bias):
        loss = functools.partial(chunked_cross_entropy, num_valid=num_valid, softcap=softcap, chunk=chunk)
        return 3 * loss(h, rows, bias, targets, weights)

    def theirs(h, rows, bias):
        return 3 * reference(h, rows, bias, targets, weights, num_valid, softcap)

    value, grads = jax.value_and_grad(ours, (0, 1, 2))(h, rows, bias)
    expected, expected_grads = jax.value_and_grad(theirs, (0, 1, 2))(h, rows, bias)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for grad, wanted in zip(grads, expected_grads):
        np.testing.assert_allclose(grad, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours(h, rows, bias), value, rtol=1e-6)  # without a gradient it is another function


def test_rows_beyond_num_valid_do_not_matter():
    h, rows, bias, weights, targets, num_valid = problem()

    def loss(rows, bias):
        return chunked_cross_entropy(h, rows, bias, targets, weights, num_valid=num_valid, chunk=8)

    d_rows, d_bias = jax.grad(loss, (0, 1))(rows, bias)
    assert not np.any(d_rows[num_valid:]) and not np.any(d_bias[num_valid:])
    np.testing.assert_allclose(loss(rows.at[num_valid:].set(1e4), bias), loss(rows, bias), rtol=1e-6)


def test_num_valid_may_be_traced():
    h, rows, bias, weights, targets, num_valid = problem()
    loss = jax.jit(lambda n: chunked_cross_entropy(h, rows, bias, targets, weights, num_valid=n, chunk=8))
    np.testing.assert_allclose(loss(num_valid), reference(h, rows, bias, targets, weights, num_valid), rtol=1e-5)


def test_weight_zero_is_absence():
    h, rows, bias, weights, targets, num_valid = problem()
    kept = np.flatnonzero(weights)
    assert len(kept) < len(weights)
    whole = chunked_cross_entropy(h, rows, bias, targets, weights, num_valid=num_valid, chunk=8)
    part = chunked_cross_entropy(h[kept], rows, bias, targets[kept], weights[kept], num_valid=num_valid, chunk=8)
    np.testing.assert_allclose(whole, part, rtol=1e-5)


def test_large_logits_stay_finite():
    h, rows, bias, weights, targets, num_valid = problem()
    value, grad = jax.value_and_grad(
        lambda h: chunked_cross_entropy(h, rows, bias, targets, weights, num_valid=num_valid, chunk=8)
    )(1e4 * h)
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_bfloat16_is_close():
    h, rows, bias, weights, targets, num_valid = problem()
    value, grad = jax.value_and_grad(
        lambda h: chunked_cross_entropy(h, rows, bias, targets, weights, num_valid=num_valid, chunk=8, dtype=jnp.bfloat16)
    )(h)
    expected = reference(h, rows, bias, targets, weights, num_valid)
    assert value.dtype == grad.dtype == jnp.float32
    np.testing.assert_allclose(value, expected, rtol=0.02)
    np.testing.assert_allclose(
        grad, jax.grad(reference)(h, rows, bias, targets, weights, num_valid), atol=0.05
    )  # bfloat16 has three digits


@pytest.mark.parametrize("number", [1, 2, 6])
def test_a_sum_over_parts_is_the_sum_over_all(number):
    rng = np.random.default_rng(0)
    x = {"w": jnp.asarray(rng.normal(size=(4, 3)), jnp.float32), "b": jnp.asarray(rng.normal(size=3), jnp.float32)}
    batch = {"rows": jnp.asarray(rng.normal(size=(12, 4)), jnp.float32), "weights": jnp.arange(12.0)}

    def f(x, scale, batch):
        return (jnp.tanh(scale * batch["rows"] @ x["w"] + x["b"]).sum(-1) * batch["weights"]).sum()

    wanted, wanted_gradient = jax.value_and_grad(f)(x, 2.0, batch)
    ours = jax.jit(jax.value_and_grad(lambda x: 3 * summed(f, x, 2.0, batch, number)))
    value, gradient = ours(x)
    np.testing.assert_allclose(value, 3 * wanted, rtol=1e-5)
    np.testing.assert_allclose(summed(f, x, 2.0, batch, number), wanted, rtol=1e-5)  # without a gradient
    jax.tree.map(lambda g, w: np.testing.assert_allclose(g, 3 * w, rtol=1e-4, atol=1e-4), gradient, wanted_gradient)


@pytest.mark.parametrize("number", [2, 3])
def test_a_sum_over_parts_with_a_table(number):
    """Its number of rows is an integer, which has no gradient and may be traced. It is tied, and stays so."""
    rng = np.random.default_rng(0)
    rows, bias = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((7, 4), (7,)))
    batch = {"ids": jnp.asarray(rng.integers(0, 5, 12)), "weights": jnp.arange(12.0)}

    def nats(table, scale, batch):
        assert table.output is None
        logits = table.unembed(scale * table.embed(batch["ids"]))
        return -(jax.nn.log_softmax(logits)[:, 1] * batch["weights"]).sum()

    def loss(rows, bias, num_valid, number):
        return summed(nats, EmbeddingTable(rows, None, bias, num_valid), 0.5, batch, number)

    run = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=3)
    for valid in (5, 7):
        wanted, wanted_gradient = run(rows, bias, np.int32(valid), 1)
        value, gradient = run(rows, bias, np.int32(valid), number)
        np.testing.assert_allclose(value, wanted, rtol=1e-5)
        jax.tree.map(lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-4), gradient, wanted_gradient)
        assert np.abs(gradient[0]).max() > 0.1 and not np.asarray(gradient[1])[valid:].any()


# ------------------------------------------------------------------------------------------------- each token's own loss


@pytest.mark.parametrize(("chunk", "softcap"), [(4, None), (64, 1.5)])
def test_the_nats_of_each_token(chunk, softcap):
    """Of texts, whose chunks hold some positions of each; in a loss that is not linear in them."""
    h, rows, bias, _, targets, num_valid = problem(n=24)
    h, targets = h.reshape(3, 8, -1), targets.reshape(3, 8)

    def ours(h, rows, bias):
        nats = token_nats(h, rows, bias, targets, num_valid=num_valid, softcap=softcap, chunk=chunk)
        return jnp.square(nats.cumsum(1)).sum(), nats

    def theirs(h, rows, bias):
        products = jnp.matmul(h, rows.T, precision="highest")
        logits = ((products if softcap is None else softcap * jnp.tanh(products / softcap)) + bias)[..., :num_valid]
        nats = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
        return jnp.square(nats.cumsum(1)).sum(), nats

    found, expected = (jax.value_and_grad(f, (0, 1, 2), has_aux=True)(h, rows, bias) for f in (ours, theirs))
    assert found[0][1].shape == (3, 8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4), found, expected)


def test_what_is_summed_beside_a_loss_has_no_gradient():
    x, batch = jnp.arange(3.0), {"a": jnp.arange(8.0).reshape(8, 1) * jnp.ones(3)}

    def f(x, scale, part):
        values = scale * part["a"] * x
        return jnp.square(values).sum(), {"sum": values.sum(), "rows": jnp.float32(len(values))}

    def loss(x, number):
        total, others = summed_with(f, x, 2.0, batch, number)
        return total + 5 * others["sum"], others

    (one, others), gradient = jax.value_and_grad(loss, has_aux=True)(x, 1)
    (two, same), again = jax.value_and_grad(loss, has_aux=True)(x, 4)
    assert float(one) == pytest.approx(float(two)) and float(others["rows"]) == float(same["rows"]) == 8
    np.testing.assert_allclose(gradient, 8 * np.asarray(x) * np.square(np.arange(8)).sum(), rtol=1e-6)
    np.testing.assert_allclose(again, gradient, rtol=1e-6)
