"""`zett add-tokens`."""

import argparse
import shlex

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
    add = parser.add_argument
    add("--model", required=True, help="a folder with safetensors and a tokenizer, a GGUF file, a Hub name, or pico")
    add("--output", required=True, help="folder to write")
    add("--tokens", metavar="FILE", help="file of texts that become tokens, one a line")
    what = "text source to find tokens in: python, prose, a file, a folder, or hf:NAME[:CONFIG]; several: A|B"
    add("--from-text", metavar="SPEC", help=what)
    add("--n", type=int, default=2000, help="of --from-text, how many tokens (default: %(default)s)")
    what = "of the new rows: NAME, or NAME:SETTING=VALUE,... (default: the hypernetwork in the package for the model, else fvt)"
    add("--method", metavar="METHOD", help=what)
    add("--hypernet", metavar="DIR", help="hypernetwork made for this model: a folder or a Hub name")
    add("--language", metavar="CODE", help="language of the tokens, where the hypernetwork knows languages")
    add("--skip", action="store_true", help="leave out texts of --tokens that cannot be tokens, instead of stopping")
    what = "rows are padded to a multiple of this, with the mean of all (default: %(default)s)"
    add("--pad-to-multiple-of", type=int, default=1, metavar="M", help=what)
    add("--text-column", default="text", help="column of jsonl and parquet files")
    add("--revision", help="branch, tag or commit of --model on the Hub")
    add("--push", metavar="NAME", help="upload the result to the Hugging Face Hub under this name, too")
    add("--overwrite", action="store_true", help="replace --output if zett wrote it, or if it holds a model and nothing else")
    add("--seed", type=int, default=0, help="of the method random (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    with shown():
        with phase("loading JAX"):
            from zett.surgery.add_tokens import add_tokens

        output = add_tokens(
            args.model, args.output,
            tokens=args.tokens, from_text=args.from_text, n=args.n, method=args.method, hypernet=args.hypernet,
            language=args.language, skip=args.skip, pad_to_multiple_of=args.pad_to_multiple_of, text_column=args.text_column,
            revision=args.revision, overwrite=args.overwrite, push=args.push, seed=args.seed, made_with=command_line,
        )  # fmt: skip
    print(f"wrote {output}")
    return 0


def command_line(settings: dict) -> str:
    """The command with the settings of `zett.add_tokens`; those that have their usual value are left out."""
    usual = {"n": 2000, "skip": False, "pad_to_multiple_of": 1, "text_column": "text", "seed": 0}
    words = ["zett", "add-tokens"]
    for name, value in settings.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value != usual.get(name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
