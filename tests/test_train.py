"""The training loop on a tiny language model: it learns, resumes bit for bit, and survives Ctrl-C and bad workdirs."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zett.checkpoint import Checkpoints, checksum
from zett.config import Config, MeshConfig, TrainConfig, from_dict
from zett.errors import UserError
from zett.files.jsonfile import write_json
from zett.mesh import make_mesh
from zett.optim import make_optimizer
from zett.train.metrics import Metrics
from zett.train.run import train

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.xdist_group("train")


def tiny(corpus, **train_settings) -> Config:
    settings = {"steps": 12, "log_every": 3, "eval_every": 6, "checkpoint_every": 4, "eval_windows": 4, "dtype": "float32"}
    return from_dict(
        {
            "recipe": "lm",
            "data": {"text": str(corpus), "batch_size": 4, "length": 32, "resegment_share": 0.5},
            "tokenizer": {"vocab_size": 300},
            "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "intermediate_size": 32},
            "optim": {"learning_rate": 1e-2, "warmup_steps": 2},
            "train": settings | train_settings,
        }
    )


def records(workdir, key="loss"):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[key] for line in lines if key in line}


def exported(workdir):
    from safetensors.numpy import load_file

    return {name: np.asarray(x, np.float32) for name, x in load_file(workdir / "export" / "model.safetensors").items()}


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """An uninterrupted run: (its workdir, its last evaluation)."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, train(tiny(corpus), workdir)


def test_it_learns_and_writes_its_files(whole):
    workdir, evaluation = whole
    losses = records(workdir)
    assert list(losses) == [3, 6, 9, 12] and losses[12] < losses[3]
    assert records(workdir, "eval/bits_per_byte")[12] == evaluation["bits_per_byte"] < 8
    assert all(rate > 0 for rate in records(workdir, "tokens_per_s").values())
    assert json.loads((workdir / "config.json").read_text())["train"]["steps"] == 12
    assert (workdir / "export" / "tokenizer.json").exists() and (workdir / "export" / "config.json").exists()
    assert not list(workdir.rglob("*.tmp"))


def test_a_resumed_run_equals_an_uninterrupted_one(whole, corpus, tmp_path, monkeypatch):
    """Stopped after a step that is no checkpoint of its own accord, then started again."""
    import zett.train

    make_step = zett.train.make_step

    def stopping(task, optimizer):
        step_fn = make_step(task, optimizer)

        def step(state, frozen, batch):
            state, values = step_fn(state, frozen, batch)
            if int(state.step) == 7:
                signal.raise_signal(signal.SIGINT)
            return state, values

        return step

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(zett.train, "make_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(tiny(corpus), tmp_path / "run")
    assert not (tmp_path / "run" / "export").exists()
    assert signal.getsignal(signal.SIGINT) is handler
    assert train(tiny(corpus), tmp_path / "run") == whole[1]
    before, after = exported(whole[0]), exported(tmp_path / "run")
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    # The whole state, the optimizer's included, is the same at the end.
    states = [Checkpoints(w / "checkpoints", 2) for w in (whole[0], tmp_path / "run")]
    assert [c.steps()[-1] for c in states] == [12, 12]
    task = zett.train.make_task(tiny(corpus), whole[0], make_mesh(MeshConfig()))
    blank = zett.train.initial_state(task, make_optimizer(tiny(corpus).optim, 12), make_mesh(MeshConfig()))
    trees = [c.restore(blank, 12) for c in states]
    for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_array_equal(a, b)
    for c in states:
        c.close()


def test_a_longer_run_goes_on_and_a_shorter_one_is_refused(whole, corpus, tmp_path):
    train(tiny(corpus, steps=4, eval_every=4), tmp_path)
    train(tiny(corpus, steps=6, eval_every=2), tmp_path)
    assert list(records(tmp_path, "eval/score")) == [4, 6]
    with pytest.raises(UserError, match=r"holds step 6, more than config\.train\.steps \(4\)"):
        train(tiny(corpus, steps=4, eval_every=4), tmp_path)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seed": 1}, r"holds a run with config\.seed = 0, not 1"),
        ({"model": {"hidden_size": 32}}, r"config\.model\.hidden_size = 16, not 32"),
        ({"data": {"length": 64}}, r"config\.data\.length = 32, not 64"),
        ({"recipe": "hypernet"}, r"config\.recipe = 'lm', not 'hypernet'"),
    ],
)
def test_another_config_is_refused(whole, corpus, change, message):
    from zett.config import to_dict

    values = to_dict(tiny(corpus))
    for name, value in change.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    before = (whole[0] / "config.json").read_text()
    with pytest.raises(UserError, match=message):
        train(from_dict(values), whole[0])
    assert (whole[0] / "config.json").read_text() == before


def test_a_damaged_workdir_is_named(corpus, tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not a config"):
        train(tiny(corpus), tmp_path)


def test_an_empty_corpus_is_named(corpus, tmp_path):
    (tmp_path / "texts").mkdir()
    with pytest.raises(UserError, match="no text for the 'train' split"):
        train(tiny(tmp_path / "texts"), tmp_path / "run")


def command(corpus, workdir, *more):
    return [
        sys.executable, "train.py", "--config", "configs/pico_base.py", "--workdir", str(workdir),
        f"--config.data.text={corpus}", "--config.data.batch_size=4", "--config.data.length=32",
        "--config.tokenizer.vocab_size=300", "--config.model.hidden_size=16", "--config.model.num_layers=1",
        "--config.model.intermediate_size=32", "--config.train.eval_windows=4", "--config.train.log_every=5", *more,
    ]  # fmt: skip


@pytest.mark.slow
def test_ctrl_c_saves_and_the_same_command_goes_on(corpus, tmp_path):
    """Two processes, as a user would: interrupt, then finish."""
    workdir = tmp_path / "run"
    endless = subprocess.Popen(
        command(corpus, workdir, "--config.train.steps=1000000"), cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        deadline = time.monotonic() + 600
        while not (workdir / "metrics.jsonl").exists() or not records(workdir):
            assert endless.poll() is None, endless.stderr.read()
            assert time.monotonic() < deadline, "no step within ten minutes"
            time.sleep(0.2)
        endless.send_signal(signal.SIGINT)
        _, stderr = endless.communicate(timeout=60)
    finally:
        endless.kill()
    assert endless.returncode == 130, stderr
    assert f"in {workdir}; the same command goes on from there" in stderr and "Traceback" not in stderr
    saved = max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    done = subprocess.run(
        command(corpus, workdir, f"--config.train.steps={saved + 5}"), cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert f"resumed {workdir} at step {saved}" in done.stderr
    assert max(records(workdir)) == saved + 5


# --------------------------------------------------------------------------------------------------------- checkpoints


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

    monkeypatch.setattr(type(checkpoints._checkpointer), "save_async", fail)
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
    other = Checkpoints(folder.parents[1] / "other", 1)
    other._checkpointer.save(3, {"state": state, "checksum": checksum({**state, "a": jnp.arange(5000.0)})})
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


# -------------------------------------------------------------------------------------------------------------- faults


def spoilt(monkeypatch, steps):
    """Multiply the loss of `steps` by NaN."""
    import zett.train

    make_step = zett.train.make_step

    class Spoilt:
        def __init__(self, task):
            self.task = task

        def loss(self, params, frozen, batch):
            value, metrics = self.task.loss(params, frozen, batch["inner"])
            return value * batch["factor"], metrics

    def make(task, optimizer):
        step_fn = make_step(Spoilt(task), optimizer)

        def step(state, frozen, batch):
            return step_fn(state, frozen, {"inner": batch, "factor": np.float32(np.nan if int(state.step) in steps else 1)})

        return step

    monkeypatch.setattr(zett.train, "make_step", make)


def test_a_step_that_is_not_finite_is_left_out_and_counted(corpus, tmp_path, monkeypatch):
    spoilt(monkeypatch, {4, 5, 8})
    train(tiny(corpus, max_skipped=3, log_every=1), tmp_path)
    assert [records(tmp_path, "skipped")[s] for s in (4, 5, 6, 7, 9, 12)] == [0, 1, 2, 2, 3, 3]
    assert np.isnan(records(tmp_path)[5]) and np.isfinite(records(tmp_path)[12])
    assert all(np.isfinite(x).all() for x in exported(tmp_path).values())


def test_a_run_that_stays_not_finite_stops_with_the_batches_named(corpus, tmp_path, monkeypatch):
    spoilt(monkeypatch, set(range(5, 100)))
    with pytest.raises(UserError, match=r"not finite in 3 steps in a row, 5 to 7"):
        train(tiny(corpus, max_skipped=3), tmp_path)
    assert json.loads((tmp_path / "not_finite.json").read_text())["steps"] == [5, 6, 7]
    assert not (tmp_path / "export").exists()


def test_a_second_run_in_a_live_workdir_is_refused(corpus, tmp_path):
    from zett.train.workdir import only_run

    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, pathlib; from zett.train.workdir import only_run\n"
         "with only_run(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()", str(tmp_path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another run is going on in"):
        train(tiny(corpus), tmp_path)
    holder.kill()  # SIGKILL: the lock goes with the process
    holder.wait()
    with only_run(tmp_path):
        pass


def test_lines_that_a_killed_run_left_behind_are_dropped(whole, corpus, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    shutil.rmtree(run / "checkpoints" / "12")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "loss": 1.0}\n{"step": 14, "lo')
    train(tiny(corpus), run)
    assert records(run) == records(whole[0])
    starts = [json.loads(line) for line in (run / "starts.jsonl").read_text().splitlines()]
    assert [s["step"] for s in starts] == [0, 8] and starts[1]["versions"]["jax"] == jax.__version__


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_was_killed_ends_with_the_same_bits():
    """The short form of what tests/kill_resume.py does 50 times."""
    done = subprocess.run(
        [sys.executable, "tests/kill_resume.py", "--kills", "2", "--steps", "300"],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] == 2


# ------------------------------------------------------------------------------------------------------------ tracking


def test_the_time_of_a_step_is_that_of_its_own_interval(tmp_path, monkeypatch):
    """Though its line is written one interval later, and evaluations come between."""
    clock = [0.0]
    monkeypatch.setattr("zett.metrics.time", types.SimpleNamespace(perf_counter=lambda: clock[0], time=lambda: 0.0))
    metrics = Metrics(tmp_path, TrainConfig(steps=8, log_every=2), tokens_per_step=10, config={})
    metrics.start(0)
    for step in range(1, 9):
        clock[0] += step  # each step takes a second longer
        metrics.step(step, {}, 0.5, 0.0)
        if step in (3, 6):
            metrics.flush()
            clock[0] += 100
            metrics.evaluation(step, {}, 100)
    metrics.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    found = {line["step"]: (line["step_seconds"], line["waiting_for_data"]) for line in lines if "step_seconds" in line}
    assert found == {2: (1.5, 1 / 3), 4: (3.5, 1 / 7), 6: (5.5, 1 / 11), 8: (7.5, 1 / 15)}


def test_a_tracker_that_is_not_installed_is_named(corpus, tmp_path, monkeypatch):
    import zett.metrics

    monkeypatch.setattr(zett.metrics, "_PACKAGES", {"tensorboard": "no_such_package"})
    with pytest.raises(UserError, match="'tensorboard', but no_such_package is not installed: pip install no_such_package"):
        train(tiny(corpus, track=("tensorboard",)), tmp_path / "run")


def test_tensorboard_gets_what_the_json_lines_get(corpus, tmp_path):
    pytest.importorskip("tensorboardX")
    train(tiny(corpus, track=("tensorboard",), steps=4, eval_every=4), tmp_path)
    events = b"".join(p.read_bytes() for p in (tmp_path / "tensorboard").iterdir())
    assert b"loss" in events and b"eval/score" in events and b"tokens_per_s" in events


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": "ü"})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": "ü"}
