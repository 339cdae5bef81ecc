"""`zett chats`."""

import argparse

from zett.progress import phase, shown

DESCRIPTION = "Let a chat model write conversations by itself, to train it (or a hypernetwork for it) in its own turns."
EXAMPLES = """\
examples:
  # 256 questions with answers, as the model asks and answers them
  zett chats --model path/to/chat-model --output chats.jsonl

  # refine a transferred model on a text, and half of the time on these conversations
  zett refine --model my-model --text path/to/texts --chats chats.jsonl --output my-refined-model

  # a hypernetwork that learns from them, too
  python train.py --config configs/smollm2.py --config.data.turns=0.5 --config.data.chats=chats.jsonl

A transferred chat model may read texts well and still end its answers too early, since its special tokens keep their rows while
all others move. What it said itself before, and where it ended, is the best text to mend that with; no data set is needed. The
model is given what its chat template puts before a user's message, and goes on from there (Magpie, arXiv 2406.08464). Each line
of the file has "messages" as chat data sets have them, so that such a data set can take its place.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model", required=True, help="a chat model: a folder, a GGUF file, or a Hub name; the original, not a transferred one"
    )
    add("--output", required=True, help="file to write (.jsonl)")
    add("--n", type=int, default=256, metavar="N", help="conversations (default: %(default)s)")
    add("--max-tokens", type=int, default=320, metavar="N", help="of a question and its answer together (default: %(default)s)")
    add("--temperature", type=float, default=0.8, metavar="T", help="at which tokens are drawn (default: %(default)s)")
    add("--seed", type=int, default=0, help="of what is drawn (default: %(default)s)")
    add("--overwrite", action="store_true", help="replace --output if it is there")


def run(args: argparse.Namespace) -> int:
    with shown():
        with phase("loading JAX"):
            from zett.chats import write_chats

        output = write_chats(
            args.model, args.output,
            number=args.n, max_tokens=args.max_tokens, temperature=args.temperature, seed=args.seed, overwrite=args.overwrite,
        )  # fmt: skip
    print(f"wrote {output}")
    return 0
