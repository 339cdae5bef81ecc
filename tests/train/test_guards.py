"""What ends a run before its last step: gradients that stay non-finite, Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from runs import ROOT, exported, records, tiny_run

from zett.errors import UserError
from zett.train.run import train
from zett.train.step import make_step

pytestmark = pytest.mark.xdist_group("train")


def spoilt(monkeypatch, steps):
    """Multiply the loss of `steps` by NaN."""

    class Spoilt:
        def __init__(self, recipe):
            self.recipe = recipe

        def loss(self, params, frozen, batch):
            value, metrics = self.recipe.loss(params, frozen, batch["inner"])
            return value * batch["factor"], metrics

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
