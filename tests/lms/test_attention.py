"""cuDNN's attention, which no CPU has: what it is told means the same as what XLA computes, and where it is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from zett.errors import UserError
from zett.lms.attention import attention, attention_by
from zett.lms.family import family_of

LLAMA = {
    "vocab_size": 100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
}  # fmt: skip
ENCODER = {key: value for key, value in LLAMA.items() if key not in ("num_key_value_heads", "rms_norm_eps")}
SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES = {
    "llama": LLAMA,
    "mistral": {**LLAMA, "sliding_window": 8},
    "qwen2": LLAMA,
    "qwen3": {**LLAMA, "head_dim": 16},
    "olmo2": LLAMA,
    "phi3": {**LLAMA, "sliding_window": 8, "pad_token_id": 0},
    "smollm3": {**LLAMA, "no_rope_layers": [1, 0], "no_rope_layer_interval": 2},
    "starcoder2": {**LLAMA, "hidden_act": "gelu_pytorch_tanh", "norm_epsilon": 1e-5, "use_bias": True},
    "gemma": {**LLAMA, "head_dim": 16},
    "gemma3_text": {**LLAMA, **SLIDING, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window_pattern": 2},
    "gpt2": {"vocab_size": 100, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": {**ENCODER, "rotary_pct": 0.25},
    "bert": ENCODER,
    "modernbert": {**ENCODER, "local_attention": 16, "global_attn_every_n_layers": 2},
}


@pytest.fixture
def on_a_gpu(monkeypatch):
    """As on an H100, but that XLA computes what cuDNN is asked for. Gives the calls that there were."""
    calls, real = [], jax.nn.dot_product_attention

    def asked(*args, implementation=None, **options):
        calls.append(implementation)
        return real(*args, **options)

    monkeypatch.setattr("zett.lms.attention._compute_capability", lambda: 9.0)
    monkeypatch.setattr(jax.nn, "dot_product_attention", asked)
    return calls


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_computes_the_same_by_both(name, on_a_gpu):
    hf = {**FAMILIES[name], "model_type": name}
    family = family_of(hf)
    config = family.Config.from_hf(hf)
    graphdef, params = nnx.split(family.Body(config, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 32, 64)).astype(np.float32)
    mask = None if config.causal else np.arange(32) < np.asarray([[32], [20]])

    def hidden(setting):
        with attention_by(setting):
            return nnx.merge(graphdef, params)(x, **({} if mask is None else {"mask_BL": mask}))

    by_xla, by_cudnn = hidden("xla"), hidden("cudnn")
    assert set(on_a_gpu) == {None, "cudnn"}
    valid = np.ones((2, 32), bool) if mask is None else mask
    np.testing.assert_allclose(np.asarray(by_cudnn)[valid], np.asarray(by_xla)[valid], atol=0.03, rtol=0.03)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("masked", [True, False])
def test_windows_and_masks_mean_the_same(causal, window, masked, on_a_gpu):
    rng = np.random.default_rng(0)
    q, k, v = (jnp.asarray(rng.normal(size=(2, 8, heads, 8)), jnp.bfloat16) for heads in (4, 2, 2))
    mask = jnp.asarray((rng.random((2, 1, 8, 8)) < 0.7) | np.eye(8, dtype=bool)) if masked else None
    options = {"mask": mask, "causal": causal, "dtype": jnp.bfloat16}
    with attention_by("xla"):
        wanted = attention(q, k, v, window=window, **options)
    with attention_by("cudnn"):
        np.testing.assert_allclose(attention(q, k, v, window=window, **options), wanted, atol=0.02)
        traced = jax.jit(lambda window: attention(q, k, v, window=window, **options))(window or 100)
        np.testing.assert_allclose(traced, wanted, atol=0.02)
    assert on_a_gpu.count("cudnn") == 2


def test_what_it_does_not_take_is_refused_by_name_or_left_to_xla(on_a_gpu):
    q = jnp.ones((1, 4, 2, 8), jnp.bfloat16)
    wide = jnp.ones((1, 4, 2, 12), jnp.bfloat16)
    cases = [
        ((q, {"softcap": 2.0, "dtype": jnp.bfloat16}), "logits with a soft cap"),
        ((q, {"dtype": jnp.float32}), "products in float32"),
        ((wide, {"dtype": jnp.bfloat16}), "heads of width 12"),
        ((q[:, :3], {"mask": jnp.ones((1, 1, 3, 3), bool), "dtype": jnp.bfloat16}), "an odd number, with a mask"),
    ]
    for (x, options), message in cases:
        with attention_by("cudnn"), pytest.raises(UserError, match=rf"config\.train\.attention is 'cudnn'.*{message}"):
            attention(x, x, x, **options)
        attention(x, x, x, **options)
    assert "cudnn" not in on_a_gpu


def test_a_cpu_has_no_cudnn():
    q = jnp.ones((1, 4, 2, 8), jnp.bfloat16)
    with attention_by("cudnn"), pytest.raises(UserError, match="other devices than NVIDIA GPUs"):
        attention(q, q, q, dtype=jnp.bfloat16)
    assert attention(q, q, q, dtype=jnp.bfloat16).shape == q.shape


def test_a_plan_has_the_shapes_of_flash_attention():
    """Queries, keys, values, the result and a number a query, and no logits."""
    q = jax.ShapeDtypeStruct((2, 64, 4, 8), jnp.bfloat16)

    def kept(setting, capability):
        with attention_by(setting, capability):
            back = jax.eval_shape(lambda q: jax.vjp(lambda q: attention(q, q, q, dtype=jnp.bfloat16), q)[1], q)
        return [x.shape for x in jax.tree.leaves(back)]

    assert (2, 4, 64) in kept("auto", 9.0) and not any(shape[-2:] == (64, 64) for shape in kept("auto", 9.0))
    assert any(shape[-2:] == (64, 64) for shape in kept("xla", 0.0))
