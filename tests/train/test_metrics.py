"""Metrics: what a line says of its own interval, utilisation, and trackers beside metrics.jsonl."""

import json
import sys
import types

import jax
import pytest
from runs import tiny_run

from zett.config import TrainConfig
from zett.errors import UserError
from zett.plan import devices
from zett.train.metrics import Metrics
from zett.train.run import train

pytestmark = pytest.mark.xdist_group("train")


def test_the_time_of_a_step_is_that_of_its_own_interval(tmp_path, monkeypatch):
    """Though its line is written one interval later, and evaluations come between."""
    clock = [0.0]
    monkeypatch.setattr("zett.train.metrics.time", types.SimpleNamespace(perf_counter=lambda: clock[0], time=lambda: 0.0))
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
    # The first step compiles, so its time is nobody's.
    assert found == {2: (2.0, 1 / 4), 4: (3.5, 1 / 7), 6: (5.5, 1 / 11), 8: (7.5, 1 / 15)}


def test_the_time_of_a_step_ends_when_the_device_is_done(tmp_path, monkeypatch, capsys):
    """Steps are handed to the device at once, and computed one after the other: 5 seconds each, after the first."""
    clock, device = [0.0], [0.0]
    monkeypatch.setattr("zett.train.metrics.time", types.SimpleNamespace(perf_counter=lambda: clock[0], time=lambda: 0.0))

    class Value:
        def __init__(self, step):
            device[0] += 60 if step == 1 else 5
            self.done = device[0]

        def __float__(self):
            clock[0] = max(clock[0], self.done)
            return 1.0

    metrics = Metrics(tmp_path, TrainConfig(steps=5, log_every=1), tokens_per_step=10, config={})
    metrics.start(0)
    for step in range(1, 6):
        loss = Value(step)
        if step == 1:
            float(loss)
        metrics.step(step, {"loss": loss}, 0.0, 0.0)
    metrics.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("step_seconds") for line in lines] == [None, 5.0, 5.0, 5.0, 5.0]
    shown = [line.split("  ") for line in capsys.readouterr().err.splitlines()]
    assert ["step 1/5", "loss 1"] in shown and ["step 2/5", "loss 1", "tokens_per_s 2", "left 0:15"] in shown


def test_a_tracker_that_is_not_installed_is_named(corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # as if it were not there
    with pytest.raises(UserError, match="'tensorboard', but tensorboardX is not installed: pip install tensorboardX"):
        train(tiny_run(corpus, track=("tensorboard",)), tmp_path / "run")


def test_tensorboard_gets_what_the_json_lines_get(corpus, tmp_path):
    pytest.importorskip("tensorboardX")
    train(tiny_run(corpus, track=("tensorboard",), steps=4, eval_every=4), tmp_path)
    events = b"".join(p.read_bytes() for p in (tmp_path / "tensorboard").iterdir())
    assert b"loss" in events and b"eval/score" in events and b"tokens_per_s" in events


def test_utilisation_is_logged_where_the_peak_is_known(tmp_path, monkeypatch):
    def logged(workdir):
        workdir.mkdir()
        metrics = Metrics(workdir, TrainConfig(log_every=2, steps=4), tokens_per_step=100, config={})
        metrics.start(0)
        for step in range(1, 5):
            metrics.step(step, {"loss": 1.0}, 0.0, flops=3e12)
        metrics.close()
        return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]

    for line in logged(tmp_path / "cpu"):
        assert line["tflops_per_s"] == pytest.approx(3 * line["steps_per_s"] / jax.device_count()) and "mfu" not in line
    known = devices.Device("mine", (jax.devices()[0].device_kind,), 1e15, 1)
    monkeypatch.setattr(devices, "DEVICES", (known,))
    for line in logged(tmp_path / "known"):
        assert line["mfu"] == pytest.approx(line["tflops_per_s"] / 1000)
