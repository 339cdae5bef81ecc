"""A model with a smaller vocabulary: what a text uses, with every row that stays bit by bit as it was."""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from zett import progress
from zett.cards import edit_card
from zett.data.documents import TextError, first_bytes
from zett.data.languages import WIKIPEDIA, language_source
from zett.data.sources import is_local, open_text, weighted_sources
from zett.errors import UserError
from zett.files import folders, hub
from zett.files.jsonfile import json_or_empty
from zett.gguf import find_gguf
from zett.lms.base import BaseModel, find_folder, load_base_model
from zett.surgery.edit import VocabularyEdit, trimming
from zett.surgery.keep import chosen, required
from zett.surgery.lengths import Lengths, compare, count
from zett.surgery.report import Preview, call_of, report, sample, spelled
from zett.surgery.write import row_count, write_edited
from zett.values import check_count
from zett.vocab import Vocabulary, load_tokenizer

HELD_OUT = 1_000_000  # bytes that are cut before and after
USUAL = {"pad_to_multiple_of": 1, "text_column": "text", "languages_from": WIKIPEDIA}


def trim(
    model: str | Path, output: str | Path, *, text: str | None = None, languages: Sequence[str] = (),
    languages_from: str = WIKIPEDIA, vocab_size: int | None = None, keep: str | Path | None = None, pad_to_multiple_of: int = 1,
    text_column: str = "text", revision: str | None = None, overwrite: bool = False, push: str | None = None,
    made_with: Callable[[dict], str] | None = None,
) -> Path:  # fmt: skip
    """Write to the folder `output` the `model` with fewer tokens; returns `output`.

    model: any folder of safetensors with a tokenizer, a GGUF file, a Hub name or "pico"; its body is copied, whatever it is.
    text: a text source, as `zett.data.sources.open_text` takes it: what it uses most stays, and its held-out part is measured.
    languages: codes; of each, a text from `languages_from` (see `zett.data.languages`) is read besides, all together 100 MB.
    vocab_size: of ids after; None: all that the text uses. keep: a file of tokens that stay, one a line as tokenizer.json
    spells them, or a JSON list of these or of ids. pad_to_multiple_of: of which the number of rows is. Special tokens, those
    that settings name, bytes, and what tokens are made of stay in any case, and ids keep their order. made_with: of the
    settings the text that the card shows as what was run. Bad input is a UserError, with nothing written.
    """
    output = folders.output_path(output)
    source = _checked(text, languages, languages_from, vocab_size, keep, pad_to_multiple_of)
    hub.check_push(push)
    sources = [one for _, one in weighted_sources(source) if is_local(one)] if source else []
    read = [find_gguf(model) or find_folder(model, revision), keep, *sources]
    folders.check_output(output, overwrite=overwrite, inputs=read)
    base, edit, parts = _planned(model, source, languages, vocab_size, keep, pad_to_multiple_of, text_column, revision)
    settings = {
        "model": str(model), "output": str(output), "text": text, "languages": list(languages) or None,
        "languages_from": languages_from if languages else None, "vocab_size": vocab_size,
        "keep": None if keep is None else str(keep), "pad_to_multiple_of": pad_to_multiple_of, "text_column": text_column,
        "revision": revision,
    }  # fmt: skip
    made = (made_with or call_of("zett.trim", USUAL))(settings)
    with folders.new_folder(output) as folder:
        with progress.phase(f"writing {output}"):
            left_out = write_edited(folder, base, edit, sample(base.vocab, parts[0]))
        lengths = _lengths(base, load_tokenizer(folder), edit, parts[1])
        facts = report(base, folder, edit, lengths)
        title = (
            f"`{model}` with {edit.size:,} of its {edit.before:,} tokens. Nothing was trained; every row that is left is the"
        )
        card = edit_card(
            output.name, str(model), f"{title} base model's, bit for bit, and so is the body.", facts, left_out, made
        )
        (folder / "README.md").write_text(card, encoding="utf-8")
        folders.mark(folder, "trim", settings | {"report": facts})
    if push is not None:
        hub.push(output, push, "Vocabulary trimmed by zett")
    return output


def preview_trim(
    model: str | Path, *, text: str | None = None, languages: Sequence[str] = (), languages_from: str = WIKIPEDIA,
    vocab_size: int | None = None, keep: str | Path | None = None, pad_to_multiple_of: int = 1, text_column: str = "text",
    revision: str | None = None,
) -> Preview:  # fmt: skip
    """What `trim` would do with the same arguments: the tokenizer and the settings are made and tried, and nothing is kept."""
    source = _checked(text, languages, languages_from, vocab_size, keep, pad_to_multiple_of)
    base, edit, parts = _planned(model, source, languages, vocab_size, keep, pad_to_multiple_of, text_column, revision)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        left_out = write_edited(folder, base, edit, sample(base.vocab, parts[0]), weights=False)
        facts = report(base, folder, edit, _lengths(base, load_tokenizer(folder), edit, parts[1]))
    return Preview(facts, spelled(base.vocab, edit.gone.tolist()), "go", tuple(left_out))


def _checked(
    text: str | None, languages: Sequence[str], languages_from: str, vocab_size: int | None, keep: str | Path | None,
    pad_to_multiple_of: int,
) -> str | None:  # fmt: skip
    """The text source that says which tokens stay. UserError for arguments that make no sense."""
    source = "|".join(([text] if text else []) + ([language_source(languages, languages_from)] if languages else [])) or None
    if source is None and keep is None:
        raise UserError("nothing says which tokens stay; give a text (--text), languages, or a file of tokens (--keep)")
    check_count(pad_to_multiple_of, "pad_to_multiple_of")
    if vocab_size is not None:
        check_count(vocab_size, "vocab_size")
    return source


def _planned(
    model: str | Path, source: str | None, languages: Sequence[str], vocab_size: int | None, keep: str | Path | None,
    multiple: int, text_column: str, revision: str | None,
) -> tuple[BaseModel, VocabularyEdit, list[Sequence[str]]]:  # fmt: skip
    """The model without its body, the edit, and the texts: what says which tokens stay, and what is held out."""
    parts: list[Sequence[str]] = [
        open_text(source, split=split, text_column=text_column) if source else [] for split in ("train", "valid")
    ]
    _check_there(parts, languages)
    with progress.phase(f"reading the model {model}"):
        base = load_base_model(model, revision=revision, body=False)
    return base, _edit(base, parts[0], vocab_size, keep, multiple), parts


def _check_there(parts: Sequence[Sequence[str]], languages: Sequence[str]) -> None:
    """UserError if the texts of the languages cannot be read, such as without a network."""
    try:
        for part in parts if languages else ():
            len(part)
    except TextError as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(
            f"languages {', '.join(languages)}: {why}; give texts in them that are here, by text (--text de.txt|fr.txt)"
        ) from error


def _edit(base: BaseModel, text: Sequence[str], size: int | None, keep: str | Path | None, multiple: int) -> VocabularyEdit:
    """The edit that was asked for. UserError if it leaves everything as it is."""
    rows = row_count(base)
    if size is not None and size >= len(base.vocab):
        raise UserError(f"vocab_size is {size:,}, but {base.name} has {len(base.vocab):,} tokens; give a smaller number")
    needed = required(base, rows, json_or_empty(base.folder / "generation_config.json"))
    if keep is not None:
        needed |= kept_by_file(Path(keep).expanduser(), base.vocab)
    with progress.phase("counting the tokens of the text", when=len(text) > 0):
        counts = count(base.vocab, text)
    if len(text) and not counts.any():
        raise UserError("the text has no tokens")
    ids = chosen(base.vocab, counts, needed, size)
    edit = trimming(ids, len(base.vocab), multiple)
    unused = int((counts[ids] == 0).sum())
    progress.say(f"{edit.size:,} of {edit.before:,} tokens stay, {unused:,} of them without use in the text")
    added = base.vocab.tokenizer.get_added_tokens_decoder()
    if reserved := [added[i].content for i in edit.gone.tolist() if i in added]:
        progress.say(f"of added tokens, {len(reserved):,} go, which were kept free for later use, such as {reserved[0]!r}")
    if len(edit.old) >= rows:
        raise UserError(f"nothing would become smaller: {len(edit.old):,} rows instead of {rows:,}")
    return edit


def kept_by_file(file: Path, vocab: Vocabulary) -> set[int]:
    """The ids that a file of tokens names; see `trim`. UserError, with the place, for a token that does not exist."""
    try:
        content = file.read_text(encoding="utf-8")
        entries = json.loads(content) if file.suffix == ".json" else [line for line in content.split("\n") if line]
    except (OSError, ValueError) as error:
        raise UserError(f"keep {file} cannot be read: {error}") from error
    if not isinstance(entries, list):
        raise UserError(f"keep {file} holds a {type(entries).__name__}; it has to hold a list of tokens or ids")
    ids = set()
    for number, entry in enumerate(entries, 1):
        found = vocab.tokenizer.token_to_id(entry) if isinstance(entry, str) else entry
        if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < len(vocab):
            raise UserError(
                f"keep {file}: entry {number}, {entry!r}, is no token of the tokenizer; tokens are spelled as in "
                f"tokenizer.json, such as {vocab.tokenizer.id_to_token(int(np.argmax(vocab.byte_lengths)))!r}"
            )
        ids.add(found)
    return ids


def _lengths(base: BaseModel, after: Vocabulary, edit: VocabularyEdit, text: Sequence[str]) -> Lengths | None:
    if not len(text):
        return None
    with progress.phase("measuring on held-out text"):
        lengths = compare(base.vocab, after, edit, first_bytes(text, HELD_OUT))
    progress.say(f"held-out text: {lengths}")
    return lengths
