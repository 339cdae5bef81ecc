"""`zett trim`."""

import argparse
import functools

from zett.commands.shared import check_output_given, model_and_output, push_and_overwrite, rows_and_reading, written
from zett.data.languages import WIKIPEDIA
from zett.progress import phase, shown

DESCRIPTION = "Make a model's vocabulary smaller: keep the tokens that a text uses most, and drop the rows of the others."
EXAMPLES = """\
examples:
  # the 64,000 ids that matter most in these texts
  zett trim --model path/to/model --text path/to/texts --vocab-size 64000 --output my-model

  # the same, only to see what would go, how large the model would be, and how much of the text would be cut otherwise
  zett trim --model path/to/model --text path/to/texts --vocab-size 64000 --dry-run

  # all tokens that they use, and no others; rows padded to a multiple of 64, which GPUs like
  zett trim --model path/to/model --text path/to/texts --pad-to-multiple-of 64 --output my-model

  # the ids that text in these languages uses most; texts of one's own instead of Wikipedia's: --languages-from 'texts/{}.txt'
  zett trim --model path/to/model --languages de fr --vocab-size 64000 --output my-model

  # a list of tokens, one a line as tokenizer.json spells them ("Ġthe", "▁the", "##ing")
  zett trim --model path/to/model --keep tokens.txt --output my-model

Any architecture with safetensors: only its vocabulary's rows are read, and those that stay are bit for bit what they were.
Nothing is trained. Text whose tokens all stay is cut into the same tokens as before, and the model computes the same for it.
What cannot go stays: special tokens, tokens that configs, chat template and post-processor name, bytes, and the tokens that
merges need on their way to others. Ids are numbered anew, in the old order, everywhere: tokenizer, config.json,
generation_config.json. A fiftieth of the text is held out, and measured: tokens per byte, and how much is cut as before.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    model_and_output(parser)
    add = parser.add_argument
    add("--text", metavar="SPEC", help="text source: python, prose, a file, a folder, or hf:NAME[:CONFIG]; several: A|B")
    what = "codes of languages whose text the vocabulary is for; the text is Wikipedia's, streamed from the Hub (de fr)"
    add("--languages", nargs="+", default=[], metavar="CODE", help=what)
    what = "where their texts are: a text source with {} for a code (default: %(default)s)"
    add("--languages-from", default=WIKIPEDIA, metavar="SPEC", help=what)
    add("--vocab-size", type=int, metavar="N", help="ids after trimming (default: all that the text uses)")
    what = "file of tokens that stay, one a line as tokenizer.json spells them, or a .json list of these or of ids"
    add("--keep", metavar="FILE", help=what)
    rows_and_reading(parser)
    push_and_overwrite(parser)


def run(args: argparse.Namespace) -> int:
    check_output_given(args, "trim")
    settings = {
        "text": args.text, "languages": args.languages, "languages_from": args.languages_from, "vocab_size": args.vocab_size,
        "keep": args.keep, "pad_to_multiple_of": args.pad_to_multiple_of, "text_column": args.text_column,
        "revision": args.revision,
    }  # fmt: skip
    with shown():
        with phase("loading JAX"):
            from zett.surgery.trim import USUAL, preview_trim, trim

        if args.dry_run:
            said = str(preview_trim(args.model, **settings))
        else:
            made_with = functools.partial(written, "trim", usual=USUAL)
            output = trim(args.model, args.output, **settings, overwrite=args.overwrite, push=args.push, made_with=made_with)
            said = f"wrote {output}"
    print(said)
    return 0
