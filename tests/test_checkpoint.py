"""Checkpoints: none is left out, the latest and the best stay, and a damaged one is told from a whole one."""

import errno
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from orbax.checkpoint.experimental.v1 import training
from runs import ROOT, environment

from zett.checkpoint import Checkpoints, checksum
from zett.errors import UserError
from zett.mesh import REPLICATED, one_device


@pytest.mark.parametrize(
    "error",
    [
        ValueError("RESOURCE_EXHAUSTED: ... No space left on device [os_error_code='28']"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_full_disk_is_one_clear_error(tmp_path, monkeypatch, error):
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    checkpoints.save(1, {"a": jnp.arange(3.0)}, None)
    checkpoints.wait()

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(training.Checkpointer, "save_async", fail)
    with pytest.raises(UserError, match=r"the disk is full: cannot save a checkpoint in .*checkpoints"):
        checkpoints.save(2, {"a": jnp.arange(3.0)}, None)
    monkeypatch.undo()
    np.testing.assert_array_equal(checkpoints.restore({"a": jnp.zeros(3)}, 1)["a"], np.arange(3.0))
    checkpoints.close()


def test_no_save_is_left_out(tmp_path):
    """However close on one another they come, and although the state's buffers are reused by the next step."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", 4)
    step_fn = jax.jit(lambda a: a + 1, donate_argnums=0)
    state = jnp.zeros(300_000)
    for step in range(1, 5):
        state = step_fn(state)
        checkpoints.save(step, {"a": state}, None)
    state = step_fn(state)
    checkpoints.wait()
    assert checkpoints.steps() == [1, 2, 3, 4]
    for step in range(1, 5):
        restored = checkpoints.restore({"a": jnp.zeros(300_000)}, step)["a"]
        np.testing.assert_array_equal(restored, np.full(300_000, step))
    checkpoints.close()


def test_the_latest_and_the_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", 2)
    for step, score in [(1, 3.0), (2, 1.0), (3, 2.0), (4, None), (5, None)]:
        checkpoints.save(step, {"a": jnp.full(2, float(step))}, score)
        checkpoints.wait()
    assert checkpoints.steps() == [2, 4, 5] and checkpoints.best() == 2
    np.testing.assert_array_equal(checkpoints.restore({"a": jnp.zeros(2)}, 2)["a"], [2, 2])
    np.testing.assert_array_equal(checkpoints.restore_latest({"a": jnp.zeros(2)}, print)["a"], [5, 5])
    for other in ({"a": jnp.zeros(3)}, {"a": jnp.zeros(2), "b": jnp.zeros(2)}, {"b": jnp.zeros(2)}):
        with pytest.raises(UserError, match=r"step 5 in .* is damaged or does not fit this config"):
            checkpoints.restore(other, 5)
        with pytest.raises(UserError, match="no earlier one to go on from"):
            checkpoints.restore_latest(other, print)
    assert checkpoints.steps() == [2, 4, 5]
    checkpoints.close()


def _truncate(folder):
    for file in folder.rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            os.truncate(file, file.stat().st_size // 2)


def _remove(folder):
    for file in folder.rglob("d/*"):
        file.unlink()


def _flip(folder):
    """The values of one array are replaced, consistently for the storage layer: only the checksum can tell."""
    state = {"a": jnp.arange(5000.0).at[7].add(1), "b": jnp.ones((), bool)}
    other = training.Checkpointer(folder.parents[1] / "other")
    other.save(3, {"state": state, "checksum": checksum({**state, "a": jnp.arange(5000.0)})})
    other.close()
    shutil.rmtree(folder)
    (folder.parents[1] / "other" / "3").rename(folder)


@pytest.mark.parametrize("damage", [_truncate, _remove, _flip])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, damage):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, 3)
    blank = {"a": jnp.zeros(5000), "b": jnp.zeros((), bool)}
    for step in (1, 2, 3):
        checkpoints.save(step, {"a": jnp.arange(5000.0) * step, "b": jnp.ones((), bool)}, None)
    checkpoints.close()
    damage(folder / "3")
    checkpoints, said = Checkpoints(folder, 3), []
    restored = checkpoints.restore_latest(blank, said.append)
    np.testing.assert_array_equal(restored["a"], np.arange(5000.0) * 2)
    assert "step 3" in said[0] and "damaged" in said[0] and "going on from step 2" in said[0]
    assert checkpoints.steps() == [1, 2] and (tmp_path / "damaged-checkpoint-3").is_dir()
    checkpoints.save(3, restored, None)  # the run comes to that step again
    checkpoints.wait()
    np.testing.assert_array_equal(checkpoints.restore(blank, 3)["a"], np.arange(5000.0) * 2)
    checkpoints.close()


def test_the_checksum_sees_every_bit_and_every_place():
    tree = {"a": jnp.arange(12.0).reshape(3, 4), "b": jnp.asarray(3, jnp.int32), "c": jnp.ones(3, jnp.bfloat16)}
    sums = {int(checksum(tree)), int(checksum({**tree, "b": jnp.asarray(4, jnp.int32)}))}
    sums |= {
        int(checksum({**tree, "a": tree["a"].T.reshape(3, 4)})),
        int(checksum({**tree, "c": tree["c"].at[2].set(1.0078125)})),
    }
    assert len(sums) == 4
    assert int(checksum(tree)) == int(checksum(jax.tree.map(jnp.array, tree)))


def test_a_checkpoint_goes_on_on_other_devices(tmp_path):
    """Saved on four, restored on one."""
    state = {"a": np.arange(8.0, dtype=np.float32), "b": np.int32(3)}
    save = """
import jax, sys, numpy as np
from pathlib import Path
from jax.sharding import PartitionSpec
from zett.checkpoint import Checkpoints
from zett.config import MeshConfig
from zett.mesh import make_mesh, state_shardings
state = {"a": np.arange(8.0, dtype=np.float32), "b": np.int32(3)}
where = state_shardings(make_mesh(MeshConfig(data=1, fsdp=4)), state, {"a": PartitionSpec("fsdp")})
checkpoints = Checkpoints(Path(sys.argv[1]), 2)
checkpoints.save(7, jax.device_put(state, where), None)
checkpoints.close()
"""
    subprocess.run([sys.executable, "-c", save, str(tmp_path)], cwd=ROOT, env=environment(4), check=True)
    mesh = one_device()
    blank = jax.device_put(jax.tree.map(np.zeros_like, state), NamedSharding(mesh, REPLICATED))
    checkpoints = Checkpoints(tmp_path, 2)
    assert checkpoints.steps() == [7]
    jax.tree.map(np.testing.assert_array_equal, checkpoints.restore(blank, 7), state)
    checkpoints.close()
