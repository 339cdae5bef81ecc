"""Shared layers against plain NumPy, and what scanning and rematerialisation may not change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from zett.lms import layers
from zett.lms.attention import attention, cudnn_refuses
from zett.lms.decoder import Decoder, DecoderConfig
from zett.lms.gemma3 import Gemma3Config
from zett.lms.layers import positions_and_mask
from zett.lms.rope import Rope

B, L, H, N, K = 2, 7, 4, 2, 6


def plain_attention(q, k, v, allowed, scale, softcap):
    k, v = (np.repeat(x, H // N, 2) for x in (k, v))
    logits = np.einsum("blhk,bmhk->bhlm", q, k) * scale
    if softcap:
        logits = softcap * np.tanh(logits / softcap)
    weights = np.where(allowed, np.exp(logits), 0)
    return np.einsum("bhlm,bmhk->blhk", weights / weights.sum(-1, keepdims=True), v)


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("mask_heads", [0, 1, H])
@pytest.mark.parametrize("window", [None, 3, 100])
def test_attention(softcap, causal, mask_heads, window):
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(B, L, heads, K)).astype(np.float32) for heads in (H, N, N))
    back = np.arange(L)[:, None] - np.arange(L)
    allowed = np.ones((B, H, L, L), bool) & (back >= 0 if causal else True)
    if window:
        allowed = allowed & (back < window if causal else abs(back) <= window)
    mask = (rng.random((B, mask_heads, L, L)) < 0.7) | np.eye(L, dtype=bool) if mask_heads else None
    options = {"mask": mask, "causal": causal, "scale": 0.3, "softcap": softcap, "dtype": jnp.float32}
    expected = plain_attention(q, k, v, allowed if mask is None else allowed & mask, 0.3, softcap)
    np.testing.assert_allclose(attention(q, k, v, window=window, **options), expected, atol=1e-5)
    if window:  # of a layer among others, the window is a traced number
        traced = jax.jit(lambda window: attention(q, k, v, window=window, **options))(window)
        np.testing.assert_allclose(traced, expected, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_query_that_may_look_nowhere_makes_no_nan(softcap):
    def loss(x):
        return attention(x, x, x, mask=jnp.zeros((1, 1, 3, 3), bool), softcap=softcap, dtype=jnp.float32).sum()

    value, gradient = jax.value_and_grad(loss)(jnp.ones((1, 3, 2, 4)))
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize(
    ("capability", "dtype", "width", "length", "masked", "taken"),
    [
        (9.0, "bfloat16", 128, 1023, False, True),
        (9.0, "bfloat16", 256, 1024, True, True),
        (8.0, "float16", 256, 1024, False, False),
        (9.0, "bfloat16", 128, 1023, True, False),
        (9.0, "bfloat16", 100, 1024, False, False),
        (9.0, "float32", 128, 1024, False, False),
        (7.5, "float16", 128, 1024, False, False),
        (0.0, "bfloat16", 128, 1024, False, False),
    ],
)
def test_where_cudnn_is_used(capability, dtype, width, length, masked, taken):
    assert (cudnn_refuses(capability, jnp.dtype(dtype), width, length, masked=masked) == "") == taken


def test_positions_and_mask():
    x = np.zeros((2, 6, 1))
    positions, mask = positions_and_mask(x)
    assert positions.tolist() == [[0, 1, 2, 3, 4, 5]] * 2 and mask is None
    padding = np.asarray([[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    positions, mask = positions_and_mask(x, mask_BL=padding)
    assert positions[:, 2:].tolist() == [[0, 1, 2, 3], [2, 2, 2, 2]] and (mask[:, 0, 0] == padding).all()
    positions, mask = positions_and_mask(x, segments_BL=np.asarray([[0, 0, 1, 1, 1, 2], [5, 5, 5, 5, 4, 4]]))
    assert positions.tolist() == [[0, 1, 0, 1, 2, 0], [0, 1, 2, 3, 0, 1]]
    assert mask[0, 0].sum() == 2 * 2 + 3 * 3 + 1
    given, mask = positions_and_mask(x, np.full((2, 6), 7), padding, np.asarray([[0] * 3 + [1] * 3] * 2))
    assert (given == 7).all() and mask[0, 0].astype(int).tolist() == [[0, 0, 1, 0, 0, 0]] * 3 + [[0, 0, 0, 1, 1, 1]] * 3


ALTERNATING = Gemma3Config(
    hidden_size=16, num_layers=3, head_dim=4, intermediate_size=24, windows=(2, None, 3), rope=Rope(theta=50.0)
)  # fmt: skip


def hidden_and_gradient(config, remat, x):
    graphdef, params = nnx.split(Decoder(config, remat=remat, rngs=nnx.Rngs(0)))

    def loss(x):
        h, hidden = nnx.merge(graphdef, params)(x, keep_hidden=True)
        return (h * jnp.arange(16)).sum(), hidden

    (_, hidden), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(x)
    return hidden, gradient


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_scanning_and_rematerialisation_change_nothing(remat, monkeypatch):
    x = np.random.default_rng(0).normal(size=(2, 6, 16)).astype(np.float32)
    plain = hidden_and_gradient(ALTERNATING, "none", x)
    results = [hidden_and_gradient(ALTERNATING, remat, x)]
    monkeypatch.setattr(layers, "UNROLLED", 0)
    results.append(hidden_and_gradient(ALTERNATING, remat, x))
    for result in results:
        for mine, theirs in zip(result, plain):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


@functools.cache
def gradient_memory(remat: str, number: int) -> int:
    """Bytes that the gradient of the input of `number` layers takes beside its arguments and results."""
    config = DecoderConfig(hidden_size=32, num_layers=number, num_heads=2, num_kv_heads=2, head_dim=16, intermediate_size=128)
    graphdef, params = nnx.split(nnx.eval_shape(lambda: Decoder(config, remat=remat, rngs=nnx.Rngs(0))))
    gradient = jax.grad(lambda x, params: nnx.merge(graphdef, params)(x).sum())
    compiled = jax.jit(gradient).lower(jax.ShapeDtypeStruct((4, 64, 32), jnp.float32), params).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_rematerialisation_saves_memory():
    number = layers.UNROLLED + 4
    everything, dots, full = (gradient_memory(remat, number) for remat in ("none", "dots", "full"))
    assert full < dots < everything
    inputs = number * 4 * 64 * 32 * 4
    assert full < 0.5 * everything and full > inputs


def test_compiled_size_does_not_grow_with_depth():
    def lines(number):
        config = DecoderConfig(hidden_size=8, num_layers=number, num_heads=1, num_kv_heads=1, head_dim=8, intermediate_size=8)
        graphdef, params = nnx.split(nnx.eval_shape(lambda: Decoder(config, rngs=nnx.Rngs(0))))
        text = jax.jit(lambda x, params: nnx.merge(graphdef, params)(x)).lower(
            jax.ShapeDtypeStruct((1, 4, 8), jnp.float32), params
        )
        return len(text.as_text().splitlines())

    assert lines(40) == lines(12) < lines(8)
