"""`zett refine`: what it writes, what it says, and that an interrupt writes what there is."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny
from runs import ROOT

from zett import cli
from zett.commands.refine import weights
from zett.errors import UserError
from zett.lms import load_base_model
from zett.refine import RATE_OF_PREDICTED, RATE_OF_ROWS, _rate, refine, transfer_and_refine
from zett.transfer import transfer

pytestmark = pytest.mark.xdist_group("refine")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refine")
    tiny.base_folder(folder / "original", tied=True, dtype="float32")
    tiny.tokenizer_folder(folder / "tokenizer", "unigram", 330)
    transfer(folder / "original", folder / "tokenizer", folder / "start", method="fvt")
    return folder


SMALL = {"batch_size": 4, "length": 32, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def refined(folder, corpus):
    """Refined against the model that zett.json names."""
    return refine(
        folder / "start", str(corpus), folder / "refined", minutes=0.05, distil={"hidden": 0.5, "chunk": 0.1}, **SMALL
    )


def test_it_is_better_and_says_so(refined, folder):
    record = json.loads((refined / "refinement.json").read_text())
    before, after = record["before"], record["after"]
    assert before["step"] == 0 and after["step"] == record["steps"] > 0 and record["loss"] == {"hidden": 0.5, "chunk": 0.1}
    assert after["ratio"] < before["ratio"] and after["seconds"] <= record["seconds"]
    assert [p["seconds"] for p in record["curve"]] == sorted(p["seconds"] for p in record["curve"])
    assert (refined / "refinement.png").read_bytes()[:4] == b"\x89PNG"
    card = (refined / "README.md").read_text()
    assert "the rows of its vocabulary alone" in card and "(refinement.png)" in card and (refined / "README_before.md").exists()
    marker = json.loads((refined / "zett.json").read_text())
    assert marker["command"] == "refine" and marker["settings"]["original"] == str(folder / "original")
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]  # nothing is left of the run
    rows = [np.asarray(load_base_model(f, body=False).table.input) for f in (folder / "start", refined)]
    assert rows[0].shape == rows[1].shape and not np.array_equal(*rows)


def test_rows_that_are_near_their_place_move_less(refined, folder):
    base = load_base_model(folder / "start", body=False)
    assert _rate(base, folder / "start") == pytest.approx(RATE_OF_ROWS * np.std(base.table.input), rel=1e-4)
    assert _rate(base, refined) == pytest.approx(RATE_OF_PREDICTED * np.std(base.table.input), rel=1e-4)


@pytest.mark.slow
def test_a_refined_model_knows_the_original(refined, corpus, tmp_path):
    again = refine(refined, str(corpus), tmp_path / "again", minutes=0.01, distil={"hidden": 1.0}, **SMALL)
    assert "ratio" in json.loads((again / "refinement.json").read_text())["before"]


@pytest.mark.slow
def test_untied_rows(folder, corpus, tmp_path):
    argv = [
        "refine",
        "--model",
        folder / "start",
        "--text",
        corpus,
        "--output",
        tmp_path / "out",
        "--untie",
        "--minutes",
        "0.01",
    ]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*map(str, argv), "--batch-size", "4", "--length", "32"])
    assert stopped.value.code == 0 and json.loads((tmp_path / "out" / "zett.json").read_text())["settings"]["untie"] is True
    table = load_base_model(tmp_path / "out", body=False).table
    assert table.output is not None and not np.array_equal(table.input, table.output)


@pytest.mark.slow
def test_without_an_original_it_learns_from_text_alone(folder, corpus, tmp_path):
    found = refine(folder / "start", str(corpus), tmp_path / "out", minutes=0.01, original="none", body_rank=1, **SMALL)
    record = json.loads((found / "refinement.json").read_text())
    assert record["loss"] == {"hidden": 0.0, "chunk": 0.0} and "ratio" not in record["before"]
    assert "changes of rank 1" in (found / "README.md").read_text()


@pytest.mark.slow
def test_transfer_refines(folder, corpus, tmp_path, capsys):
    argv = ["transfer", "--model", str(folder / "original"), "--tokenizer", str(folder / "tokenizer"), "--method", "fvt"]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*argv, "--refine", str(corpus), "--minutes", "0.01", "--output", str(tmp_path / "both")])
    assert stopped.value.code == 0
    assert "bits per byte before" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["both"]
    marker = json.loads((tmp_path / "both" / "zett.json").read_text())
    assert marker["command"] == "refine" and marker["settings"]["model"] == str(folder / "original")
    assert marker["settings"]["transferred"]["method"] == "fvt"
    assert f"Started from: `{folder / 'original'} transferred`" in (tmp_path / "both" / "README.md").read_text()
    for path in (tmp_path / "both").iterdir():  # nothing names the folder between the two, which is gone
        assert b"/.both." not in path.read_bytes(), path
    assert "ratio" in json.loads((tmp_path / "both" / "refinement.json").read_text())["after"]  # of text alone, too


@pytest.mark.slow
def test_an_interrupt_writes_what_there_is(folder, corpus, tmp_path):
    program = "from zett.cli import main; main()"
    argv = ["refine", "--model", folder / "start", "--text", corpus, "--minutes", "60", "--batch-size", "4", "--length", "32"]
    with (tmp_path / "stderr").open("w") as file:
        running = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, argv), "--output", str(tmp_path / "out")],
            cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL, stderr=file,
        )  # fmt: skip
        while "loss" not in (said := (tmp_path / "stderr").read_text()):
            assert running.poll() is None, said
            time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=300) == 130
    assert "stopped; writing what there is" in (tmp_path / "stderr").read_text()
    assert load_base_model(tmp_path / "out").vocab.kind == "Unigram"
    assert json.loads((tmp_path / "out" / "refinement.json").read_text())["steps"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"out", "stderr"}


def test_mistakes(folder, corpus, tmp_path, capsys):
    with pytest.raises(UserError, match=r"distil has 'hiden'; did you mean hidden"):
        refine(folder / "start", str(corpus), tmp_path / "out", distil={"hiden": 1.0})
    with pytest.raises(UserError, match=r"there is no original to learn from"):
        refine(folder / "start", str(corpus), tmp_path / "out", original="none", distil={"hidden": 1.0})
    with pytest.raises(UserError, match=r"--distil hidden: 'hidden' is not NAME=WEIGHT"):
        weights("hidden")
    assert weights("hidden=1, chunk=0.1") == {"hidden": 1.0, "chunk": 0.1}
    with pytest.raises(UserError, match=r"minutes is 0; it has to be greater than 0"):
        refine(folder / "start", str(corpus), tmp_path / "out", minutes=0)
    with pytest.raises(UserError, match=r"(lies in|is) .*which is read from"):
        refine(folder / "start", str(corpus), folder / "start" / "out")
    shutil.copytree(folder / "start", tmp_path / "moved")
    marker = json.loads((tmp_path / "moved" / "zett.json").read_text())
    marker["settings"]["model"] = str(tmp_path / "gone")
    (tmp_path / "moved" / "zett.json").write_text(json.dumps(marker))
    with pytest.raises(UserError, match=r"zett\.json says that it was made from .*gone.*give --original"):
        refine(tmp_path / "moved", str(corpus), tmp_path / "out")
    with pytest.raises(UserError, match=r"output .* exists and is not empty"):
        transfer_and_refine(folder / "original", folder / "tokenizer", folder / "start", refine_on=str(corpus), method="fvt")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["transfer", "--model", "m", "--tokenizer", "t", "--output", "o", "--minutes", "2"])
    assert stopped.value.code == 2 and "there is no --refine" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]
