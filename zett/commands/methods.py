"""`zett methods`."""

import argparse

DESCRIPTION = "List the ways to get a table for another tokenizer, what each needs, and its settings."
EXAMPLES = """\
A method is written NAME or NAME:SETTING=VALUE,... wherever --method takes one:
  zett transfer --model path/to/model --method hypernet:runs/mine/export --tokenizer path/to/tokenizer --output my-model
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(args: argparse.Namespace) -> int:
    import dataclasses
    import textwrap

    from zett.methods import METHODS, method_class

    for name in METHODS:
        method = method_class(name)
        first, *more = (method.__doc__ or "").strip().splitlines()
        print(f"{name}\n  {first}\n  needs {method.needs}")
        for field in dataclasses.fields(method):  # type: ignore[arg-type]
            print(f"  {name}:{field.name}={field.default}")
        if rest := " ".join(" ".join(more).split()):
            print(textwrap.fill(rest, 100, initial_indent="  ", subsequent_indent="  "))
    return 0
