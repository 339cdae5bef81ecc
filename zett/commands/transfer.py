"""`zett transfer`."""

import argparse
import shlex

from zett.belongs import check_belongs, shipped_candidates
from zett.choices import MODES, VARIANTS
from zett.commands.shared import push_and_overwrite
from zett.errors import UserError
from zett.progress import phase, shown

DESCRIPTION = "Write a base model with another tokenizer."
EXAMPLES = """\
examples:
  # the embedded base model with the shipped hypernetwork
  zett transfer --model pico --tokenizer path/to/tokenizer --output my-model

  # your own model, and a hypernetwork trained for it
  zett transfer --model path/to/model --hypernet runs/mine/export --tokenizer path/to/tokenizer --output my-model

  # a fine-tuned or quantised variant of the model that the hypernetwork was trained for
  zett transfer --model path/to/variant --base path/to/model --hypernet runs/mine/export --tokenizer path/to/tokenizer \\
      --output my-model

  # without a hypernetwork: every new row is the mean of its pieces' rows
  zett transfer --model path/to/model --method fvt --tokenizer path/to/tokenizer --output my-model

  # a draft for speculative decoding: a small model that speaks a big one's tokenizer, with as many rows (BIG needs no weights)
  zett transfer --model SMALL --tokenizer BIG --like BIG --map '<|im_start|>=<|user|>' --output my-draft

The result opens with transformers.AutoModelForCausalLM and AutoTokenizer. The tokenizer's files are the ones you gave,
unless --special asks for others.
"""


def arguments(parser: argparse.ArgumentParser) -> None:

    add = parser.add_argument
    add("--model", required=True, help="base model: a folder, a Hugging Face Hub name, or pico, the one in the package")
    add("--tokenizer", required=True, help="target tokenizer: a folder with tokenizer.json, that file, or a Hub name")
    add("--output", required=True, help="folder to write")
    add(
        "--hypernet",
        help="hypernetwork made for this base model: a folder or a Hub name (default: the one in the package for it)",
    )
    what = "where --model is a fine-tuned, quantised or re-saved variant: the base model that the hypernetwork was trained for"
    add("--base", metavar="DIR", help=what)
    ways = "; ".join(f"{way}: {meaning}" for way, meaning in VARIANTS.items())
    add("--variant", metavar="ROWS", help=f"with --base, how rows are made. {ways} (default: {next(iter(VARIANTS))})")
    what = "language of the tokenizer, by code or number, where the hypernetwork knows languages"
    add("--language", metavar="CODE", help=what)
    what = "choose on this text (a file or folder, seconds) how far the hypernetwork's rows go from FVT's, the mean of pieces"
    add("--fit-scale", metavar="TEXT", help=what)
    what = "NAME, or NAME:SETTING=VALUE,...; `zett methods` lists them (default: hypernet; if none fits, fvt)"
    add("--method", metavar="METHOD", help=what)
    modes = "; ".join(f"{mode}: {meaning}" for mode, meaning in MODES.items())
    add("--special", default="keep-target", metavar="MODE", help=f"special tokens. {modes} (default: %(default)s)")
    what = "the model that the result drafts for: as many rows (padding included), ids and chat template become this model's; "
    add("--like", metavar="BIG", help=what + "a folder, which needs no weights, or a Hub name")
    what = "TOKEN of the tokenizer gets the row of TEXT in --model, or one made of its pieces' rows; may be repeated"
    add("--map", action="append", default=[], metavar="TOKEN=TEXT", help=what)
    add("--revision", help="branch, tag or commit of --model on the Hub")
    what = "text files and folders to measure bits per byte on, before and after: printed, and put into the card"
    add("--text", nargs="+", action="extend", default=[], metavar="PATH", help=what)
    add("--measure", nargs="+", action="extend", dest="text", help=argparse.SUPPRESS)  # its old name
    what = "then train the rows on this text source for --minutes, against --model; see `zett refine`"
    add("--refine", metavar="SPEC", help=what)
    add("--minutes", type=float, help="of --refine (default: 2)")
    push_and_overwrite(parser)
    add("--seed", type=int, default=0, help="of the method random (default: %(default)s)")


def run(args: argparse.Namespace) -> int:

    if args.minutes is not None and args.refine is None:
        raise UserError(f"--minutes is {args.minutes}, but there is no --refine that it would limit")
    if args.method in (None, "hypernet"):  # in no time, since JAX takes its own
        if args.hypernet:
            check_belongs(args.model, args.hypernet)
        elif args.method or args.base or args.variant or args.language or args.fit_scale:
            shipped_candidates(args.base or args.model)
    settings = {
        "method": args.method, "hypernet": args.hypernet, "language": args.language, "special": args.special,
        "revision": args.revision, "overwrite": args.overwrite, "seed": args.seed, "text": args.text, "push": args.push,
        "base": args.base, "variant": args.variant, "fit_scale": args.fit_scale, "like": args.like, "map": args.map,
        "made_with": command_line,
    }  # fmt: skip
    with shown():
        with phase("loading JAX"):
            from zett.transfer import transfer
        if args.refine is None:
            output = transfer(args.model, args.tokenizer, args.output, **settings)
        else:
            from zett.refine import transfer_and_refine

            limit = {} if args.minutes is None else {"minutes": args.minutes}
            output = transfer_and_refine(args.model, args.tokenizer, args.output, refine_on=args.refine, **limit, **settings)
    print(f"wrote {output}")
    return 0


def command_line(settings: dict) -> str:
    """The command with the settings of a transfer; those that have their usual value are left out."""
    words = ["zett", "transfer"]
    usual = {"special": "keep-target", "seed": 0, "text": []}
    names = ("model", "tokenizer", "method", "hypernet", "language", "base", "variant", "fit_scale", "revision", "special")
    for name in (*names, "like", "map", "seed", "text", "output"):
        value = settings.get(name)
        if name == "map":
            for token, mapped in (value or {}).items():
                words += ["--map", f"{token}={mapped}"]
        elif value is not None and value != usual.get(name):
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return shlex.join(words)
