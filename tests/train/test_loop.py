"""The training loop on a tiny language model: it learns, resumes bit for bit, and drops what a killed run left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from runs import ROOT, exported, interrupted_after, records, tiny_run

from zett.checkpoint import Checkpoints
from zett.config import MeshConfig
from zett.errors import UserError
from zett.mesh import make_mesh
from zett.optim import make_optimizer
from zett.recipes import recipe_class
from zett.train.run import train
from zett.train.step import abstract_state

pytestmark = pytest.mark.xdist_group("train")


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """An uninterrupted run: (its workdir, its last evaluation)."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, train(tiny_run(corpus), workdir)


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

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr("zett.train.loop.make_step", interrupted_after(7))
        with pytest.raises(KeyboardInterrupt):
            train(tiny_run(corpus), tmp_path / "run")
    assert not (tmp_path / "run" / "export").exists()
    assert signal.getsignal(signal.SIGINT) is handler
    assert train(tiny_run(corpus), tmp_path / "run") == whole[1]
    before, after = exported(whole[0]), exported(tmp_path / "run")
    assert before.keys() == after.keys()
    for name in before:
        np.testing.assert_array_equal(before[name], after[name], err_msg=name)
    # The whole state, the optimizer's included, is the same at the end.
    states = [Checkpoints(w / "checkpoints", 2) for w in (whole[0], tmp_path / "run")]
    assert [c.steps()[-1] for c in states] == [12, 12]
    config, mesh = tiny_run(corpus), make_mesh(MeshConfig())
    recipe = recipe_class(config.recipe).to_export(config, whole[0], mesh)
    abstract = abstract_state(recipe, make_optimizer(config.optim, 12), mesh)
    trees = [c.restore(abstract, 12) for c in states]
    for a, b in zip(*map(jax.tree.leaves, trees), strict=True):
        np.testing.assert_array_equal(a, b)
    for c in states:
        c.close()


def test_a_longer_run_goes_on_and_a_shorter_one_is_refused(whole, corpus, tmp_path):
    train(tiny_run(corpus, steps=4, eval_every=4), tmp_path)
    train(tiny_run(corpus, steps=6, eval_every=2), tmp_path)
    assert list(records(tmp_path, "eval/score")) == [4, 6]
    with pytest.raises(UserError, match=r"holds step 6, more than config\.train\.steps \(4\)"):
        train(tiny_run(corpus, steps=4, eval_every=4), tmp_path)


def test_lines_that_a_killed_run_left_behind_are_dropped(whole, corpus, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    shutil.rmtree(run / "checkpoints" / "12")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 13, "loss": 1.0}\n{"step": 14, "lo')
    train(tiny_run(corpus), run)
    assert records(run) == records(whole[0])
    starts = [json.loads(line) for line in (run / "starts.jsonl").read_text().splitlines()]
    assert [s["step"] for s in starts] == [0, 8] and starts[1]["versions"]["jax"] == jax.__version__


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_that_was_killed_ends_with_the_same_bits():
    """The short form of what tests/train/kill_resume.py does 50 times."""
    done = subprocess.run(
        [sys.executable, "tests/train/kill_resume.py", "--kills", "2", "--steps", "300"],
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kills"] == 2
