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

    @property
    def released(self) -> Any:
        """The parameters that are evaluated and exported."""
        return self.params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AveragedState(TrainState):
    """With a running mean of the parameters of all steps, float32; see config.train.average."""

    average: Any
    decay: float = dataclasses.field(metadata={"static": True})

    @property
    def released(self) -> Any:
        return self.average


def abstract_state(recipe: Recipe, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Shapes, dtypes and shardings of a state; nothing is allocated."""

    def make() -> TrainState:
        params, decay = recipe.init(), recipe.config.train.average
        state = jnp.zeros((), jnp.int32), params, optimizer.init(params)
        return AveragedState(*state, _copy(params), decay) if decay else TrainState(*state)

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
        # What was stored in fewer bits is trained like all else; in bfloat16, small updates would be lost.
        given = jax.tree.map(lambda x, wanted: x.astype(wanted.dtype), given, abstract.params)
        params = place(given, shardings.params)
    opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(params)
    step = place(jnp.zeros((), jnp.int32), shardings.step)
    if not isinstance(abstract, AveragedState):
        return TrainState(step, params, opt_state)
    return AveragedState(step, params, opt_state, jax.jit(_copy, out_shardings=shardings.average)(params), abstract.decay)


def _copy(params):
    """In buffers of its own, since a step reuses those of all parts of the state."""
    return jax.tree.map(jnp.copy, params)


def make_step(recipe: Recipe, optimizer: optax.GradientTransformation) -> Callable:
    """The jitted `(state, frozen, batch) -> (state, metrics)`; the old state's buffers are reused."""

    def step(state: TrainState, frozen, batch):
        (loss, metrics), grads = jax.value_and_grad(recipe.loss, has_aux=True)(state.params, frozen, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        if "rate" in batch:  # of a run whose time is limited
            updates = jax.tree.map(lambda update: update * batch["rate"], updates)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, **metrics, "grad_norm": optax.global_norm(grads), "skipped": opt_state.total_notfinite}
        after = dataclasses.replace(state, step=state.step + 1, params=params, opt_state=opt_state)
        return _averaged(after), metrics | {"skipped_in_row": opt_state.notfinite_count}

    return jax.jit(step, donate_argnums=0)


def _averaged(state: TrainState) -> TrainState:
    """After a step, its running mean moved towards the new parameters, if it has one and the step was not left out.

    The first steps weigh more than by the decay alone, so that the parameters of before the training are soon forgotten.
    """
    if not isinstance(state, AveragedState):
        return state
    before = (state.step - 1 - state.opt_state.total_notfinite).astype(jnp.float32)
    decay = jnp.minimum(state.decay, (1 + before) / (10 + before))
    share = jnp.where(state.opt_state.last_finite, 1 - decay, 0.0)
    moved = jax.tree.map(lambda mean, new: mean + share * (new - mean), state.average, state.params)
    return dataclasses.replace(state, average=moved)
