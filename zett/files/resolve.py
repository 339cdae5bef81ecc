"""Where a name leads: to the package's own models, to a folder on this machine, or to the Hugging Face Hub."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from zett.errors import UserError
from zett.files import hub

ASSETS = Path(__file__).parents[1] / "assets"
SOURCE_TOKENIZER = "source_tokenizer"  # the folder, in a released hypernetwork's


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a name can stand for.

    words: what it is called. packaged: folders of the package's own, by name. wanted: a file that a folder has to have.
    patterns: of files that are downloaded; of several lists the first that brings weights. ignored: of files that are not.
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
    # Subfolders hold other formats, but for the numbered ones, the modules of sentence-embedding models;
    # consolidated.safetensors holds the same weights once more.
    ignored=("[!0-9]*/*", "consolidated*"),
    wanted="config.json",
)
HYPERNETWORK = Kind("hypernetwork", {"pico": "pico-hypernet"}, ((*_SMALL, "*.safetensors"), (*_SMALL, "*.msgpack")))
TOKENIZER = Kind(
    "tokenizer",
    {"pico": "pico"},
    ((
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
        "vocab.json", "merges.txt", "vocab.txt", "config.json", "generation_config.json",
        "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
    ),),
)  # fmt: skip


def local(name: str | Path, kind: Kind) -> Path:
    """The folder or file that `name` stands for if it is on this machine, whether or not anything is there."""
    packaged = kind.packaged.get(os.fspath(name))
    return Path(name).expanduser() if packaged is None else ASSETS / packaged


def find(name: str | Path, kind: Kind, *, revision: str | None = None, check: Callable[[Path], None] | None = None) -> Path:
    """The local folder that `name` stands for, downloaded if it is on the Hub. UserError if there is none.

    check: raises UserError for a folder that is something else.
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
