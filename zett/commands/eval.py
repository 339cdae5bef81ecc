"""`zett eval`, and eval.py."""

import argparse
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from zett.belongs import check_belongs
from zett.choices import KINDS, MODES, VARIANTS
from zett.errors import UserError
from zett.progress import phase, shown

DESCRIPTION = "Measure bits per byte with tokenizers that the model was not trained with."
EXAMPLES = """\
examples:
  zett eval                                                    # the embedded model and its hypernetwork
  zett eval --hypernet runs/pico/export --output report        # your own, with report.json and a plot in report/
  zett eval --hypernet mine=runs/pico/export --hypernet pico --tokenizer bpe-8k unigram-8k path/to/tokenizer
  zett eval --tokenizer default path/to/tokenizer              # one in addition to those that it takes by itself

  # a draft model for speculative decoding: how much of what it writes ahead BIG keeps; or which method makes the best draft
  zett eval --task drafts --model my-draft --target-model BIG
  zett eval --task drafts --model SMALL --target-model BIG --method fvt first_last weighted

  # tokens merged for each batch of texts: how much shorter they become, and how much worse the rest of a text is predicted
  zett eval --task dynamic --model MODEL --text TEXT --merges 50 200 --across-words

  zett eval --task agreement --model path/to/chat-model --tokenizer path/to/tokenizer   # are its answers the original's?

  # models that are made already, beside the one that they were made from
  zett eval --model MODEL --compare my-model my-refined-model
  zett eval --model MODEL --compare my-model my-refined-model --task agreement
"""
DEFAULT_OUTPUT = "runs/eval"
DRAFTS, DYNAMIC = "drafts", "dynamic"


def arguments(parser: argparse.ArgumentParser) -> None:

    def add(name: str, help: str, **settings) -> None:
        if settings.get("default") not in (None, []) and "(default" not in help:
            help += " (default: %(default)s)"
        parser.add_argument(name, help=help, **settings)

    add("--model", "base model: a folder, a Hub name, or pico, the one in the package", default="pico")
    add(
        "--hypernet",
        "hypernetwork, may be repeated; 'none' for baselines only (default: the one in the package for the model, if any)",
        action="append",
        metavar="[NAME=]DIR",
    )
    add("--base", "where --model is a variant: the base model that the hypernetworks were trained for", metavar="DIR")
    ways = "; ".join(f"{way}: {meaning}" for way, meaning in VARIANTS.items())
    add(
        "--variant",
        f"with --base, how rows are made. {ways} (default: {next(iter(VARIANTS))})",
        metavar="ROWS",
    )
    add("--language", "language of the targets, by code or number, where the hypernetworks know languages", metavar="CODE")
    add(
        "--tokenizer",
        "target tokenizers: a folder with tokenizer.json, that file, a Hub name, KIND-SIZE, trained on the spot, such as "
        f"bpe-8k or prose-bpe-8k (kinds: {', '.join(KINDS)}), or default, which is six of these (default: default)",
        action="extend",
        nargs="+",
        metavar="SPEC",
    )
    add("--target", argparse.SUPPRESS, dest="tokenizer", action="extend", nargs="+")  # its old name
    add(
        "--method",
        "methods to compare with, NAME or NAME:SETTING=VALUE,...; `zett methods` lists them (default: fvt mean random; none "
        "with --compare; for drafts fvt first_last weighted, and none where --model is a draft already)",
        nargs="+",
    )
    add(
        "--text",
        "text source: python, prose, a file, a folder, or hf:NAME[:CONFIG]; files and folders are measured whole, unless "
        "KIND-SIZE targets are trained on them; else the held-out split is",
        default="python",
        metavar="SPEC",
    )
    add("--text-column", "column of jsonl and parquet files", default="text")
    add("--text-bytes", "the most bytes to measure (default: a whole file or folder, 131072 of a held-out split)", type=int)
    what = (
        "bits_per_byte, masked_bits_per_byte; agreement: answers to prompts beside the original's; drafts: how much of what "
        "--model writes ahead --target-model keeps; dynamic: texts in tokens merged for each batch (default: "
        "by the model, how well it reads)"
    )
    add("--task", what, metavar="NAME")
    _more_arguments(add)
    _draft_arguments(parser.add_argument_group("speculative decoding (--task drafts)"))
    _dynamic_arguments(parser.add_argument_group("merged tokens (--task dynamic)"))


def _more_arguments(add: Callable[..., None]) -> None:
    add(
        "--compare",
        "models that are transferred, refined or trimmed already: measured as they are, with the tokenizers that they have, "
        "and methods, if there are any, with the same ones",
        action="extend",
        nargs="+",
        metavar="FOLDER",
    )
    add("--prompts", "of the task agreement, one a line or a row (default: fifty in the package)", metavar="FILE")
    modes = "; ".join(f"{mode}: {meaning}" for mode, meaning in MODES.items())
    what = f"special tokens of the targets. {modes} (default: keep-target, but map-to-source for answers in a chat template)"
    add("--special", what, metavar="MODE")
    add("--window", "bytes of context, the same for all tokenizers", type=int, default=512)
    add("--prose", "text source that trains prose-KIND-SIZE targets (default: docstrings)", default="prose", metavar="SPEC")
    add(
        "--classes",
        "say, too, at which tokens bits are lost: by class, and the hundred that cost most (causal models)",
        action="store_true",
    )
    add("--output", f"where report.json and report.png go (default: {DEFAULT_OUTPUT}, replaced)", metavar="DIR")
    add("--overwrite", "replace an earlier report in --output", action="store_true")
    add("--json", "print the report as JSON instead of the table", action="store_true")
    add("--dtype", "of matrix products", choices=("float32", "bfloat16", "auto"), default="float32")
    add("--batch-size", "windows in a batch", type=int, default=32)
    add("--seed", "of the windows, the random method and the bootstrap", type=int, default=0)


def _draft_arguments(group) -> None:
    what = "the model that is drafted for: a folder, a Hub name, or pico"
    group.add_argument("--target-model", metavar="BIG", help=what)
    for name, (default, what) in {
        "--prompt-count": (16, "pieces of text"),
        "--prompt-tokens": (32, "of each piece that are read"),
        "--new-tokens": (64, "that BIG writes after them"),
        "--draft-tokens": (4, "written ahead at a time"),
    }.items():
        group.add_argument(name, type=int, default=default, metavar="N", help=f"{what} (default: %(default)s)")
    group.add_argument("--temperature", type=float, default=1.0, help="of sampling (default: %(default)s)")


def _dynamic_arguments(group) -> None:
    what = "pairs of tokens that are merged in each batch of texts, one or more numbers (default: 25 50 100 200 400)"
    group.add_argument("--merges", type=int, nargs="+", metavar="N", help=what)
    group.add_argument("--across-words", action="store_true", help="merge tokens of neighbouring words, too")


def run(args: argparse.Namespace) -> int:
    """Evaluate as the arguments say; print the table, write report.json and report.png. Raises UserError."""
    from zett.evaluate.saving import check_output
    from zett.evaluate.targets import target_specs

    _check_task(args)
    inputs = [args.model, *filter(None, [args.base, args.target_model])]
    inputs += [given for several in (args.hypernet, args.tokenizer, args.compare) for given in several or ()]
    output = check_output(args.output, args.overwrite, inputs=inputs)
    if args.batch_size < 1:
        raise UserError(f"--batch-size is {args.batch_size}; it has to be greater than 0")
    hypernets = named_hypernets(args.hypernet)
    # Both in no time, since JAX takes its own.
    target_specs(args.tokenizer)
    for folder in (hypernets or {}).values():
        check_belongs(args.model, folder)
    clock = time.perf_counter()
    with shown(not args.json):
        result, save, table = {DRAFTS: _drafts, DYNAMIC: _dynamic}.get(args.task, _reading)(args, hypernets)
    result.settings["command"] = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    result.settings["seconds"] = round(time.perf_counter() - clock, 1)
    files = save(result, output)
    if args.json:
        print(json.dumps(dataclasses.asdict(result), indent=2, ensure_ascii=False))
    else:
        print(table(result))
        print(f"\nwrote {' and '.join(map(str, files))} in {result.settings['seconds']:.0f} s")
    return 0


def _check_task(args: argparse.Namespace) -> None:
    if args.task in (DRAFTS, DYNAMIC) and args.compare:
        raise UserError(f"--task {args.task} has no use for --compare {args.compare[0]}; leave it out")
    if args.task != DYNAMIC and (args.merges or args.across_words):
        given = f"--merges {args.merges[0]}" if args.merges else "--across-words"
        raise UserError(f"{given} is of --task dynamic; give that task, or leave it out")
    unused = {"--tokenizer": args.tokenizer, "--prompts": args.prompts, "--special": args.special, "--base": args.base}
    for name, value in unused.items() if args.task == DYNAMIC else ():
        if value:
            raise UserError(
                f"--task dynamic has no use for {name} {value[0] if isinstance(value, list) else value}; leave it out"
            )
    if args.task == DRAFTS and (args.prompts or args.special):
        given = f"--prompts {args.prompts}" if args.prompts else f"--special {args.special}"
        raise UserError(f"--task drafts has no use for {given}; leave it out")
    if args.task == DRAFTS and args.target_model is None:
        raise UserError("--task drafts needs the model that is drafted for: give --target-model")
    if args.task != DRAFTS and args.target_model is not None:
        raise UserError(
            f"--target-model is {args.target_model!r}, but nothing drafts for it; give --task drafts, or leave it out"
        )
    if args.task == DRAFTS and args.tokenizer:
        raise UserError(f"--tokenizer is {args.tokenizer[0]!r}, but drafts have that of --target-model; leave it out")


def _reading(args: argparse.Namespace, hypernets: dict[str, str] | None) -> tuple:
    """The report, and what saves and shows it."""
    with phase("loading JAX"):
        from zett.evaluate.evaluate import evaluate
        from zett.evaluate.report import table
        from zett.evaluate.saving import save

    report = evaluate(
        args.model, args.tokenizer, hypernets=hypernets, language=args.language, base=args.base, variant=args.variant,
        methods=None if args.method is None else list(dict.fromkeys(args.method)),
        text=args.text, text_bytes=args.text_bytes, window=args.window,
        text_column=args.text_column, prose=args.prose, batch_size=args.batch_size, dtype=args.dtype, seed=args.seed,
        task=args.task, prompts=args.prompts, special=args.special, classes=args.classes, compare=args.compare,
    )  # fmt: skip
    return report, save, table


def _drafts(args: argparse.Namespace, hypernets: dict[str, str] | None) -> tuple:
    """The report, and what saves and shows it."""
    with phase("loading JAX"):
        from zett.evaluate.drafts import evaluate_drafts, save, table

    report = evaluate_drafts(
        args.model, args.target_model, methods=None if args.method is None else list(dict.fromkeys(args.method)),
        hypernets=hypernets, language=args.language, base=args.base, variant=args.variant, text=args.text,
        prompts=args.prompt_count, window=args.window, text_column=args.text_column, prompt_tokens=args.prompt_tokens,
        new_tokens=args.new_tokens, draft_tokens=args.draft_tokens, temperature=args.temperature,
        batch_size=args.batch_size, dtype=args.dtype, seed=args.seed,
    )  # fmt: skip
    return report, save, table


def _dynamic(args: argparse.Namespace, hypernets: dict[str, str] | None) -> tuple:
    """The report, and what saves and shows it."""
    with phase("loading JAX"):
        from zett.evaluate.dynamic import MERGES, evaluate_dynamic, save, table

    report = evaluate_dynamic(
        args.model, merges=args.merges or MERGES, across=args.across_words,
        methods=None if args.method is None else list(dict.fromkeys(args.method)), hypernets=hypernets,
        language=args.language, text=args.text, text_bytes=args.text_bytes, window=args.window, text_column=args.text_column,
        batch_size=args.batch_size, dtype=args.dtype, seed=args.seed,
    )  # fmt: skip
    return report, save, table


def named_hypernets(given: Sequence[str] | None) -> dict[str, str] | None:
    """Folder by name; a folder without a name is called "hypernet", or by its own name where there are several.

    None: nothing is said, so that the one in the package is taken, if it is for the model.
    """
    if given is None:
        return None
    named: dict[str, str] = {}
    for entry in given:
        if entry == "none":
            continue
        name, equals, folder = entry.partition("=")
        if not equals or Path(entry).exists():
            folder = entry
            name = "hypernet" if len(given) == 1 else Path(entry).name
        if not name or name in named:
            raise UserError(f"--hypernet {entry}: the name {name!r} is empty or taken; give another as NAME=DIR")
        named[name] = folder
    return named
