"""Saving and restoring training state: the only file that knows orbax."""

import contextlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np

from zett.errors import UserError


class Checkpoints:
    """Checkpoints of one workdir: the latest `keep`, and the one with the lowest "score" among their metrics."""

    def __init__(self, folder: Path, keep: int):
        import logging

        # What fails is raised; orbax would log its traceback as well.
        logging.getLogger("absl").setLevel(logging.CRITICAL)
        from orbax.checkpoint.experimental import v1 as ocp

        policies = ocp.training.preservation_policies
        best = policies.BestN(get_metric_fn=lambda m: -m["score"], n=1, keep_checkpoints_without_metrics=False)
        self._folder = folder
        # The async writer's temporary folders of a killed run are removed on start.
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(),
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(keep), best]),
            cleanup_tmp_directories=True,
        )

    def steps(self) -> list[int]:
        return sorted(c.step for c in self._checkpointer.checkpoints)

    def save(self, step: int, state, score: float | None) -> None:
        """Write `state` under `step` in the background; a step already there is left alone."""
        if step not in self.steps():
            metrics = None if score is None else {"score": float(score)}
            with self._disk_full_is_the_users():
                # Not forced, orbax leaves out a save that comes while another one is being written, and says nothing.
                self._checkpointer.save_async(step, state, metrics=metrics, force=True)

    def restore(self, state, step: int | None = None):
        """The state saved at `step` (None: the latest), with the structure, dtypes and shardings of `state`."""
        self.wait()
        try:
            return self._checkpointer.load(step, abstract_state=jax.tree.map(_abstract, state))
        except (ValueError, KeyError) as error:  # the second one wraps the first, in a page of text
            why = str(error.__cause__ or error)
            raise UserError(
                f"the checkpoint in {self._folder} does not fit this config, or is damaged; give another --workdir ({why:.500})"
            ) from error

    def best(self) -> int | None:
        """The step with the lowest score, or None."""
        scored = [(c.metrics["score"], c.step) for c in self._checkpointer.checkpoints if c.metrics]
        return min(scored)[1] if scored else None

    def wait(self) -> None:
        """Until what is being saved is on disk. Raises UserError if the disk is full; the checkpoints before are intact."""
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


def write_json(path: Path, value) -> None:
    """Write beside, then rename: readers never see half a file."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    temporary.rename(path)
