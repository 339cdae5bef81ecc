"""What ends a run before its last step: gradients that stay non-finite, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from runs import ROOT, Spoilt, exported, records, tiny_run

from zett.config import TrainConfig
from zett.errors import UserError
from zett.train.guards import Limit
from zett.train.run import train
from zett.train.step import make_step

pytestmark = pytest.mark.xdist_group("train")


def spoilt(monkeypatch, steps):
    """Multiply the loss of `steps` by NaN."""

    def make(recipe, optimizer):
        step_fn = make_step(Spoilt(recipe), optimizer)

        def step(state, frozen, batch):
            return step_fn(state, frozen, {"inner": batch, "factor": np.float32(np.nan if int(state.step) in steps else 1)})

        return step

    monkeypatch.setattr("zett.train.loop.make_step", make)


def test_a_step_that_is_not_finite_is_left_out_and_counted(corpus, tmp_path, monkeypatch):
    spoilt(monkeypatch, {4, 5, 8})
    train(tiny_run(corpus, max_skipped=3, log_every=1), tmp_path)
    assert [records(tmp_path, "skipped")[s] for s in (4, 5, 6, 7, 9, 12)] == [0, 1, 2, 2, 3, 3]
    assert np.isnan(records(tmp_path)[5]) and np.isfinite(records(tmp_path)[12])
    assert all(np.isfinite(x).all() for x in exported(tmp_path).values())


def test_a_run_that_stays_not_finite_stops_with_the_batches_named(corpus, tmp_path, monkeypatch):
    spoilt(monkeypatch, set(range(5, 100)))
    with pytest.raises(UserError, match=r"not finite in 3 steps in a row, 5 to 7"):
        train(tiny_run(corpus, max_skipped=3), tmp_path)
    assert json.loads((tmp_path / "not_finite.json").read_text())["steps"] == [5, 6, 7]
    assert not (tmp_path / "export").exists()


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


def test_a_limit_of_time(monkeypatch):
    """Half of it at the full rate, then down to 0; an evaluation after each eighth; evaluations and compiling do not count."""
    now = [100.0]
    monkeypatch.setattr("zett.train.guards.time.perf_counter", lambda: now[0])
    limit = Limit(TrainConfig(minutes=1.0))
    assert limit.rate() == {"rate": 1} and not limit.due() and not limit.over()
    limit.evaluated(3.0, 50.0)  # before the first step
    now[0] = 200.0
    limit.begin()
    found = []
    for _ in range(64):
        now[0] += 1.0
        if limit.due():
            now[0] += 7.0
            limit.evaluated(2.0, 7.0)
        found.append(float(limit.rate()["rate"]))
        if limit.over():
            break
    assert len(found) == 60 and now[0] == 200 + 60 + 8 * 7
    assert found[:30] == [1.0] * 30 and found[-1] == 0 and np.allclose(np.diff(found[30:]), -1 / 30, atol=1e-6)


def test_what_has_converged_ends(monkeypatch):
    """With a limit of time, its second half begins; without one, the run ends."""
    limit = Limit(TrainConfig(patience=2))
    for score, over in ((2.0, False), (1.9, False), (1.8995, False), (1.8999, True)):
        limit.evaluated(score, 1.0)
        assert limit.over() == over
    assert limit.rate() == {} and not limit.due()
    now = [5.0]
    monkeypatch.setattr("zett.train.guards.time.perf_counter", lambda: now[0])
    limit = Limit(TrainConfig(minutes=1000.0, patience=1))
    limit.begin()
    limit.evaluated(2.0, 0.0)
    now[0] = 105.0
    limit.evaluated(2.0, 0.0)
    for seconds, rate in ((100, 1.0), (150, 0.5), (200, 0.0)):
        now[0] = 5.0 + seconds
        assert float(limit.rate()["rate"]) == pytest.approx(rate) and limit.over() == (rate == 0)
