"""The training loop, the same for every recipe."""

import concurrent.futures
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from zett.checkpoint import Checkpoints
from zett.config import Config, to_dict
from zett.errors import UserError
from zett.files.folders import new_folder
from zett.mesh import check_batch, global_batch, local_rows, make_mesh, to_host
from zett.optim import make_optimizer
from zett.progress import phase
from zett.recipes import Recipe, recipe_class
from zett.train.guards import Limit, SkipGuard, StopSignal
from zett.train.metrics import Metrics
from zett.train.step import TrainState, abstract_state, initial_state, make_step


def train_in(workdir: Path, config: Config) -> dict[str, float]:
    """Train in `workdir`, which belongs to this run; returns the last evaluation. See `zett.train.run.train`."""
    settings = config.train
    mesh = make_mesh(config.mesh)
    check_batch(mesh.shape["data"] * mesh.shape["fsdp"], config.data.batch_size, settings.microbatches)
    rows = local_rows(mesh, config.data.batch_size)
    recipe = recipe_class(config.recipe)(config, workdir, mesh)
    optimizer = make_optimizer(config.optim, settings.steps)
    abstract = abstract_state(recipe, optimizer, mesh)

    def make_batch(step: int):
        batch = recipe.batch(step, rows)
        return recipe.flops(batch), global_batch(mesh, batch, recipe.batch_specs, config.data.batch_size)

    metrics = Metrics(workdir, settings, tokens_per_step=recipe.tokens_per_step, config=to_dict(config))
    checkpoints = Checkpoints(workdir / "checkpoints", settings.keep)
    stop = StopSignal()
    evaluation: dict[str, float] = {}
    try:
        with phase("making the parameters"):
            state = checkpoints.restore_latest(abstract, metrics.say) or initial_state(recipe, optimizer, abstract)
        start = int(state.step)
        if start > settings.steps:
            raise UserError(f"{workdir} holds step {start}, more than config.train.steps ({settings.steps})")
        metrics.start(start)
        step_fn = make_step(recipe, optimizer)
        guard, limit = SkipGuard(config, workdir), Limit(settings)
        if settings.eval_first and start == 0:
            _evaluate(recipe, state.released, 0, metrics, limit)
        for step, (flops, batch), waited in _prefetched(make_batch, start, settings.steps, settings.ahead, settings.workers):
            with phase("compiling the training step, and the first one", step == start):
                state, values = step_fn(state, recipe.frozen, batch | limit.rate())
                if step == start:
                    jax.block_until_ready(values)  # only after the first step, so that the user sees when compiling is done
                    limit.begin()
            metrics.step(step + 1, values, waited, flops)
            last = step + 1 == settings.steps
            guard.note(step, values["skipped_in_row"], flush=last)
            if evaluating := last or (step + 1) % settings.eval_every == 0 or limit.due():
                evaluation = _evaluate(recipe, state.released, step + 1, metrics, limit)
            last = last or (evaluating and limit.over())
            stopping = stop.requested(step)
            if last or stopping or (step + 1) % settings.checkpoint_every == 0 or (evaluating and settings.minutes):
                metrics.flush()  # a run resumed from this checkpoint does not repeat these steps
                checkpoints.save(step + 1, state, evaluation["score"] if evaluating else None)
            if stopping:
                if not settings.minutes:
                    metrics.say(f"saved step {step + 1} in {workdir}; the same command goes on from there")
                checkpoints.wait()
                raise stop.exception()
            if last:
                break
        _release_best(recipe, state, abstract, checkpoints, workdir, config)
    finally:
        metrics.close()
        checkpoints.close()
        stop.restore()
    return evaluation


def _evaluate(recipe: Recipe, params: Any, step: int, metrics: Metrics, limit: Limit) -> dict[str, float]:
    metrics.flush()
    clock = time.perf_counter()
    with phase(f"evaluating after step {step}" if step else "evaluating before the first step"):
        found = recipe.evaluate(params)
    seconds = time.perf_counter() - clock
    metrics.evaluation(step, found, seconds)
    limit.evaluated(found["score"], seconds)
    return found


def _release_best(
    recipe: Recipe, state: TrainState, abstract: TrainState, checkpoints: Checkpoints, workdir: Path, config: Config
) -> None:
    """Write the released form of the best parameters. All processes gather them, and the first process writes."""
    checkpoints.wait()
    best = checkpoints.best()
    if best is not None and best != int(state.step):
        state = checkpoints.restore(abstract, best)
    with phase(f"writing {workdir / 'export'}"):
        params = jax.tree.map(to_host, state.released)
        if jax.process_index() == 0:
            with new_folder(workdir / "export") as folder:
                recipe.export(params, folder, {"step": int(state.step), "config": to_dict(config)})


def _prefetched(
    make: Callable[[int], Any], start: int, stop: int, ahead: int, workers: int
) -> Iterator[tuple[int, Any, float]]:
    """Yields (step, batch, seconds waited for the batch) in order. `workers` threads make up to `ahead` batches beforehand."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = {s: pool.submit(make, s) for s in range(start, min(start + ahead, stop))}
        try:
            for step in range(start, stop):
                clock = time.perf_counter()
                with phase("preparing the first batch", step == start):
                    batch = pending.pop(step).result()
                waited = time.perf_counter() - clock
                if step + ahead < stop:
                    pending[step + ahead] = pool.submit(make, step + ahead)
                yield step, batch, waited
        finally:
            for future in pending.values():
                future.cancel()
