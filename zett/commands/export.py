"""`zett export`."""

import argparse

from zett.choices import STORED
from zett.progress import phase, shown

DESCRIPTION = "Write a hypernetwork in the form that zett releases."
EXAMPLES = """\
examples:
  zett export --hypernet path/to/published/checkpoint --output my-hypernet
  zett export --hypernet runs/pico --checkpoint latest --output my-hypernet     # of a run, stopped or going on
  zett export --hypernet runs/more --mean-with smollm2 --output my-hypernet     # of a run that started from smollm2
  zett export --hypernet old --base path/to/model --output new      # made before hypernetworks had rows of their base model

What comes out is used by `zett transfer --hypernet`. That reads published checkpoints as they are, too.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--hypernet", required=True, help="published or released hypernetwork (a folder or a Hub name), or any run's workdir")
    add("--output", required=True, help="folder to write")
    what = "base model of a released hypernetwork: some of its rows are put into the folder, by which variants of it are known"
    add("--base", metavar="DIR", help=what)
    add("--checkpoint", default="best", choices=("best", "latest"), help="of a run (default: %(default)s)")
    what = "write the mean of its parameters and of those of this one, of the same shape for the same model: where a run went "
    what += "on from this one with little text a step, that may be better than both"
    add("--mean-with", metavar="HYPERNET", help=what)
    what = "how a hypernetwork's parameters are stored; int8 is a quarter of float32 (default: as they are)"
    add("--weights", choices=STORED, help=what)
    add("--push", metavar="NAME", help="upload the result to the Hugging Face Hub under this name, too")
    what = "replace --output if zett wrote it, or if it holds a model or hypernetwork and nothing else"
    add("--overwrite", action="store_true", help=what)


def run(args: argparse.Namespace) -> int:
    from zett.export import export

    with shown(), phase(f"exporting {args.hypernet}"):
        output = export(
            args.hypernet, args.output,
            checkpoint=args.checkpoint, weights=args.weights, overwrite=args.overwrite, push=args.push, base=args.base,
            mean_with=args.mean_with,
        )  # fmt: skip
    print(f"wrote {output}")
    return 0
