"""Counted arithmetic, against XLA's own counts, masks written out, and published figures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from zett.config import HypernetConfig
from zett.hypernet.network import hypernet_shapes, make_hypernet
from zett.hypernet.packing import pack_forms
from zett.lms.base import body_shapes
from zett.lms.family import family_of
from zett.lms.modernbert import ModernBertConfig
from zett.plan import flops
from zett.vocab import SurfaceForms

ENCODER = {
    "vocab_size": 100, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 64,
}  # fmt: skip
BODIES = [
    {**ENCODER, "model_type": "llama", "num_key_value_heads": 2},
    {"model_type": "gpt2", "vocab_size": 100, "n_embd": 128, "n_layer": 3, "n_head": 4, "n_positions": 64},
    {**ENCODER, "model_type": "bert"},
    {**ENCODER, "model_type": "gemma3_text", "num_key_value_heads": 1, "head_dim": 64, "sliding_window": 16},
]


def counted_by_xla(f, *args) -> float:
    return jax.jit(f).lower(*args).cost_analysis()["flops"]


@pytest.mark.parametrize("hf", BODIES, ids=lambda hf: hf["model_type"])
def test_a_body_takes_what_xla_counts(hf):
    family = family_of(hf)
    config = family.Config.from_hf(hf)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: family.Body(config, rngs=nnx.Rngs(0))))
    params, x = nnx.to_pure_dict(state), jax.ShapeDtypeStruct((2, 64, 128), jnp.float32)

    def body(params, x):
        return nnx.merge(graphdef, params)(x)

    def frozen(params, x, g):
        return jax.vjp(lambda x: body(params, x), x)[1](g)

    def trained(params, x, g):
        return jax.vjp(body, params, x)[1](g)

    # XLA multiplies with all keys and masks afterwards; here those behind the mask do not count.
    shapes, width = body_shapes(family, config), config.num_heads * config.head_dim
    hidden = 4 * 2 * 64 * width * 64 * config.num_layers - flops.attention_forward(config, 2, 64)
    for step, compiled in ((False, frozen), (True, trained)):
        counted = flops.body_step(shapes, config, batch=2, length=64, rows=0, trained=step)
        ours = counted.body_forward + counted.body_backward + 3 * hidden
        assert 1 <= counted_by_xla(compiled, params, x, x) / ours < 1.07  # and what is between the products
    assert 1 <= counted_by_xla(body, params, x) / (counted.body_forward + hidden) < 1.1


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("window", [None, 1, 5, 16, 40])
def test_keys_are_counted_as_the_mask_has_them(window, causal):
    back = np.arange(16)[:, None] - np.arange(16)
    seen = (back >= 0) if causal else np.ones((16, 16), bool)
    if window is not None:
        seen &= (back < window) if causal else (np.abs(back) <= window)
    assert flops.keys_seen(16, window, causal=causal) == pytest.approx(seen.sum() / 16)


def test_a_hypernetwork_takes_what_xla_counts():
    config = HypernetConfig(width=128, heads=2, feed_forward=256, max_pieces=4, features=False)
    tokens, distinct = 64, 40
    ids = np.random.default_rng(0).integers(0, distinct, (tokens, 4)).astype(np.int32)
    whole = SurfaceForms(ids, np.full(tokens, 4, np.int32), np.zeros((tokens, 5), np.float32), np.full(tokens, -1))
    forms = pack_forms(whole, multiple=1)
    graphdef, state = nnx.split(nnx.eval_shape(lambda: make_hypernet(config, 128, False, jnp.float32, 0)))
    rows = jax.ShapeDtypeStruct((distinct, 256), jnp.float32)
    found = counted_by_xla(lambda p, rows: nnx.merge(graphdef, p)(rows, forms), nnx.to_pure_dict(state), rows)
    shapes = hypernet_shapes(config, 128, False)
    # The trained rows of bytes are projected, too, which is nothing at the size of a vocabulary.
    counted = flops.hypernet_forward(shapes, tokens=tokens, positions=4 * tokens, distinct=distinct + 256)
    assert 1 <= found / counted < 1.1


# Shapes of Mistral-7B and of the paper's hypernetwork for it, and what design/performance.md says of them.
WIDE = HypernetConfig(width=4096, heads=32, feed_forward=8192, max_pieces=7)


def test_the_figures_of_mistral():
    shapes = hypernet_shapes(WIDE, 4096, False)
    assert flops.hypernet_forward(shapes, tokens=1, positions=7) == pytest.approx(7.38e9, rel=0.005)
    assert flops.hypernet_forward(shapes, tokens=32768, positions=7 * 32768) == pytest.approx(242e12, rel=0.005)
    packed = flops.hypernet_forward(shapes, tokens=32768, positions=round(2.27 * 32768))
    assert packed == pytest.approx(86e12, rel=0.005)
    assert flops.hypernet_forward(shapes, tokens=32768, positions=round(2.27 * 32768), distinct=8000) < 0.87 * packed

    hf = {
        "model_type": "mistral", "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": 4096,
    }  # fmt: skip
    family = family_of(hf)
    config = family.Config.from_hf(hf)
    step = flops.hypernet_step(body_shapes(family, config), config, shapes, batch=128, length=128, rows=32768, pieces=7 * 32768)
    # There the forward and the backward pass have the head with them, and attention looks at all keys.
    assert step.body_forward + step.head / 3 == pytest.approx(234e12, rel=0.005)
    assert step.body_backward + 2 * step.head / 3 == pytest.approx(240e12, rel=0.01)
    assert step.total == pytest.approx(1200e12, rel=0.005)


def test_only_hidden_tokens_of_a_masked_model_have_logits():
    family = family_of(BODIES[2])
    config = family.Config.from_hf(BODIES[2])
    whole, some = (
        flops.body_step(body_shapes(family, config), config, batch=2, length=64, rows=100, trained=True, targets=n)
        for n in (None, 20)
    )
    assert some.head == whole.head * 20 / 128 == 3 * 2 * 20 * 100 * 128


def test_local_layers_of_modernbert_see_their_window():
    near = ModernBertConfig(num_heads=2, hidden_size=8, num_layers=2, local=(True, False), window=3)
    seen = flops.keys_seen(16, 3, causal=False) + 16
    assert flops.attention_forward(near, 1, 16) == 4 * 16 * 8 * seen
