"""Command lines: help that teaches, one line and exit code 2 for mistakes, and an import that costs nothing."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from zett import cli
from zett.commands import COMMANDS
from zett.errors import UserError

ROOT = Path(__file__).parents[1]


def run(function, *argv, capsys):
    """(exit code, stdout, stderr)."""
    with pytest.raises(SystemExit) as exit:
        function(list(argv))
    captured = capsys.readouterr()
    return exit.value.code, captured.out, captured.err


def python(code: str, **settings):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, **settings)


# ------------------------------------------------------------------------------------------------------------- import


HEAVY = {
    "jax", "jaxlib", "flax", "transformers", "tokenizers", "datasets", "torch", "matplotlib", "orbax", "pyarrow", "numba",
    "numpy",
}  # fmt: skip


def loaded(code: str) -> set[str]:
    """The modules that are loaded after it."""
    result = python(f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)")
    return set(result.stderr.splitlines()[-1].split())


def test_import_is_light():
    """Nothing of size: that is what takes time."""
    assert not loaded("import zett, zett.cli") & HEAVY


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_light(command):
    asked = [*filter(None, [command]), "--help"]
    modules = loaded(f"from zett.cli import main\ntry: main({asked})\nexcept SystemExit as e: assert e.code == 0")
    assert "zett.cli" in modules and not modules & HEAVY


def test_public_names_are_functions_whatever_was_imported():
    code = (
        "import zett.transfer, zett.evaluate.evaluate, zett.inspect.compare, zett, inspect\n"
        "assert all(callable(getattr(zett, n)) for n in dir(zett) if not n.startswith('_')), dir(zett)\n"
        "assert inspect.isfunction(zett.transfer) and inspect.isfunction(zett.evaluate)\n"
        "from zett.transfer import transfer; assert transfer is zett.transfer\n"
        "assert isinstance(zett.__version__, str)\n"
    )
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_unknown_public_name():
    import zett

    with pytest.raises(AttributeError, match="module 'zett' has no attribute 'transfre'"):
        zett.transfre  # noqa: B018


# --------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], [*COMMANDS, "examples:"]),
        (["--help"], ["zett transfer --model pico", "zett train --config"]),
        (["transfer", "--help"], ["--model", "--tokenizer", "--hypernet", "--output", "--method", "--overwrite", "examples:"]),
        (["train", "--help"], ["--config.train.steps=200", "--workdir", "Ctrl-C"]),
        (["eval", "--help"], ["--tokenizer", "examples:"]),
        (["export", "--help"], ["--hypernet", "--output", "--checkpoint", "--push", "examples:"]),
        (["methods", "--help"], ["NAME:SETTING=VALUE"]),
        (["--version"], ["zett "]),
    ],
)
def test_help_teaches(argv, words, capsys):
    code, out, err = run(cli.main, *argv, capsys=capsys)
    assert (code, err) == (0, "")
    for word in words:
        assert word in out


def test_entry_points_show_their_own_name():
    for name in ("train.py", "eval.py"):
        result = subprocess.run([sys.executable, name, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0 and f"usage: {name}" in result.stdout


# ----------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "argv, message",
    [
        (["trian"], "there is no command 'trian'; did you mean train?"),
        (
            ["transfer"],
            "the following arguments are required: --model, --tokenizer, --output (zett transfer --help lists the arguments)",
        ),
        (["transfer", "--seed", "x"], "argument --seed: invalid int value: 'x' (zett transfer --help lists the arguments)"),
        (["train", "--workdir", "x"], "the following arguments are required: --config (zett train --help lists the arguments)"),
        (["train", "--workdir", "x", "--config", "no.py"], "no such config file: no.py"),
        (
            ["train", "--workdir", "x", "--config", "configs/pico_base.py", "--config.train.stepz=3"],
            "config.train.stepz does not exist; did you mean config.train.steps?",
        ),
        (["train", "--workdir", "x", "--config", "configs/pico_base.py", "--stepz=3"], "unrecognized arguments: --stepz=3"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(argv, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    code, out, err = run(cli.main, *argv, capsys=capsys)
    assert (code, out) == (2, "")
    assert err.startswith(f"zett: error: {message}") and err.count("\n") == 1
    assert not (ROOT / "x").exists()


@pytest.mark.parametrize(
    "error, message",
    [
        (UserError("two\nlines"), "two lines"),
        (OSError(errno.ENOSPC, "No space left on device", "/mnt/out"), "the disk is full: /mnt/out"),
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"), "Permission denied: /data/x"),
    ],
)
def test_errors_of_the_work_itself(error, message, capsys, monkeypatch):
    def fail(args):
        raise error

    monkeypatch.setattr("zett.commands.quickstart.run", fail)
    assert run(cli.main, "quickstart", capsys=capsys) == (2, "", f"zett: error: {message}\n")
    monkeypatch.setenv("ZETT_DEBUG", "1")
    with pytest.raises(type(error)):
        cli.main(["quickstart"])
    monkeypatch.setenv("ZETT_DEBUG", "0")
    with pytest.raises(type(error)):
        cli.main(["quickstart", "--debug"])


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("zett.commands.quickstart.run", lambda args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["quickstart"])


def test_ctrl_c(capsys, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr("zett.commands.eval.run", interrupted)
    assert run(cli.main, "eval", capsys=capsys) == (130, "", "")


def test_exit_codes(capsys, monkeypatch):
    for code in (0, 3):
        monkeypatch.setattr("zett.commands.eval.run", lambda args, code=code: code)
        assert run(cli.main, "eval", capsys=capsys) == (code, "", "")


def test_what_a_tokenizer_panics_with_is_one_line(capsys, monkeypatch):
    class PanicException(BaseException):
        pass

    def panic(args):
        raise PanicException("index\nout of range")

    monkeypatch.setattr("zett.commands.eval.run", panic)
    message = "zett: error: a tokenizer cannot cope with a text: index out of range\n"
    assert run(cli.main, "eval", capsys=capsys) == (2, "", message)


def test_a_closed_pipe_is_no_error():
    code = (
        "from zett import cli; from zett.commands import methods\n"
        "methods.run = lambda args: print('x' * 10**6)\ncli.main(['methods'])"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert (process.wait(timeout=60), process.stderr.read()) == (141, b"")


def test_mistakes_come_before_slow_imports():
    code = (
        "import sys; from zett.cli import run_command\n"
        "try: run_command('train', ['--workdir', 'x', '--config', 'no.py'], 'p')\nexcept ValueError: pass\n"
    )
    result = python(code + "assert 'jax' not in sys.modules")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "command, old, expected",
    [
        ("transfer", "--model m --tokenizer t --output out --method fvt --measure a b --text c", {"text": ["a", "b", "c"]}),
        ("inspect", "--source m --target t", {"model": "m", "tokenizer": "t"}),
        ("eval", "--target a --tokenizer b c --target d", {"tokenizer": ["a", "b", "c", "d"]}),
    ],
)
def test_old_names_work_and_help_does_not_show_them(command, old, expected, monkeypatch, capsys):
    import importlib
    import inspect as python

    modules = {"transfer": "zett.transfer", "inspect": "zett.inspect.compare", "eval": "zett.evaluate.evaluate"}
    module = importlib.import_module(modules[command])
    name = "evaluate" if command == "eval" else command
    signature = python.signature(getattr(module, name))

    def called(*args, **settings):
        given = signature.bind(*args, **settings).arguments
        raise UserError(repr({key: given[key] for key in expected}))

    monkeypatch.setattr(module, name, called)
    code, _, err = run(cli.main, command, *old.split(), capsys=capsys)
    assert code == 2 and err.splitlines()[-1] == f"zett: error: {expected!r}"
    code, out, _ = run(cli.main, command, "--help", capsys=capsys)
    assert code == 0 and all(flag in out for flag in ("--model", "--tokenizer", "--text"))
    out = out.replace("--text-", "").replace("--target-model", "")
    assert not any(flag in out for flag in ("--source", "--target", "--measure"))
