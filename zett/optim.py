"""Schedules and the optimizer. It gets trained parameters only, so clipping never counts a frozen model's gradient."""

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from zett.config import OptimConfig


def make_schedule(config: OptimConfig, peak: float, steps: int):
    """Linear warm-up from 0, then `config.schedule` down to `final_share` of the peak at `steps`."""
    warmup = min(config.warmup_steps, max(steps // 10, 1))
    rest = max(steps - warmup, 1)
    if config.schedule == "cosine":
        decay = optax.cosine_decay_schedule(peak, rest, config.final_share)
    elif config.schedule == "linear":
        decay = optax.linear_schedule(peak, peak * config.final_share, rest)
    else:
        decay = optax.constant_schedule(peak)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Clipping, then AdamW or Muon (arXiv 2502.16982). Weight decay leaves vectors (biases, norms) alone.

    A step whose gradient is not finite changes no parameter. The optimizer's state counts such steps.
    """
    schedule = make_schedule(config, config.learning_rate, steps)
    if config.name == "muon":
        update = contrib.muon(
            make_schedule(config, config.matrix_learning_rate, steps),
            weight_decay=config.weight_decay,
            adam_b1=config.b1,
            adam_b2=config.b2,
            adam_learning_rate=schedule,
            muon_weight_dimension_numbers=_matrices,
        )
    else:
        update = optax.adamw(schedule, config.b1, config.b2, weight_decay=config.weight_decay, mask=_decayed)
    # Steps with a NaN or Inf in the gradient are skipped, however many there are: the training loop decides when to stop.
    return optax.apply_if_finite(optax.chain(optax.clip_by_global_norm(config.clip), update), 2**31 - 1)


def _is_kernel(path) -> bool:
    return any(getattr(key, "key", getattr(key, "name", None)) == "kernel" for key in path)


def _decayed(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: _is_kernel(path), params)


def _matrices(params):
    # The kernels of all layers are stacked along a first axis, so each matrix is in the last two axes.
    def spec(path, p):
        return contrib.MuonDimensionNumbers(jnp.ndim(p) - 2, jnp.ndim(p) - 1) if _is_kernel(path) else None

    return jax.tree_util.tree_map_with_path(spec, params)
