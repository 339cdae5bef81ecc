"""Target tokenizers for evaluation: given ones, and ones trained on the spot and kept in the cache."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from zett.arguments import several
from zett.choices import KINDS
from zett.data.documents import Documents, first_bytes
from zett.data.sources import open_text
from zett.errors import UserError
from zett.files.cache import cache_folder
from zett.files.folders import new_folder
from zett.progress import phase
from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.adapt import adapt_special, check_mode
from zett.vocab.train import RECIPE, save_tokenizer, train_tokenizer

DEFAULT_TARGETS = ("bpe-2k", "bpe-8k", "bpe-16k", "unigram-8k", "sentencepiece-bpe-8k", "prose-bpe-8k")
PROSE = "prose-"
SMALLEST, LARGEST = 300, 2**20  # what holds all bytes, and as many entries as the largest tokenizers in use have
SPEC = re.compile(rf"(?P<prose>{PROSE})?(?P<kind>{'|'.join(KINDS)})-(?P<size>\d+)(?P<thousands>k?)")

# Text that a tokenizer is trained on, so that each takes a few seconds.
SAMPLE_BYTES = {
    "bpe": 10_000_000, "wordpiece": 10_000_000, "sentencepiece-bpe": 5_000_000, "unigram": 5_000_000, "superword": 5_000_000
}  # fmt: skip


def load_target(spec: str, text="python", *, prose="prose", text_column: str = "text") -> Vocabulary:
    """A target tokenizer: a folder, a tokenizer.json, a Hub name, or "KIND-SIZE" trained here.

    "bpe-8k" is byte-level BPE with 8 x 1024 entries trained on `text`; "prose-bpe-8k" is trained on `prose`. Both are
    documents, or the name of a source, whose training split is taken. Kinds are those of `zett.choices.KINDS`. The same
    text gives the same tokenizer. Raises UserError.
    """
    parsed = parse_target(spec)
    if parsed is None:
        return load_tokenizer(spec)
    from_prose, kind, size = parsed
    documents = prose if from_prose else text
    if isinstance(documents, str):
        documents = open_text(documents, split="train", text_column=text_column, stream_bytes=2 * max(SAMPLE_BYTES.values()))
    return load_tokenizer(trained_tokenizer(kind, size, documents))


def parse_target(spec: str) -> tuple[bool, str, int] | None:
    """(whether from prose, kind, size) of a target that is trained here; None for a folder, a file or a Hub name. UserError."""
    match = SPEC.fullmatch(spec)
    if match is None:
        # "gpt2" may be a name on the Hub; "bpe8k" is a slip.
        if spec.startswith((PROSE, *KINDS)) and not Path(spec).exists():
            raise UserError(
                f"target {spec!r} is neither a tokenizer folder nor KIND-SIZE, such as bpe-8k or prose-bpe-8k "
                f"(kinds: {', '.join(KINDS)})"
            )
        return None
    digits = match["size"].lstrip("0")
    size = int(digits[:12] or 0) * (1024 if match["thousands"] else 1)
    if len(digits) > 12 or not SMALLEST <= size <= LARGEST:
        raise UserError(
            f"target {spec!r} asks for {digits or 0}{match['thousands']} entries; trained here are from {SMALLEST}, the fewest "
            f"that hold all bytes, to {LARGEST // 1024}k"
        )
    return bool(match["prose"]), match["kind"], size


def target_specs(given: str | Path | Vocabulary | Sequence[str | Path] | Mapping[str, Vocabulary] | None) -> list[str]:
    """Those of the targets that are to be loaded, each once; "default" is those of `DEFAULT_TARGETS`. UserError if absurd."""
    if isinstance(given, Mapping | Vocabulary):
        return []
    named = ["default"] if given is None else map(str, several(given))
    specs = list(dict.fromkeys(spec for name in named for spec in (DEFAULT_TARGETS if name == "default" else (name,))))
    for spec in specs:
        parse_target(spec)
    return specs


def named_targets(given, specs: Sequence[str], bar: Callable, **texts: str) -> dict[str, Vocabulary]:
    """Vocabularies by name: those that are given, else those of the specs. bar: shows progress. texts: of `load_target`."""
    if isinstance(given, Vocabulary):
        return {given.folder.name if given.folder else "tokenizer": given}
    if isinstance(given, Mapping):
        return dict(given)
    if not specs:
        raise UserError("there is no target tokenizer to evaluate")
    with phase("reading the tokenizers, and training those that are not in the cache"):
        return {_short_name(s, specs): load_target(s, **texts) for s in bar(specs, desc="tokenizers", unit="tokenizer")}


def adapted_targets(named: Mapping[str, Vocabulary], source: Vocabulary, special: str, folder: Path) -> dict[str, Vocabulary]:
    """The vocabularies with the special tokens that `special`, one of zett.choices.MODES, asks for; files go to `folder`."""
    check_mode(special)
    adapted = {}
    for number, (name, vocab) in enumerate(named.items()):
        (folder / str(number)).mkdir()
        adapted[name] = adapt_special(vocab, source, special, folder / str(number))
    return adapted


def _short_name(spec: str, specs: Sequence[str]) -> str:
    """The last part of a path, as long as no other target ends in it."""
    short = Path(spec).parent.name if Path(spec).name == "tokenizer.json" else Path(spec).name
    clash = [s for s in specs if s != spec and short in (Path(s).name, Path(s).parent.name)]
    return spec if clash or not short else short


def trained_tokenizer(kind: str, size: int, documents: Documents) -> Path:
    """The folder of a tokenizer trained on `documents`; from the cache if it is there."""
    import tokenizers

    made_by = f"{RECIPE} {tokenizers.__version__}"
    key = hashlib.sha256(f"{documents.fingerprint()} {SAMPLE_BYTES[kind]} {made_by}".encode()).hexdigest()[:16]
    folder = cache_folder() / "tokenizers" / f"{kind}-{size}-{key}"
    if folder.exists():
        return folder
    tokenizer = train_tokenizer(kind, size, first_bytes(documents, SAMPLE_BYTES[kind]))
    with new_folder(folder) as temporary:
        save_tokenizer(tokenizer, temporary)
    return folder
