"""The `zett` command, and the entry points of train.py and eval.py: dispatch and exit codes."""

import argparse
import errno
import importlib
import logging
import os
import sys
from collections.abc import Callable

from zett import __version__
from zett.commands import COMMANDS
from zett.errors import UserError
from zett.files.compiled import keep_compiled_programs
from zett.values import nearest

DESCRIPTION = "Give a language model another tokenizer: hypernetworks that write embedding tables."
EDITS = ("trim", "add-tokens")  # which `zett inspect` shows before they are done
OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Parser(argparse.ArgumentParser):
    """split: takes some arguments out before the rest are parsed; what it makes of them is `args.split`."""

    def __init__(self, **settings):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)
        self.split: Callable | None = None

    def parse_args(self, argv=None, namespace=None):
        taken = None
        if self.split is not None:
            argv, taken = self.split(argv)
        args = super().parse_args(argv, namespace)
        args.split = taken
        return args

    def error(self, message):  # one line, as for every other mistake; argparse would print its usage too
        raise UserError(f"{message} ({self.prog} --help lists the arguments)")


def main(argv: list[str] | None = None) -> None:
    """`zett COMMAND ...`."""
    argv = sys.argv[1:] if argv is None else argv
    _exit(argv, lambda: _main(argv))


def run_script(command: str, prog: str) -> None:
    """A script that is a command, such as train.py."""
    argv = sys.argv[1:]
    _exit(argv, lambda: run_command(command, argv, prog))


def run_command(name: str, argv: list[str], prog: str) -> int:
    """Run one of COMMANDS; returns the exit code. Raises UserError."""
    if name == "inspect" and argv[:1] and argv[0] in EDITS:
        name, argv, prog = argv[0], [*argv[1:], "--dry-run"], f"{prog} {argv[0]}"
    command = importlib.import_module(f"zett.commands.{name.replace('-', '_')}")
    parser = Parser(prog=prog, description=command.DESCRIPTION, epilog=command.EXAMPLES)
    command.arguments(parser)
    what = "show tracebacks and the libraries' own messages (or: ZETT_DEBUG=1)"
    parser.add_argument("--debug", action="store_true", help=what)
    args = parser.parse_args(argv)
    _quiet(args.debug)
    keep_compiled_programs()
    return command.run(args)


def _main(argv: list[str]) -> int:

    parser = Parser(prog="zett", description=DESCRIPTION, epilog=_overview(), usage="zett COMMAND [arguments]")
    parser.add_argument("--version", action="version", version=f"zett {__version__}")
    if not argv:
        parser.print_help()
        return 0
    if argv[0] in COMMANDS:
        return run_command(argv[0], argv[1:], f"zett {argv[0]}")
    _, unknown = parser.parse_known_args(argv)  # exits after --help and --version
    raise UserError(f"there is no command {unknown[0]!r}; {nearest(unknown[0], COMMANDS)}")


def _overview() -> str:
    lines = "\n".join(f"  {name:<10} {what}" for name, what in COMMANDS.items())
    return f"""\
commands:
{lines}

`zett COMMAND --help` says more about each.

examples:
  zett transfer --model pico --tokenizer path/to/tokenizer --output my-model
  zett eval --model pico --tokenizer bpe-8k path/to/tokenizer
  zett train --config configs/pico.py --workdir runs/pico
"""


def _debugging(argv: list[str]) -> bool:
    return "--debug" in argv or os.environ.get("ZETT_DEBUG", "0") not in ("", "0")


def _quiet(debug: bool) -> None:
    """Keep the libraries' start-up chatter out of the terminal; has to run before they are imported."""
    if debug or _debugging([]):
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    for name in ("jax", "absl", "orbax", "datasets", "huggingface_hub", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _exit(argv: list[str], command: Callable[[], int]) -> None:
    """Run `command` and leave with its code: 2 and one line for the user's mistakes, 130 after Ctrl-C."""
    try:
        code = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `zett eval | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except (UserError, OSError) as error:
        if _debugging(argv):
            raise
        print(f"zett: error: {_one_line(error)}", file=sys.stderr)
        code = 2
    except BaseException as error:
        # What the Rust code of the tokenizers library panics with is no Exception; see zett/vocab/patterns.py.
        if type(error).__name__ != "PanicException" or _debugging(argv):
            raise
        print(f"zett: error: a tokenizer cannot cope with a text: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    sys.exit(code)


def _one_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        what = "the disk is full" if error.errno in OUT_OF_SPACE else error.strerror
        text = f"{what}: {error.filename}" if error.filename else what
    return " ".join(text.split())
