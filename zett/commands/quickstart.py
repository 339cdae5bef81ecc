"""`zett quickstart`, and `make quickstart`."""

import argparse

from zett.progress import shown

DESCRIPTION = "Train a hypernetwork for two minutes, transfer a model with it and show how good the result is."
EXAMPLES = None


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", default="runs/quickstart", help="folder to write; what is there is not done again")


def run(args: argparse.Namespace) -> int:
    from zett.demos.quickstart import quickstart

    with shown():
        quickstart(args.output)
    return 0
