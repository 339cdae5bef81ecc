"""Exporting a released hypernetwork: in fewer bytes, and again as it is."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from zett import cli
from zett.checkpoint import Checkpoints
from zett.errors import UserError
from zett.export import _restored, export
from zett.hypernet.release import load_hypernet, save_hypernet


def test_int8_and_again_as_it_is(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", "--hypernet", "pico", "--weights", "int8", "--output", str(tmp_path / "small")])
    assert stopped.value.code == 0 and f"wrote {tmp_path / 'small'}" in capsys.readouterr().out
    export("pico", tmp_path / "wide", weights="float32")
    files = [tmp_path / name / "model.safetensors" for name in ("wide", "small")]
    assert files[1].stat().st_size < 0.3 * files[0].stat().st_size
    export(tmp_path / "small", tmp_path / "again")
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == files[1].read_bytes()


def test_an_unknown_form_writes_nothing(tmp_path):
    with pytest.raises(UserError, match=r"weights is 'int4'; it has to be one of float32, bfloat16, int8"):
        export("pico", tmp_path / "out", weights="int4")
    assert not any(tmp_path.iterdir())


def test_the_mean_of_two(tmp_path, capsys):
    pico = load_hypernet("pico")
    params, changes = jax.tree.map(lambda x: 3 * np.asarray(x, np.float32), (pico.params, pico.changes))
    other = dataclasses.replace(pico, params=params, changes=changes)
    save_hypernet(tmp_path / "other", other, pico.source_tokenizer(), {"step": 7})
    with pytest.raises(SystemExit) as stopped:
        cli.main(["export", "--hypernet", str(tmp_path / "other"), "--mean-with", "pico", "--output", str(tmp_path / "mean")])
    assert stopped.value.code == 0
    mean = load_hypernet(tmp_path / "mean")
    for made, whole in ((mean.params, pico.params), (mean.changes, pico.changes)):
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, 2 * np.asarray(y, np.float32), rtol=1e-6), made, whole)
    record = json.loads((tmp_path / "mean" / "training.json").read_text())
    assert record["step"] == 7 and record["mean_with"]["step"] > 0
    assert "the mean of those" in (tmp_path / "mean" / "README.md").read_text()


def test_a_mean_with_another_kind_writes_nothing(tmp_path):
    with pytest.raises(
        UserError, match=r"mean_with is '.*smollm2-hypernet', which is for smollm2.*; the mean is taken with one for pico"
    ):
        export("pico", tmp_path / "out", mean_with="smollm2")
    export("pico", tmp_path / "other")
    with pytest.raises(UserError, match="other"):  # what is read is not written over
        export("pico", tmp_path / "other", mean_with=tmp_path / "other", overwrite=True)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_a_live_run_removes_meanwhile(tmp_path, monkeypatch):
    """The best is taken, but gone when it is read, as after a better one: then that is. A damaged one is an error."""
    state = {"x": jnp.arange(4.0)}
    writing = Checkpoints(tmp_path / "checkpoints", 3)
    for step, score in ((1, 1.0), (2, 2.0)):
        writing.save(step, {"x": state["x"] * step}, score)
    writing.close()
    restore, asked = Checkpoints.restore, []

    def too_late(self, blank, step):
        asked.append(step)
        if len(asked) == 1:
            shutil.rmtree(tmp_path / "checkpoints" / str(step))
        return restore(self, blank, step)

    monkeypatch.setattr(Checkpoints, "restore", too_late)
    np.testing.assert_array_equal(_restored(tmp_path, 3, "best", state)["x"], 2 * np.arange(4.0))
    assert asked == [1, 2]
    for file in (tmp_path / "checkpoints" / "2" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        _restored(tmp_path, 3, "latest", state)
