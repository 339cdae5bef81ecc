"""`zett refine`."""

import argparse

from zett.commands.shared import push_and_overwrite
from zett.errors import UserError
from zett.progress import phase, shown

DESCRIPTION = "Train the rows of a transferred model for some minutes, against the model that it was made from."
EXAMPLES = """\
examples:
  zett transfer --model path/to/model --method fvt --tokenizer path/to/tokenizer --output my-model
  zett refine --model my-model --text path/to/texts --minutes 2 --output my-refined-model

  # the body, too, where it fits into memory: it gains most
  zett refine --model my-model --text path/to/texts --minutes 5 --body --output my-refined-model

  # both at once
  zett transfer --model pico --tokenizer path/to/tokenizer --refine path/to/texts --minutes 2 --output my-model

It says bits per byte on held-out text before and after, and puts the curve into the folder. It ends early when nothing is
gained any more. Ctrl-C ends it, and what there is is written.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, help="what `zett transfer` wrote, or any other causal model with its tokenizer")
    what = "text source to train on: python, prose, a file, a folder, or hf:NAME[:CONFIG]; a fiftieth of it is held out"
    add("--text", required=True, metavar="SPEC", help=what)
    add("--output", required=True, help="folder to write")
    add("--minutes", type=float, default=2.0, help="of training, at most; compiling and measuring come on top (default: 2)")
    what = "the model that --model was made from, or none, to learn from text alone (default: what its zett.json says)"
    add("--original", metavar="MODEL", help=what)
    add("--body", action="store_true", help="also train all of the body, which gains most where it fits into memory")
    what = "or train changes of this rank of the body's matrices, which are added to them in the end (default: the rows alone)"
    add("--body-rank", type=int, default=0, metavar="R", help=what)
    what = "where output rows are the input rows (tied), train each apart; the result is untied, and larger by a table"
    add("--untie", action="store_true", help=what)
    what = "weights of what is also learnt from the original, such as hidden=1,chunk=0.1; see config.loss (default: text alone)"
    add("--distil", metavar="NAME=WEIGHT,...", help=what)
    what = "of a chat model: share of the texts that are framed as turns, by its chat template (default: 0; with --chats 0.5)"
    add("--turns", type=float, metavar="SHARE", help=what)
    what = "conversations for these turns: what `zett chats` wrote, or a file or hf:NAME with a column of messages"
    add("--chats", metavar="SPEC", help=what)
    add("--valid-text", metavar="SPEC", help="text to measure (default: the held-out part of --text)")
    add("--text-column", default="text", help="column of jsonl and parquet files")
    add("--learning-rate", type=float, help="default: by the size of the rows")
    add("--batch-size", type=int, help="texts in a step (default: 8 on CPUs, else 32)")
    add("--length", type=int, help="tokens of a text (default: 256 on CPUs, else 512)")
    push_and_overwrite(parser)
    add("--seed", type=int, default=0, help="of the order of texts (default: %(default)s)")


def weights(text: str) -> dict[str, float]:
    """ "hidden=1,chunk=0.1" as numbers by name."""
    found = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            raise UserError(f"--distil {text}: {part!r} is not NAME=WEIGHT, such as hidden=1") from None
    return found


def run(args: argparse.Namespace) -> int:
    distil = None if args.distil is None else weights(args.distil)
    with shown():
        with phase("loading JAX"):
            from zett.refine import refine

        output = refine(
            args.model, args.text, args.output,
            minutes=args.minutes, original=args.original, body=args.body, body_rank=args.body_rank, untie=args.untie,
            distil=distil, turns=args.turns, chats=args.chats, valid_text=args.valid_text, text_column=args.text_column,
            learning_rate=args.learning_rate, batch_size=args.batch_size, length=args.length, overwrite=args.overwrite,
            seed=args.seed, push=args.push,
        )  # fmt: skip
    print(f"wrote {output}")
    return 0
