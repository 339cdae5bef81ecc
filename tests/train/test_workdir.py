"""Whose folder a workdir is, and what is left of a run that never began: nothing."""

import dataclasses
import json
import shutil
import subprocess
import sys

import pytest
import tiny
from runs import ROOT, tiny_run

from zett.config import Config, TrainConfig, to_dict
from zett.errors import UserError
from zett.train.run import train
from zett.train.workdir import check_workdir, has_begun, held_workdir, only_run

pytestmark = pytest.mark.xdist_group("train")


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def hypernet_run(corpus, **settings) -> Config:
    train_settings = settings.pop("train", TrainConfig(steps=2))
    lm = tiny_run(corpus)
    return dataclasses.replace(lm, recipe="hypernet", **{"base": "pico", "train": train_settings} | settings)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"base": "/no/such/model"}, "no folder /no/such/model with a base model"),
        ({"train": TrainConfig(eval_targets=("/no/such/tokenizer",))}, "/no/such/tokenizer"),
        ({"train": TrainConfig(eval_targets=("bpe8k",))}, "'bpe8k' is neither"),
        ({"start": "/no/such/hypernet"}, "/no/such/hypernet"),
        ({"data": {"text": "/no/such/texts"}}, "/no/such/texts"),
        ({"data": {"valid_text": "/no/such/valid"}}, "/no/such/valid"),
    ],
)
def test_a_mistake_leaves_no_workdir(corpus, tmp_path, change, message):
    config = hypernet_run(corpus)
    if "data" in change:
        change = {"data": dataclasses.replace(config.data, **change["data"])}
    with pytest.raises(UserError, match=message):
        train(hypernet_run(corpus, **change), tmp_path / "runs" / "mine")
    assert names(tmp_path) == []  # the parents that were made are gone, too


def test_the_corrected_command_is_not_forbidden(corpus, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a word or two\n")
    wrong = tiny_run(tmp_path / "texts", steps=2)
    with pytest.raises(UserError, match="there have to be more than"):  # with the tokenizer trained already
        train(wrong, tmp_path / "run")
    assert names(tmp_path) == ["texts"]
    train(tiny_run(corpus, steps=2, log_every=1), tmp_path / "run")
    assert (tmp_path / "run" / "export").is_dir()


def test_what_fails_in_the_first_step_leaves_nothing_either(corpus, tmp_path, monkeypatch):
    def fail(state, frozen, batch):
        raise MemoryError

    (tmp_path / "run").mkdir()
    monkeypatch.setattr("zett.train.loop.make_step", lambda recipe, optimizer: fail)
    with pytest.raises(MemoryError):
        train(tiny_run(corpus, steps=2), tmp_path / "run")
    assert names(tmp_path) == ["run"] and names(tmp_path / "run") == []  # the folder was there before


def test_a_run_that_was_killed_before_its_first_step_forbids_nothing(corpus, tmp_path):
    workdir = tmp_path / "run"
    (workdir / "tokenizer").mkdir(parents=True)
    (workdir / "tokenizer" / "tokenizer.json").write_text("{half of")
    (workdir / "config.json").write_text(json.dumps(to_dict(tiny_run(corpus)) | {"seed": 7}))
    train(tiny_run(corpus, steps=2, log_every=1), workdir)
    assert json.loads((workdir / "config.json").read_text())["seed"] == 0


def test_folders_of_others_are_refused(corpus, tmp_path):
    model = tiny.base_folder(tmp_path / "model")
    notes = tmp_path / "notes"
    (notes / "chapter").mkdir(parents=True)
    (notes / "thesis.tex").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for folder, message in [
        (model, r"holds what no run has written \(config\.json, generation_config\.json, .* more\)"),
        (notes, r"\(chapter, thesis\.tex\)"),
        (tmp_path / "file", "is a file"),
    ]:
        before = sorted(folder.rglob("*"))
        with pytest.raises(UserError, match=message):
            train(tiny_run(corpus), folder)
        assert sorted(folder.rglob("*")) == before
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".DS_Store").write_text("")
    check_workdir(tmp_path / "hidden")


def test_a_run_that_has_begun_is_never_removed(corpus, tmp_path):
    workdir = tmp_path / "run"
    train(tiny_run(corpus, steps=2, log_every=1), workdir)
    before = names(workdir)
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(RuntimeError), held_workdir(workdir):
        (workdir / "new").write_text("")
        raise RuntimeError
    assert has_begun(workdir) and names(workdir) == sorted({*before, "new"} - {"checkpoints"})


def test_a_start_that_is_refused_does_not_touch_the_run_that_is_going_on(corpus, tmp_path):
    workdir = tmp_path / "run"
    workdir.mkdir()
    with only_run(workdir):
        (workdir / "config.json").write_text(json.dumps(to_dict(tiny_run(corpus))))
        with pytest.raises(UserError, match="another run is going on"):
            train(tiny_run(corpus), workdir)
        assert names(workdir) == [".lock", "config.json"]


def test_a_second_run_in_a_live_workdir_is_refused(corpus, tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, pathlib; from zett.train.workdir import only_run\n"
         "with only_run(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()", str(tmp_path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="another run is going on in"):
        train(tiny_run(corpus), tmp_path)
    holder.kill()  # SIGKILL: the lock goes with the process
    holder.wait()
    with only_run(tmp_path):
        pass
