"""The training loop. What is trained (a language model, a hypernetwork) is a `Task`; the loop is the same."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from zett import config as config_lib
from zett.checkpoint import Checkpoints, write_json
from zett.errors import UserError
from zett.folders import new_folder
from zett.mesh import (
    Rules,
    check_batch,
    global_batch,
    local_rows,
    make_mesh,
    match,
    paths,
    place,
    same_everywhere,
    state_shardings,
    to_host,
)
from zett.metrics import Metrics, check_trackers
from zett.optim import make_optimizer
from zett.plan import check_targets


class Task(Protocol):
    """What the loop needs to know of what it trains."""

    frozen: Any  # arrays that the loss reads and that are never trained
    tokens_per_step: int
    rules: Rules  # how the trained parameters lie on the mesh
    batch_specs: ClassVar[Mapping[str, PartitionSpec]]  # and the parts of a batch; others are the same on every device

    def init(self) -> Any: ...  # the trained parameters
    def batch(self, step: int, rows: np.ndarray | None = None) -> dict: ...  # rows of the step, from (seed, step) alone
    def flops(self, batch: dict) -> float: ...  # counted, of the whole step with this batch; see zett/flops.py
    def loss(self, params, frozen, batch) -> tuple[jax.Array, dict]: ...
    def evaluate(self, params) -> dict[str, float]: ...  # "score" among them; lower is better
    def export(self, params, folder: Path, record: dict) -> None: ...  # the released form


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    step: jax.Array
    params: Any
    opt_state: Any


def make_task(config: config_lib.Config, workdir: Path, mesh: Mesh) -> Task:
    if config.task == "lm":
        from zett.tasks.lm import LMTask

        return LMTask(config, workdir, mesh)
    from zett.tasks.hypernet import HypernetTask

    return HypernetTask(config, workdir, mesh)


def initial_state(task: Task, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """Fresh parameters and optimizer state, on the devices."""
    params = task.init()
    specs = match({path: np.shape(leaf) for path, leaf in paths(params).items()}, task.rules)
    params = place(params, state_shardings(mesh, params, specs))
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
    return place(state, state_shardings(mesh, state, specs))


def make_step(task: Task, optimizer: optax.GradientTransformation) -> Callable:
    """The jitted `(state, frozen, batch) -> (state, metrics)`; the old state's buffers are reused."""

    def step(state: TrainState, frozen, batch):
        (loss, metrics), grads = jax.value_and_grad(task.loss, has_aux=True)(state.params, frozen, batch)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, **metrics, "grad_norm": optax.global_norm(grads), "skipped": opt_state.total_notfinite}
        return TrainState(state.step + 1, params, opt_state), metrics | {"skipped_in_row": opt_state.notfinite_count}

    return jax.jit(step, donate_argnums=0)


def train(config: config_lib.Config, workdir: str | Path) -> dict[str, float]:
    """Run `config` in `workdir`, resuming what is there; returns the last evaluation.

    The workdir gets config.json, starts.jsonl (versions, commit and devices of each start), metrics.jsonl, checkpoints/ and,
    at the end, export/ with the best parameters. Ctrl-C and SIGTERM save and stop; the same command goes on from there, bit
    for bit as if it had not been stopped. Raises UserError for a workdir that holds another run or a running one, for a full
    disk, and when the gradient is not finite in `config.train.max_skipped` steps in a row.
    """
    check_trackers(config.train.track)
    check_targets(config)
    if "://" in str(workdir):
        raise UserError(f"--workdir is {str(workdir)!r}; it has to be a folder, such as a mounted bucket, that all hosts see")
    workdir = Path(workdir).expanduser()
    workdir.mkdir(parents=True, exist_ok=True)
    main = jax.process_index() == 0
    with only_run(workdir) if main else contextlib.nullcontext():
        _check_same_run(config, workdir / "config.json")
        if main:
            write_json(workdir / "config.json", config_lib.to_dict(config))
        if jax.process_count() > 1:
            _check_shared(workdir)
        return _train(config, workdir)


def _train(config: config_lib.Config, workdir: Path) -> dict[str, float]:
    settings = config.train
    mesh = make_mesh(config.mesh)
    check_batch(mesh.shape["data"] * mesh.shape["fsdp"], config.data.batch_size, settings.microbatches)
    rows = local_rows(mesh, config.data.batch_size)
    task = make_task(config, workdir, mesh)
    optimizer = make_optimizer(config.optim, settings.steps)
    state = initial_state(task, optimizer, mesh)

    def make_batch(step: int):
        batch = task.batch(step, rows)
        return task.flops(batch), global_batch(mesh, batch, task.batch_specs, config.data.batch_size)

    metrics = Metrics(workdir, settings, tokens_per_step=task.tokens_per_step, config=config_lib.to_dict(config))
    checkpoints = Checkpoints(workdir / "checkpoints", settings.keep)
    stop = _StopSignal()
    evaluation: dict[str, float] = {}
    try:
        state = checkpoints.restore_latest(state, metrics.say) or state
        start = int(state.step)
        if start > settings.steps:
            raise UserError(f"{workdir} holds step {start}, more than config.train.steps ({settings.steps})")
        metrics.start(start)
        step_fn = make_step(task, optimizer)
        guard = _SkipGuard(config, workdir)
        for step, (flops, batch), waited in _prefetched(make_batch, start, settings.steps, settings.ahead, settings.workers):
            state, values = step_fn(state, task.frozen, batch)
            metrics.step(step + 1, values, waited, flops)
            last = step + 1 == settings.steps
            guard.note(step, values["skipped_in_row"], flush=last)
            if last or (step + 1) % settings.eval_every == 0:
                metrics.flush()
                clock = time.perf_counter()
                evaluation = task.evaluate(state.params)
                metrics.evaluation(step + 1, evaluation, time.perf_counter() - clock)
            stopping = stop.requested(step)
            if last or stopping or (step + 1) % settings.checkpoint_every == 0:
                metrics.flush()  # a run that goes on from here will not come to these steps again
                evaluated = last or (step + 1) % settings.eval_every == 0
                checkpoints.save(step + 1, state, evaluation["score"] if evaluated else None)
            if stopping:
                metrics.say(f"saved step {step + 1} in {workdir}; the same command goes on from there")
                checkpoints.wait()
                raise stop.exception()
        checkpoints.wait()
        best = checkpoints.best()
        if best is not None and best != int(state.step):
            state = checkpoints.restore(state, best)
        record = {"step": int(state.step), "config": config_lib.to_dict(config)}
        export(task, state.params, workdir, record)
    finally:
        metrics.close()
        checkpoints.close()
        stop.restore()
    return evaluation


def export(task: Task, params, workdir: Path, record: dict) -> None:
    """Write the released form; parameters are gathered by all processes, and the first one writes."""
    params = jax.tree.map(to_host, params)
    if jax.process_index() == 0:
        with new_folder(workdir / "export") as folder:
            task.export(params, folder, record)


@contextlib.contextmanager
def only_run(workdir: Path) -> Iterator[None]:
    """Held while a run is alive; UserError if another one is. The system lets go of it however the process ends."""
    import filelock

    lock = filelock.FileLock(workdir / ".lock")
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise UserError(f"another run is going on in {workdir}; stop it first, or give another --workdir") from None
    try:
        yield
    finally:
        lock.release()


SHARED_TRIES = 12  # five seconds apart, for file systems that keep what they once saw of a folder


def _check_shared(workdir: Path) -> None:
    """UserError unless all processes see one folder: what each writes of a checkpoint is worth nothing without the others'."""
    from jax.experimental import multihost_utils

    seen, main = workdir / ".seen", jax.process_index() == 0
    if main:
        seen.write_text(str(time.time_ns()))
    multihost_utils.sync_global_devices("workdir")
    for number in range(SHARED_TRIES):
        if same_everywhere([seen.read_text() if seen.exists() else f"nothing seen by {jax.process_index()}"]):
            break
        if number + 1 == SHARED_TRIES:
            raise UserError(
                f"{workdir} is not the same folder on all hosts; --workdir has to be on a file system that they share"
            )
        time.sleep(5)
    if main:
        seen.unlink()


class _SkipGuard:
    """Stops a run whose gradient stays non-finite. Looks at each step two steps later, so that the device never waits."""

    def __init__(self, config: config_lib.Config, workdir: Path):
        self._config, self._file = config, workdir / "not_finite.json"
        self._pending: collections.deque = collections.deque()

    def note(self, step: int, in_row: jax.Array, flush: bool) -> None:
        self._pending.append((step, in_row))
        while len(self._pending) > (0 if flush else 2):
            step, in_row = self._pending.popleft()
            if int(in_row) >= self._config.train.max_skipped:
                self._stop(step, int(in_row))

    def _stop(self, step: int, count: int) -> None:
        # A batch is a pure function of (config, step): `make_task(config, workdir).batch(step)` makes it again.
        steps = list(range(step - count + 1, step + 1))
        write_json(self._file, {"seed": self._config.seed, "steps": steps, "config": config_lib.to_dict(self._config)})
        raise UserError(
            f"the gradient was not finite in {count} steps in a row, {steps[0]} to {step}; the parameters are those of before. "
            f"{self._file} says which batches they were. Lower the learning rate, or start from an earlier checkpoint"
        )


# What may change between two starts of the same run: its length, and what changes the parameters by rounding at most.
CHANGEABLE = {
    "train.steps", "train.log_every", "train.eval_every", "train.eval_windows", "train.eval_targets", "train.checkpoint_every",
    "train.keep", "train.ahead", "train.workers", "train.track", "train.max_skipped", "data.valid_source",
    "mesh.data", "mesh.fsdp", "mesh.tensor", "train.microbatches", "train.remat", "train.remat_hypernet",
}  # fmt: skip
UNUSED = {"lm": ("base", "hypernet", "sampler", "loss"), "hypernet": ("tokenizer", "model")}  # sections, by task


def _check_same_run(config: config_lib.Config, path: Path) -> None:
    """UserError if `path` holds the config of another run."""
    if not path.exists():
        return
    try:
        before = _flat(json.loads(path.read_text()))
    except (ValueError, AttributeError):
        raise UserError(f"{path} is not a config that a run has written; give another --workdir") from None
    # Through JSON, where tuples become lists; fields that either version does not know say nothing.
    now = _flat(json.loads(json.dumps(config_lib.to_dict(config))))
    for name in sorted(before.keys() & now.keys()):
        ignored = name in CHANGEABLE or name.split(".")[0] in UNUSED[config.task]
        if before[name] != now[name] and not ignored:
            raise UserError(
                f"{path.parent} holds a run with config.{name} = {before[name]!r}, not {now[name]!r}; "
                "give another --workdir, or the old value"
            )


def _flat(values: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _prefetched(
    make: Callable[[int], Any], start: int, stop: int, ahead: int, workers: int
) -> Iterator[tuple[int, Any, float]]:
    """(step, batch, seconds waited for it) in order; `ahead` batches are made beforehand in `workers` threads."""
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        pending = {s: pool.submit(make, s) for s in range(start, min(start + ahead, stop))}
        try:
            for step in range(start, stop):
                clock = time.perf_counter()
                batch = pending.pop(step).result()
                waited = time.perf_counter() - clock
                if step + ahead < stop:
                    pending[step + ahead] = pool.submit(make, step + ahead)
                yield step, batch, waited
        finally:
            for future in pending.values():
                future.cancel()


class _StopSignal:
    """Turns the first Ctrl-C or SIGTERM into a request that the loop honours after its step; a second Ctrl-C is immediate.

    Of several processes all have to stop after the same step: JAX's own service hears SIGTERM on any of them and agrees on one.
    """

    def __init__(self):
        self._requested = False
        self._number = None
        self._previous = {}
        if jax.process_count() > 1:
            return
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        except ValueError:
            pass  # not in the main thread (a notebook's worker): signals stay as they are

    def requested(self, step: int) -> bool:
        if jax.process_count() > 1 and not self._requested:
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(step):
                self._requested, self._number = True, signal.SIGTERM
        return self._requested

    def _note(self, number, frame):
        self._requested, self._number = True, number
        self.restore()

    def exception(self) -> BaseException:
        # A preempted job has done what it should; an interrupted one tells its shell so.
        return SystemExit(0) if self._number == signal.SIGTERM else KeyboardInterrupt()

    def restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
