"""`zett eval`."""

import json

import pytest
import tiny
from evaluate.lines import write_corpus

from zett.cli import run_command
from zett.commands.eval import named_hypernets
from zett.errors import UserError
from zett.evaluate import results


def test_command_line(tmp_path, capsys):
    (tmp_path / "corpus").mkdir()
    model, corpus, output = str(tiny.base_folder(tmp_path / "tiny")), write_corpus(tmp_path / "corpus"), str(tmp_path / "out")
    given = ["--model", model, "--hypernet", "none", "--tokenizer", "bpe-350", "--target", model, "--method", "fvt", "mean"]
    given += ["--text", corpus, "--text-bytes", "1024", "--window", "128", "--output", output]
    assert run_command("eval", given, "zett eval") == 0
    shown = capsys.readouterr().out
    assert "bpe-350" in shown and "report.json" in shown
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [t["name"] for t in content["targets"]] == ["bpe-350", "tiny"]
    assert content["environment"]["versions"]["jax"] and content["settings"]["command"]
    assert results.load(output).methods == ["fvt", "mean"]
    with pytest.raises(UserError, match="--overwrite"):
        run_command("eval", given, "zett eval")
    assert run_command("eval", [*given, "--overwrite", "--json"], "zett eval") == 0
    assert json.loads(capsys.readouterr().out)["base"]["name"] == model
    given = ["--model", model, "--compare", model, "--text", corpus, "--text-bytes", "1024", "--window", "128"]
    assert run_command("eval", [*given, "--output", str(tmp_path / "compared")], "zett eval") == 0
    assert results.load(tmp_path / "compared").methods == ["as it is"]
    with pytest.raises(UserError, match="drafts has no use for --compare"):
        run_command("eval", [*given, "--task", "drafts"], "zett eval")


def test_hypernetworks_get_names():
    assert named_hypernets(None) is None  # the one in the package for the model, if there is one
    assert named_hypernets(["none"]) == {}
    assert named_hypernets(["runs/a/export"]) == {"hypernet": "runs/a/export"}
    assert named_hypernets(["quickstart=runs/a", "pico"]) == {"quickstart": "runs/a", "pico": "pico"}
    with pytest.raises(UserError, match="NAME=DIR"):
        named_hypernets(["runs/a", "other/a"])
