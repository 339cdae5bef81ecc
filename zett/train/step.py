"""The state of a training, each part of it made on the device that holds it, and the compiled step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from zett.mesh import match, paths, place, state_shardings
from zett.recipes import Recipe


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    step: jax.Array
    params: Any
    opt_state: Any


def abstract_state(recipe: Recipe, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of a state; nothing is allocated."""

    def make() -> TrainState:
        params = recipe.init()
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))

    shapes = jax.eval_shape(make)
    specs = match({path: np.shape(leaf) for path, leaf in paths(shapes.params).items()}, recipe.rules)
    shardings = state_shardings(mesh, shapes, specs)
    return jax.tree.map(lambda x, to: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=to), shapes, shardings)


def initial_state(recipe: Recipe, optimizer: optax.GradientTransformation, abstract: TrainState) -> TrainState:
    """The state before the first step: each device makes its own part, so that none ever holds the whole."""
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    given = recipe.start()
    if given is None:
        params = jax.jit(recipe.init, out_shardings=shardings.params)()
    else:
        params = place(given, shardings.params)
    opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(params)
    return TrainState(place(jnp.zeros((), jnp.int32), shardings.step), params, opt_state)


def make_step(recipe: Recipe, optimizer: optax.GradientTransformation) -> Callable:
    """The jitted `(state, frozen, batch) -> (state, metrics)`; the old state's buffers are reused."""

    def step(state: TrainState, frozen, batch):
        (loss, metrics), grads = jax.value_and_grad(recipe.loss, has_aux=True)(state.params, frozen, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        if "rate" in batch:  # of a run whose time is limited
            updates = jax.tree.map(lambda update: update * batch["rate"], updates)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, **metrics, "grad_norm": optax.global_norm(grads), "skipped": opt_state.total_notfinite}
        return TrainState(state.step + 1, params, opt_state), metrics | {"skipped_in_row": opt_state.notfinite_count}

    return jax.jit(step, donate_argnums=0)
