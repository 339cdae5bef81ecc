"""`EmbeddingTable` as a value."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zett.table import EmbeddingTable, bucket


def table(v=7, d=4, tied=False, bias=True, seed=0):
    rng = np.random.default_rng(seed)
    rows = [jnp.asarray(rng.normal(size=(v, d)), jnp.float32) for _ in range(2)]
    return EmbeddingTable.of(rows[0], None if tied else rows[1], jnp.asarray(rng.normal(size=v), jnp.float32) if bias else None)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_embed_and_unembed(tied, bias):
    t = table(tied=tied, bias=bias)
    ids = jnp.asarray([[0, 6], [3, 3]])
    np.testing.assert_array_equal(t.embed(ids)[1, 0], t.input[3])
    h = jax.random.normal(jax.random.key(0), (2, 3, 4))
    expected = np.asarray(h) @ np.asarray(t.input if tied else t.output).T + (np.asarray(t.bias) if bias else 0)
    np.testing.assert_allclose(t.unembed(h), expected, rtol=1e-4, atol=1e-5)
    assert t.unembed(h.astype(jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("tied", [True, False])
def test_padding_changes_no_probability(tied):
    t = table(tied=tied)
    padded = t.pad(12)
    h = jax.random.normal(jax.random.key(0), (3, 4))
    before, after = jax.nn.softmax(t.unembed(h)), jax.nn.softmax(padded.unembed(h))
    assert after.shape == (3, 12) and int(padded.num_valid) == 7
    np.testing.assert_allclose(after[:, :7], before, rtol=1e-5)
    assert not np.any(after[:, 7:])
    with pytest.raises(ValueError, match="cannot pad a table of 12 rows to 7"):
        padded.pad(7)


def test_with_rows_is_a_copy():
    t, other = table(), table(v=2, seed=1)
    before = np.asarray(t.input).copy()
    changed = t.with_rows(np.asarray([5, 1]), other)
    np.testing.assert_array_equal(t.input, before)
    for name in ("input", "output", "bias"):
        np.testing.assert_array_equal(getattr(changed, name)[np.asarray([5, 1])], getattr(other, name))
        np.testing.assert_array_equal(getattr(changed, name)[0], getattr(t, name)[0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        t.input = other.input


def test_passes_through_jit_and_grad():
    t = table()
    grads = jax.jit(jax.grad(lambda t, h: t.unembed(h)[0, 2], allow_int=True))(t, jnp.ones((1, 4)))
    np.testing.assert_array_equal(grads.output[2], np.ones(4))
    assert not np.any(grads.input)


def test_bucket():
    assert [bucket(n) for n in (1, 2048, 2049, 5000)] == [2048, 2048, 4096, 6144]
    assert bucket(10, 8) == 16
