"""Saving and restoring training state: the only file that knows orbax."""

import contextlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from zett.errors import UserError


class Checkpoints:
    """Checkpoints of one workdir: the latest `keep`, and the one with the lowest "score" among their metrics.

    reading: nothing is changed, so that the run which writes them may go on meanwhile.
    """

    def __init__(self, folder: Path, keep: int, reading: bool = False):
        import logging

        # Failures are raised as exceptions, so the tracebacks that orbax logs as well are not needed.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        from orbax.checkpoint.experimental import v1 as ocp

        policies = ocp.training.preservation_policies
        best = policies.BestN(get_metric_fn=lambda m: -m["score"], n=1, keep_checkpoints_without_metrics=False)
        self._folder = folder
        # At the start this removes the temporary folders that a killed run left behind.
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(),
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            cleanup_tmp_directories=not reading,
        )

    def steps(self) -> list[int]:
        return sorted(c.step for c in self._checkpointer.checkpoints)

    def save(self, step: int, state, score: float | None) -> None:
        """Write `state` as the checkpoint of `step`, in the background. If that step is already saved, nothing is done."""
        if step not in self.steps():
            metrics = None if score is None else {"score": float(score)}
            with self._disk_full_is_the_users():
                # Without force, orbax silently skips a save while another one is still being written.
                content = {"state": state, "checksum": checksum(state)}
                self._checkpointer.save_async(step, content, metrics=metrics, force=True)

    def restore(self, state, step: int):
        """The state saved at `step`, with the structure, dtypes and shardings of `state`. UserError if it is damaged."""
        self.wait()
        # Without a sharding, orbax would need the same devices that the checkpoint was saved on.
        sum_of = jax.ShapeDtypeStruct((), np.uint32, sharding=_whole(jax.tree.leaves(state)[0]))
        abstract = {"state": jax.tree.map(_abstract, state), "checksum": sum_of}
        try:
            content = self._checkpointer.load(step, abstract_state=abstract)
        # orbax and tensorstore raise many kinds of exceptions for a damaged file.
        except Exception as error:
            why = " ".join(str(error.__cause__ or error).split())
            raise UserError(
                f"the checkpoint of step {step} in {self._folder} is damaged or does not fit this config ({why:.300})"
            ) from error
        if int(checksum(content["state"])) != int(content["checksum"]):
            raise UserError(f"the checkpoint of step {step} in {self._folder} is damaged (its checksum differs)")
        return content["state"]

    def restore_latest(self, state, say: Callable[[str], None]):
        """The newest whole state, or None if there is no checkpoint. A damaged one is named through `say` and moved aside.

        UserError if none can be read.
        """
        steps = self.steps()
        faults: list[tuple[int, UserError]] = []
        for step in reversed(steps):
            try:
                restored = self.restore(state, step)
            except UserError as error:
                faults.append((step, error))
                continue
            for bad, fault in faults:
                aside = self._folder.parent / f"damaged-checkpoint-{bad}"
                say(f"{fault}; going on from step {step}, and the damaged one is kept as {aside}")
                self._move_aside(bad, aside)
            return restored
        if faults:
            raise UserError(f"{faults[0][1]}, and there is no earlier one to go on from; give another --workdir")
        return None

    def _move_aside(self, step: int, aside: Path) -> None:
        if jax.process_index() == 0:
            shutil.rmtree(aside, ignore_errors=True)
            (self._folder / str(step)).rename(aside)
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices(f"moved checkpoint {step}")
        self._checkpointer.reload()

    def best(self) -> int | None:
        """The step with the lowest score, or None."""
        scored = [(c.metrics["score"], c.step) for c in self._checkpointer.checkpoints if c.metrics]
        return min(scored)[1] if scored else None

    def wait(self) -> None:
        """Wait until everything is on the disk. UserError if the disk is full; earlier checkpoints are not affected."""
        with self._disk_full_is_the_users():
            self._checkpointer.wait()

    @contextlib.contextmanager
    def _disk_full_is_the_users(self):
        try:
            yield
        except (OSError, ValueError) as error:  # tensorstore raises ValueError for everything
            if "No space left" in str(error) or "quota exceeded" in str(error):
                free = shutil.disk_usage(self._folder).free / 1e6
                raise UserError(
                    f"the disk is full: cannot save a checkpoint in {self._folder} ({free:.0f} MB free); make room, "
                    "and the same command goes on from the checkpoint before"
                ) from error
            raise

    def close(self) -> None:
        self._checkpointer.close()


def _abstract(x):
    return jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=getattr(x, "sharding", None))


def _whole(x) -> jax.sharding.Sharding | None:
    """The sharding of an array that is whole on every device of `x`."""
    where = getattr(x, "sharding", None)
    return NamedSharding(where.mesh, PartitionSpec()) if isinstance(where, NamedSharding) else where


@jax.jit
def checksum(tree):
    """A uint32 of all values and their places. It is the same under any sharding, since integers add up in any order.

    A storage layer may return zeros in place of a chunk that was lost, and report no error; the checksum detects this.
    """
    total = jnp.zeros((), jnp.uint32)
    for number, x in enumerate(jax.tree.leaves(tree)):
        x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
        bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * min(x.dtype.itemsize, 4)}")).astype(jnp.uint32)
        place = jnp.full(bits.shape, 2 * number + 1, jnp.uint32)
        for axis in range(bits.ndim):
            stride = 2 * math.prod(bits.shape[axis + 1 :]) % 2**32
            place = place + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * jnp.uint32(stride)
        total = total + jnp.sum(bits * place, dtype=jnp.uint32)
    return total
