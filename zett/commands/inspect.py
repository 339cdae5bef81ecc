"""`zett inspect`."""

import argparse
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from zett.errors import UserError
from zett.files.resolve import PACKAGED
from zett.progress import shown

DESCRIPTION = (
    "Compare a tokenizer with the one of a base model: what a transfer would change, and what to beware of. Without a "
    "tokenizer: which rows of a model stand out, such as one that was transferred."
)
EXAMPLES = """\
examples:
  zett inspect --model pico --tokenizer path/to/tokenizer
  zett inspect --model path/to/model --tokenizer path/to/tokenizer --text books/ code/ --html report.html
  zett inspect --model pico --tokenizer path/to/tokenizer --parallel translations.parquet --json -
  zett inspect --model path/to/result          # the rows of a transferred model: lengths, neighbours, what is of no use

  # what an edit would do with a vocabulary, with the arguments of zett trim and zett add-tokens (the same as their --dry-run)
  zett inspect trim --model path/to/model --text path/to/texts --vocab-size 64000
  zett inspect add-tokens --model path/to/model --from-text path/to/texts --n 2000

With a tokenizer it looks at tokenizers only: no weights are read. Nothing is changed.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        help="base model: a folder, a tokenizer.json, a Hub name, or pico; with --tokenizer, only its tokenizer is read",
    )
    add(
        "--tokenizer",
        help="target tokenizer: a folder with tokenizer.json, that file, or a Hub name (default: the model's rows)",
    )
    for old, new in (("--source", "model"), ("--target", "tokenizer")):
        add(old, dest=new, help=argparse.SUPPRESS)
    add(
        "--text", nargs="+", default=[], metavar="PATH",
        help="text files (txt, md, rst, py, jsonl, tsv, csv, parquet, also with .gz or .zst) and folders of them, for tokens "
        "per byte by language: a table's column lang, else the name of the file or its folder",
    )  # fmt: skip
    add(
        "--parallel", nargs="+", default=[], metavar="PATH",
        help="tables (parquet, jsonl, tsv, csv) of the same content in several languages, for token premiums: a column for "
        "each language; or en, xx, lang; or text, lang, id",
    )  # fmt: skip
    add("--reference", metavar="LANG", help="language that premiums are relative to (default: en, if it is there)")
    add("--text-column", default="text", metavar="NAME", help="column of the tables of --text (default: %(default)s)")
    add("--text-bytes", type=int, default=1_000_000, metavar="N", help="bytes to read of each language (default: %(default)s)")
    add("--hypernet", metavar="DIR", help="hypernetwork whose S counts (how many source pieces it reads of a token)")
    add("--max-pieces", type=int, metavar="S", help="or S itself (default: that of a new hypernetwork, 8)")
    add("--json", metavar="FILE", help="write everything as JSON ('-': to the terminal, in place of the tables)")
    add("--html", metavar="FILE", help="write a page with plots, one file that needs nothing else")
    add("--overwrite", action="store_true", help="replace files of --json and --html also if inspect did not write them")


def run(args: argparse.Namespace) -> int:
    """Inspect as the arguments say: print tables, write the files. Raises UserError."""
    if args.model is None:
        raise UserError("the following arguments are required: --model (zett inspect --help lists the arguments)")
    for name in ("text_bytes", "max_pieces"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it has to be greater than 0")
    if args.hypernet and args.max_pieces:
        raise UserError("--hypernet and --max-pieces both say S; give one of the two")
    given = [
        f"--{name.replace('_', '-')}"
        for name in ("text", "parallel", "reference", "hypernet", "max_pieces")
        if getattr(args, name)
    ]
    if args.tokenizer is None and given:
        raise UserError(
            f"{given[0]} is of use with --tokenizer only; give that, too, or leave it out to inspect the model's rows"
        )
    files = _outputs(args)  # before the slow part
    with shown(args.json != "-"):
        report, tables, page = _compared(args) if args.tokenizer is not None else _of_rows(args)
    as_json = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
    print(as_json if args.json == "-" else tables(report), end="")
    _write((file, as_json if name == "json" else page(report)) for name, file in files.items())
    return 0


def _compared(args: argparse.Namespace) -> tuple[dict, Callable[[dict], str], Callable[[dict], str]]:
    """The report on a tokenizer, and what makes tables and a page of it."""
    from zett.inspect.compare import JSON_FORMAT, inspect
    from zett.inspect.page import page
    from zett.inspect.terminal import tables

    report = inspect(
        args.model, args.tokenizer, text=args.text, parallel=args.parallel, reference=args.reference,
        max_pieces=_pieces_of(args.hypernet) if args.hypernet else args.max_pieces,
        text_column=args.text_column, text_bytes=args.text_bytes,
    )  # fmt: skip
    return {"format": JSON_FORMAT, **report}, tables, page


def _of_rows(args: argparse.Namespace) -> tuple[dict, Callable[[dict], str], Callable[[dict], str]]:
    """The report on the rows of a model, and what makes tables and a page of it."""
    from zett.inspect.compare import JSON_FORMAT
    from zett.inspect.rows import inspect_rows
    from zett.inspect.rows_page import rows_page
    from zett.inspect.rows_terminal import rows_tables

    return {"format": JSON_FORMAT, **inspect_rows(args.model)}, rows_tables, rows_page


def _outputs(args: argparse.Namespace) -> dict[str, Path]:
    """The files to write, by argument. UserError for one that would replace what `zett inspect` did not write."""
    from zett.files import folders
    from zett.inspect.compare import JSON_FORMAT
    from zett.inspect.page import GENERATOR

    given = {"json": args.json if args.json != "-" else None, "html": args.html}
    files = {name: folders.output_path(file, f"--{name}") for name, file in given.items() if file is not None}
    texts = [Path(path).expanduser() for path in (*args.text, *args.parallel)]
    # A report may lie in a folder of texts, but not be one of them.
    read = [Path(path).expanduser() for path in (args.model, args.tokenizer, args.hypernet) if path not in (None, *PACKAGED)]
    read += [path for path in texts if path.is_file()]
    if len({file.resolve() for file in files.values()}) < len(files):
        raise UserError(f"--json and --html are both {files['html']}; give two files")
    for name, file in files.items():
        for path in filter(Path.exists, read):
            folders.check_outside(file, path, f"--{name}")
        if file.is_dir():
            raise UserError(f"--{name} {file} is a folder; give the name of a file")
        sign = GENERATOR if name == "html" else f'"format": "{JSON_FORMAT}"'
        if file.exists() and not args.overwrite and sign.encode() not in file.read_bytes()[:1000]:
            raise UserError(f"--{name} {file} is there, and zett inspect did not write it; give another file, or --overwrite")
    return files


def _pieces_of(hypernet: str) -> int:
    from zett.hypernet.release import find_hypernet

    folder = find_hypernet(hypernet)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # ZeTT's published ones call it by another name.
        return int(config["hypernet"]["max_pieces"] if "hypernet" in config else config["hn_surface_maxlen"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"--hypernet {hypernet}: no hypernetwork there (a folder whose config.json says max_pieces)") from None


def _write(files: Iterable[tuple[Path, str]]) -> None:
    """Each file whole or not at all."""
    for path, content in files:
        beside = path.with_name(f".{path.name}.tmp")
        try:
            beside.write_bytes(content.encode("utf-8", "backslashreplace"))
            os.replace(beside, path)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from None
        finally:
            beside.unlink(missing_ok=True)
