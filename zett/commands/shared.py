"""Arguments that several commands have, and how a command is written that was run."""

import argparse
import shlex
from collections.abc import Mapping

from zett.errors import UserError


def model_and_output(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, help="a folder with safetensors and a tokenizer, a GGUF file, a Hub name, or pico")
    add("--output", help="folder to write")
    add("--dry-run", action="store_true", help="say what would change, and write nothing")


def check_output_given(args: argparse.Namespace, command: str) -> None:
    if args.output is None and not args.dry_run:
        raise UserError(f"there is no folder to write; give --output, or --dry-run to see what zett {command} would do")


def rows_and_reading(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = "rows are padded to a multiple of this, with the mean of all (default: %(default)s)"
    add("--pad-to-multiple-of", type=int, default=1, metavar="M", help=what)
    add("--text-column", default="text", help="column of jsonl and parquet files")
    add("--revision", help="branch, tag or commit of --model on the Hub")


def push_and_overwrite(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--push", metavar="NAME", help="upload the result to the Hugging Face Hub under this name, too")
    add("--overwrite", action="store_true", help="replace --output if zett wrote it, or if it holds a model and nothing else")


def written(command: str, settings: dict, usual: Mapping[str, object]) -> str:
    """The command with its settings, without those that are None, False, or have their `usual` value."""
    words = ["zett", command]
    for name, value in settings.items():
        if value is None or value is False or value == usual.get(name):
            continue
        given = [] if value is True else value if isinstance(value, list) else [value]
        words += [f"--{name.replace('_', '-')}", *map(str, given)]
    return shlex.join(words)
