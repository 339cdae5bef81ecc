"""What the name of a model or tokenizer stands for: one in the package, a local folder, or one on the Hugging Face Hub."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from zett.errors import UserError
from zett.files import hub

ASSETS = Path(__file__).parents[1] / "assets"
SOURCE_TOKENIZER = "source_tokenizer"  # a folder inside the folder of a released hypernetwork
BASE_ROWS = "base_rows.safetensors"  # a file in it: some rows of its base model; see zett/hypernet/base_rows.py


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a name can stand for.

    words: what messages call it. packaged: names of those in the package, and their folders. wanted: a file that a folder has
    to have. patterns: lists of patterns of the files to download; the first list that finds weights is taken. ignored: patterns
    of files that are not downloaded.
    """

    words: str
    packaged: dict[str, str]
    patterns: tuple[Sequence[str], ...]
    ignored: Sequence[str] = ()
    wanted: str | None = None


_SMALL = ("*.json", "*.txt", "*.md", "LICENSE*", f"{SOURCE_TOKENIZER}/*")
BASE_MODEL = Kind(
    "base model",
    {"pico": "pico"},
    (("*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model", "LICENSE*", "NOTICE*"),),
    # Subfolders hold other formats; only numbered ones are the modules of sentence-embedding models. The file
    # consolidated.safetensors repeats the weights.
    ignored=("[!0-9]*/*", "consolidated*"),
    wanted="config.json",
)
HYPERNETWORK = Kind(
    "hypernetwork",
    {"pico": "pico-hypernet", "smollm2": "smollm2-hypernet"},
    ((*_SMALL, "*.safetensors"), (*_SMALL, "*.msgpack")),
)
TOKENIZER = Kind(
    "tokenizer",
    {"pico": "pico"},
    ((
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
        "vocab.json", "merges.txt", "vocab.txt", "config.json", "generation_config.json",
        "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    ),),
)  # fmt: skip

PACKAGED = {name for kind in (BASE_MODEL, HYPERNETWORK, TOKENIZER) for name in kind.packaged}  # which are no folders


def local(name: str | Path, kind: Kind) -> Path:
    """The path that `name` stands for if it is taken as one on this machine. Nothing need be there."""
    packaged = kind.packaged.get(os.fspath(name))
    return Path(name).expanduser() if packaged is None else ASSETS / packaged


def find(name: str | Path, kind: Kind, *, revision: str | None = None, check: Callable[[Path], None] | None = None) -> Path:
    """The local folder that `name` stands for, downloaded if it is on the Hub. UserError if there is none.

    check: a function that raises UserError for a folder that holds something else.
    """
    folder, given = local(name, kind), os.fspath(name)
    if not given.strip():  # which `Path` takes for the current folder
        raise UserError(f"the name of the {kind.words} is {given!r}; give its folder, or its name on the Hugging Face Hub")
    if given in kind.packaged and not folder.is_dir():
        raise UserError(f"this installation lacks the {kind.words} {given!r} ({folder}); install the package again")
    if folder.is_dir():
        if check is not None:
            check(folder)
        if kind.wanted is not None and not (folder / kind.wanted).is_file():
            raise UserError(f"{folder} is not the folder of a {kind.words}: it has no {kind.wanted}")
        return folder
    if folder.is_file():
        raise UserError(f"{folder} is a file; give the folder of the {kind.words}")
    if not hub.is_name(given):
        raise UserError(f"there is no folder {folder} with a {kind.words}")
    for patterns in kind.patterns:
        folder = hub.download(
            given, patterns, ignored=kind.ignored, revision=revision, what=kind.words, wanted=kind.wanted, check=check
        )
        if any(folder.glob(patterns[-1])):
            break
    return folder
