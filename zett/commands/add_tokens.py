"""`zett add-tokens`."""

import argparse
import functools

from zett.commands.shared import check_output_given, model_and_output, push_and_overwrite, rows_and_reading, written
from zett.progress import phase, shown

DESCRIPTION = "Give a model new tokens that its tokenizer really uses, and leave all others as they are."
EXAMPLES = """\
examples:
  # the 2,000 tokens that shorten these texts most, such as those of a language or a domain
  zett add-tokens --model path/to/model --from-text path/to/texts --n 2000 --output my-model

  # a list of texts, one a line; a space at the beginning counts (" photosynthesis")
  zett add-tokens --model path/to/model --tokens words.txt --output my-model

  # rows by another method than the usual one; `zett methods` lists them
  zett add-tokens --model path/to/model --tokens words.txt --method first_last --output my-model

A BPE's training goes on where it ended: new merges come after all old ones, so that a text is cut as before, and then joined
further. Unigrams get new pieces with scores, WordPieces new words. Old ids and rows stay bit for bit; new ids come after the
old ones, in rows beyond the tokenizer first, where the model has such. Rows are made by the hypernetwork in the package that is
for the model, or are the means of their pieces' rows (fvt). Every new token is tried; one that the tokenizer would not make is
refused, with the reason. With --from-text, a fiftieth of the text is held out, and measured before and after.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    model_and_output(parser)
    add = parser.add_argument
    add("--tokens", metavar="FILE", help="file of texts that become tokens, one a line")
    what = "text source to find tokens in: python, prose, a file, a folder, or hf:NAME[:CONFIG]; several: A|B"
    add("--from-text", metavar="SPEC", help=what)
    add("--n", type=int, default=2000, help="of --from-text, how many tokens (default: %(default)s)")
    what = "of the new rows: NAME, or NAME:SETTING=VALUE,... (default: the hypernetwork in the package for the model, else fvt)"
    add("--method", metavar="METHOD", help=what)
    add("--hypernet", metavar="DIR", help="hypernetwork made for this model: a folder or a Hub name")
    add("--language", metavar="CODE", help="language of the tokens, where the hypernetwork knows languages")
    add("--skip", action="store_true", help="leave out texts of --tokens that cannot be tokens, instead of stopping")
    rows_and_reading(parser)
    push_and_overwrite(parser)
    add("--seed", type=int, default=0, help="of the method random (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    check_output_given(args, "add-tokens")
    settings = {
        "tokens": args.tokens, "from_text": args.from_text, "n": args.n, "skip": args.skip,
        "pad_to_multiple_of": args.pad_to_multiple_of, "text_column": args.text_column, "revision": args.revision,
    }  # fmt: skip
    with shown():
        with phase("loading JAX"):
            from zett.surgery.add_tokens import USUAL, add_tokens, preview_add_tokens

        if args.dry_run:
            said = str(preview_add_tokens(args.model, **settings))
        else:
            output = add_tokens(
                args.model, args.output, **settings,
                method=args.method, hypernet=args.hypernet, language=args.language, overwrite=args.overwrite, push=args.push,
                seed=args.seed, made_with=functools.partial(written, "add-tokens", usual=USUAL),
            )  # fmt: skip
            said = f"wrote {output}"
    print(said)
    return 0
