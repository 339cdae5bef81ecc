"""The `zett` command, and the entry points of train.py and eval.py. Nothing heavy is imported before arguments are checked."""

import argparse
import errno
import logging
import os
import sys
from collections.abc import Callable

from zett.errors import UserError

DESCRIPTION = "Give a language model another tokenizer: hypernetworks that write embedding tables."

COMMANDS_HELP = """\
commands:
  quickstart train a hypernetwork for two minutes and show how good it is
  transfer   base model + tokenizer -> a model folder that any Hugging Face client loads
  eval       how much a model loses with tokenizers that it was not trained with, by method
  inspect    what changes with another tokenizer, before anything is trained or transferred
  train      train a hypernetwork, a transferred model further, or a small base model
  export     a published hypernetwork, or a run's checkpoint -> the form that zett releases

`zett COMMAND --help` says more about each.

examples:
  zett transfer --model pico --tokenizer path/to/tokenizer --output my-model
  zett eval --model pico --tokenizer bpe-8k path/to/tokenizer
  zett train --config configs/pico.py --workdir runs/pico
"""

TRANSFER_EXAMPLES = """\
examples:
  # the embedded base model with the shipped hypernetwork
  zett transfer --model pico --tokenizer path/to/tokenizer --output my-model

  # your own model, and a hypernetwork trained for it
  zett transfer --model path/to/model --hypernet runs/mine/export --tokenizer path/to/tokenizer --output my-model

  # without a hypernetwork: every new row is the mean of its pieces' rows
  zett transfer --model path/to/model --method fvt --tokenizer path/to/tokenizer --output my-model

The result opens with transformers.AutoModelForCausalLM and AutoTokenizer. The tokenizer's files are the ones you gave,
unless --special asks for others.
"""

TRAIN_EXAMPLES = """\
examples:
  zett train --config configs/pico.py --workdir runs/pico
  zett train --config configs/n_shot.py --workdir runs/n_shot --config.init=my-model    # what `zett transfer` has written
  zett train --config configs/pico.py --workdir /tmp/x --config.train.steps=200 --config.optim.learning_rate 3e-4
  zett train --config configs/pico.py --workdir /tmp/x --config.sampler.sources=texts,python --config.data.valid_source=None
  zett train --config configs/mistral.py --dry_run --devices 16 --device tpu-v4

Every field of zett/config.py can be set, whether or not the file mentions it. `--config FILE:ARG` calls get_config(ARG).
`--dry_run` says what a run would take, without weights, texts or a network, and what is wrong with its config.
Ctrl-C saves and stops; the same command goes on from there.
"""

EVAL_EXAMPLES = """\
examples:
  zett eval                                                    # the embedded model and its hypernetwork
  zett eval --hypernet runs/pico/export --output report        # your own, with report.json and a plot in report/
  zett eval --hypernet mine=runs/pico/export --hypernet pico --tokenizer bpe-8k unigram-8k path/to/tokenizer
  zett eval --tokenizer default path/to/tokenizer              # one in addition to those that it takes by itself
"""

INSPECT_EXAMPLES = """\
examples:
  zett inspect --model pico --tokenizer path/to/tokenizer
  zett inspect --model path/to/model --tokenizer path/to/tokenizer --text books/ code/ --html report.html
  zett inspect --model pico --tokenizer path/to/tokenizer --parallel translations.parquet --json -

It looks at tokenizers only: no weights are read, and nothing is changed.
"""

EXPORT_EXAMPLES = """\
examples:
  zett export --hypernet path/to/published/checkpoint --output my-hypernet
  zett export --hypernet runs/pico --checkpoint latest --output my-hypernet     # of a run that has not ended

What comes out is used by `zett transfer --hypernet`. That reads published checkpoints as they are, too.
"""

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Parser(argparse.ArgumentParser):
    def __init__(self, **settings):
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings)

    def error(self, message):  # one line, as for every other mistake; argparse would print its usage too
        raise UserError(f"{message} ({self.prog} --help lists the arguments)")


def main(argv: list[str] | None = None) -> None:
    """`zett COMMAND ...`."""
    _exit(_main, sys.argv[1:] if argv is None else argv)


def train_main(argv: list[str] | None = None) -> None:
    """train.py."""
    _exit(_train, sys.argv[1:] if argv is None else argv, prog="train.py")


def eval_main(argv: list[str] | None = None) -> None:
    """eval.py."""
    _exit(_eval, sys.argv[1:] if argv is None else argv, prog="eval.py")


def quickstart_main(argv: list[str] | None = None) -> None:
    """`make quickstart`."""
    _exit(_quickstart, sys.argv[1:] if argv is None else argv, prog="zett quickstart")


def _main(argv: list[str]) -> int:
    from zett import __version__
    from zett.config import nearest

    commands: dict[str, Callable] = {
        "quickstart": _quickstart,
        "transfer": _transfer,
        "eval": _eval,
        "inspect": _inspect,
        "train": _train,
        "export": _export,
    }
    parser = Parser(prog="zett", description=DESCRIPTION, epilog=COMMANDS_HELP, usage="zett COMMAND [arguments]")
    parser.add_argument("--version", action="version", version=f"zett {__version__}")
    if not argv:
        parser.print_help()
        return 0
    if argv[0] in commands:
        return commands[argv[0]](argv[1:], prog=f"zett {argv[0]}")
    _, unknown = parser.parse_known_args(argv)  # exits after --help and --version
    raise UserError(f"there is no command {unknown[0]!r}; {nearest(unknown[0], commands)}")


def _transfer(argv: list[str], prog: str) -> int:
    from zett.vocab.special import MODES

    parser = Parser(prog=prog, description="Write a base model with another tokenizer.", epilog=TRANSFER_EXAMPLES)
    add = parser.add_argument
    add("--model", required=True, help="base model: a folder, a Hugging Face Hub name, or pico, the one in the package")
    add("--tokenizer", required=True, help="target tokenizer: a folder with tokenizer.json, that file, or a Hub name")
    add("--output", required=True, help="folder to write")
    add("--hypernet", help="hypernetwork made for this base model: a folder or a Hub name (default for pico: the shipped one)")
    add(
        "--language",
        metavar="CODE",
        help="language of the tokenizer, by code or number, where the hypernetwork knows languages",
    )
    add("--method", default="hypernet", help="hypernet, fvt, mean or random (default: %(default)s)")
    modes = "; ".join(f"{mode}: {meaning}" for mode, meaning in MODES.items())
    add("--special", default="keep-target", metavar="MODE", help=f"special tokens. {modes} (default: %(default)s)")
    add("--revision", help="branch, tag or commit of --model on the Hub")
    what = "text files and folders to measure bits per byte on, before and after: printed, and put into the card"
    add("--text", nargs="+", action="extend", default=[], metavar="PATH", help=what)
    add("--measure", nargs="+", action="extend", dest="text", help=argparse.SUPPRESS)  # its old name
    add("--push", metavar="NAME", help="upload the result to the Hugging Face Hub under this name, too")
    add("--overwrite", action="store_true", help="replace --output if it is there and holds a model")
    add("--seed", type=int, default=0, help="of the method random (default: %(default)s)")
    _add_debug(parser)
    args = parser.parse_args(argv)
    _quiet(args.debug)
    from zett.belongs import check_belongs
    from zett.progress import phase, shown

    if args.method == "hypernet" and args.hypernet:
        check_belongs(args.model, args.hypernet)  # in no time, since JAX takes its own
    with shown():
        with phase("loading JAX"):
            from zett.transfer import transfer

        output = transfer(
            args.model, args.tokenizer, args.output,
            method=args.method, hypernet=args.hypernet, language=args.language, special=args.special, revision=args.revision,
            overwrite=args.overwrite, seed=args.seed, text=args.text, push=args.push,
        )  # fmt: skip
    print(f"wrote {output}")
    return 0


def _train(argv: list[str], prog: str) -> int:
    from zett.config_file import load_config, split_overrides

    description = "Train a hypernetwork, a transferred model further, or a small base model."
    parser = Parser(prog=prog, description=description, epilog=TRAIN_EXAMPLES)
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="Python file with get_config()")
    parser.add_argument("--workdir", help="folder of the run; a run that is there already is resumed")
    # Only for --help: split_overrides takes these out before argparse sees them.
    parser.add_argument("--config.SECTION.FIELD", metavar="VALUE", dest="_", help="set a field of the config, may be repeated")
    group = parser.add_argument_group("several processes", "the same command for each, on one machine or many")
    group.add_argument("--distributed", action="store_true", help="find the others: TPU pods, SLURM, Open MPI, Kubernetes")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="by hand: address of the first process")
    group.add_argument("--processes", type=int, metavar="N", help="by hand: how many there are")
    group.add_argument("--process", type=int, metavar="I", help="by hand: which one this is, from 0")
    group = parser.add_argument_group("a look ahead", "without weights, texts or a network")
    group.add_argument(
        "--dry_run", nargs="?", const="table", choices=("table", "json"),
        help="check the config and print what the run takes: parameters, memory, arithmetic, time",
    )  # fmt: skip
    group.add_argument("--devices", type=int, metavar="N", help="how many (default: those of config.mesh, or of this machine)")
    group.add_argument("--device", metavar="NAME", help="of which kind, such as h100 or tpu-v4 (default: a list of them)")
    _add_debug(parser)
    rest, overrides = split_overrides(argv)
    args = parser.parse_args(rest)
    if not args.dry_run and (args.devices or args.device):
        raise UserError("--devices and --device belong to --dry_run")
    if not args.dry_run and not args.workdir:
        parser.error("the following arguments are required: --workdir")
    config = load_config(args.config, overrides)
    _quiet(args.debug)
    if args.dry_run:
        return _dry_run(config, args)
    from zett.progress import phase, shown

    first = True
    if args.distributed or any(x is not None for x in (args.coordinator, args.processes, args.process)):
        import jax

        from zett.mesh import start_processes

        start_processes(args.coordinator, args.processes, args.process)
        first = jax.process_index() == 0
    with shown(first):
        with phase("loading JAX"):
            from zett.train.run import train

        train(config, args.workdir)
    return 0


def _dry_run(config, args) -> int:
    import json

    if args.devices is not None and args.devices < 1:
        raise UserError(f"--devices is {args.devices}; it has to be at least 1")
    if args.devices or -1 not in (config.mesh.data, config.mesh.fsdp, config.mesh.tensor):
        os.environ["JAX_PLATFORMS"] = "cpu"  # no device is asked for anything: another run may have them
    from zett.plan import plan, tables

    report = plan(config, devices=args.devices, device=args.device)
    print(json.dumps(report, indent=2) if args.dry_run == "json" else tables(report))
    if report["fault"]:
        raise UserError(report["fault"])
    return 0


def _export(argv: list[str], prog: str) -> int:
    parser = Parser(prog=prog, description="Write a hypernetwork in the form that zett releases.", epilog=EXPORT_EXAMPLES)
    add = parser.add_argument
    add("--hypernet", required=True, help="published or released hypernetwork (a folder or a Hub name), or any run's workdir")
    add("--output", required=True, help="folder to write")
    add("--checkpoint", default="best", choices=("best", "latest"), help="of a run (default: %(default)s)")
    add("--push", metavar="NAME", help="upload the result to the Hugging Face Hub under this name, too")
    add("--overwrite", action="store_true", help="replace --output if it is there and holds a hypernetwork")
    _add_debug(parser)
    args = parser.parse_args(argv)
    _quiet(args.debug)
    from zett.export import export
    from zett.progress import phase, shown

    with shown(), phase(f"exporting {args.hypernet}"):
        output = export(args.hypernet, args.output, checkpoint=args.checkpoint, overwrite=args.overwrite, push=args.push)
    print(f"wrote {output}")
    return 0


def _eval(argv: list[str], prog: str) -> int:
    parser = Parser(
        prog=prog,
        description="Measure bits per byte with tokenizers that the model was not trained with.",
        epilog=EVAL_EXAMPLES,
    )
    from zett.evaluate import add_arguments, run

    add_arguments(parser)
    _add_debug(parser)
    args = parser.parse_args(argv)
    _quiet(args.debug)
    from zett.progress import shown

    with shown(not args.json):
        return run(args)


def _inspect(argv: list[str], prog: str) -> int:
    from zett.inspect import add_arguments, run

    description = "Compare a tokenizer with the one of a base model: what a transfer would change, and what to beware of."
    parser = Parser(prog=prog, description=description, epilog=INSPECT_EXAMPLES)
    add_arguments(parser)
    _add_debug(parser)
    args = parser.parse_args(argv)
    _quiet(args.debug)
    from zett.progress import shown

    with shown(args.json != "-"):
        return run(args)


def _quickstart(argv: list[str], prog: str) -> int:
    description = "Train a hypernetwork for two minutes, transfer a model with it and show how good the result is."
    parser = Parser(prog=prog, description=description)
    parser.add_argument("--output", default="runs/quickstart", help="folder to write; what is there is not done again")
    _add_debug(parser)
    args = parser.parse_args(argv)
    _quiet(args.debug)
    from zett.progress import shown
    from zett.quickstart import quickstart

    with shown():
        quickstart(args.output)
    return 0


def _add_debug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--debug", action="store_true", help="show tracebacks and the libraries' own messages (or: ZETT_DEBUG=1)"
    )


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


def _exit(command: Callable, argv: list[str], **settings) -> None:
    """Run `command` and leave with its code: 2 and one line for the user's mistakes, 130 after Ctrl-C."""
    try:
        code = command(argv, **settings)
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
