"""`zett transfer`: what it makes of its arguments."""

import importlib
import shlex
from pathlib import Path

import pytest

from zett.cli import run_command
from zett.commands.transfer import command_line
from zett.errors import UserError


def test_transfer_gets_its_arguments(monkeypatch, capsys):
    module = importlib.import_module("zett.transfer")
    calls = []
    monkeypatch.setattr(module, "transfer", lambda *args, **settings: calls.append((args, settings)) or Path("out"))
    argv = "--model m --tokenizer t --output out --method fvt --overwrite --seed 3 --special add-missing --fit-scale x".split()
    assert run_command("transfer", argv, "zett transfer") == 0
    assert capsys.readouterr() == ("wrote out\n", "loading JAX\n")
    given = {"method": "fvt", "hypernet": None, "special": "add-missing", "overwrite": True, "seed": 3, "fit_scale": "x"}
    assert calls[0][0] == ("m", "t", "out") and given.items() <= calls[0][1].items()


def test_the_command_line_of_settings():
    settings = {
        "model": "my model", "tokenizer": "t", "output": "out", "method": "hypernet", "hypernet": "it's", "language": "7",
        "revision": None, "special": "keep-target", "seed": 0, "text": ["a b", "c"],
    }  # fmt: skip
    words = ["zett", "transfer", "--model", "my model", "--tokenizer", "t", "--method", "hypernet", "--hypernet", "it's"]
    words += ["--language", "7", "--text", "a b", "c", "--output", "out"]
    assert shlex.split(command_line(settings)) == words
    for name, value in {"special": "add-missing", "seed": 3, "revision": "main", "fit_scale": "texts"}.items():
        assert f" --{name.replace('_', '-')} {value} " in command_line(settings | {name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--method ftv", "method 'ftv' does not exist; did you mean fvt"),
        ("--method fvt:k=3", "method fvt has no setting 'k'"),
        ("--method fvt --hypernet pico", "hypernet is 'pico', but the method 'fvt' makes no use of it"),
        ("--method fvt --fit-scale x", "fit_scale is 'x', but the method 'fvt' makes no use of it"),
        ("--method hypernet:a --hypernet b", "method hypernet: path is given twice, as 'a' and 'b'"),
    ],
)
def test_methods_are_checked_before_anything_is_read(arguments, message):
    argv = f"--model /nowhere --tokenizer /nowhere --output out {arguments}".split()
    with pytest.raises(UserError, match=message):
        run_command("transfer", argv, "zett transfer")
