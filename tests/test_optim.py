"""Schedules, clipping and what weight decay touches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from zett.config import OptimConfig
from zett.optim import make_optimizer, make_schedule

PARAMS = {
    "layer": {"kernel": jnp.ones((3, 8, 4)), "bias": jnp.ones((3, 4))},  # stacked layers
    "norm": {"scale": jnp.ones(4)},
    "input": jnp.ones((5, 4)),
}


@pytest.mark.parametrize("kind, middle", [("cosine", 0.55), ("linear", 0.55), ("constant", 1.0)])
def test_schedule_warms_up_and_decays(kind, middle):
    schedule = make_schedule(OptimConfig(schedule=kind, warmup_steps=10, final_share=0.1), 2.0, 110)
    last = 1.0 if kind == "constant" else 0.1
    np.testing.assert_allclose([schedule(s) for s in (0, 5, 10, 60, 110)], 2 * np.array([0, 0.5, 1, middle, last]), rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_weight_decay_leaves_vectors_and_rows_alone(name):
    config = OptimConfig(name=name, weight_decay=0.5, schedule="constant", warmup_steps=1, learning_rate=0.1)
    optimizer = make_optimizer(config, 10)
    state = optimizer.init(PARAMS)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    for _ in range(3):
        updates, state = optimizer.update(zeros, state, PARAMS)
    assert (updates["layer"]["kernel"] < 0).all()
    for rest in (updates["layer"]["bias"], updates["norm"]["scale"], updates["input"]):
        np.testing.assert_array_equal(rest, 0)


def test_muon_orthogonalises_each_layer_of_a_stack():
    optimizer = make_optimizer(OptimConfig(name="muon", weight_decay=0.0, schedule="constant", warmup_steps=1), 10)
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), PARAMS)
    state = optimizer.init(PARAMS)
    for _ in range(3):
        updates, state = optimizer.update(grads, state, PARAMS)
    for matrix in updates["layer"]["kernel"]:
        singular = np.linalg.svd(matrix, compute_uv=False)
        assert singular.max() / singular.min() < 2.5  # Newton-Schulz brings them near one value, not exactly to it


def test_clipping_bounds_the_update_of_a_huge_gradient():
    config = OptimConfig(name="adamw", clip=1.0, weight_decay=0.0, schedule="constant", warmup_steps=1)
    clip = make_optimizer(config, 10)
    seen = []
    for scale in (1.0, 1e6):
        state = clip.init(PARAMS)
        grads = jax.tree.map(lambda p, scale=scale: scale * jnp.ones_like(p), PARAMS)
        _, state = clip.update(grads, state, PARAMS)
        seen.append(optax.tree.norm(optax.tree.get(state, "mu")))
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-5)
