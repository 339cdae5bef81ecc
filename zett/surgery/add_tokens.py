"""A model with more tokens: those that a text or a list asks for, with every old id and row bit by bit as it was."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from zett import progress
from zett.cards import edit_card
from zett.data.documents import first_bytes
from zett.data.sources import is_local, open_text, weighted_sources
from zett.errors import UserError
from zett.files import folders, hub
from zett.gguf import find_gguf
from zett.lms.base import BaseModel, find_folder, load_base_model
from zett.methods import Method, spec_of
from zett.methods.per_layer import check_method, rows_per_layer
from zett.surgery.edit import VocabularyEdit, growing
from zett.surgery.grow import Growth, grown_from_list, grown_from_text
from zett.surgery.lengths import compare
from zett.surgery.report import Preview, call_of, report, sample, spelled
from zett.surgery.spec import write_tokenizer
from zett.surgery.write import row_count, write_edited
from zett.transfer import choose_method
from zett.values import check_count, check_seed
from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.bytes import token_format

HELD_OUT, READ = 1_000_000, 50_000_000  # bytes that are cut before and after; that new tokens are found in
USUAL = {"n": 2000, "skip": False, "pad_to_multiple_of": 1, "text_column": "text", "seed": 0}
FEWEST = 2  # tokens that a new one saves in the text, at least


def add_tokens(
    model: str | Path, output: str | Path, *, tokens: str | Path | Sequence[str] | None = None, from_text: str | None = None,
    n: int = 2000, method: str | Method | None = None, hypernet: str | Path | None = None, language: str | int | None = None,
    skip: bool = False, pad_to_multiple_of: int = 1, text_column: str = "text", revision: str | None = None,
    overwrite: bool = False, push: str | None = None, seed: int = 0, made_with: Callable[[dict], str] | None = None,
) -> Path:  # fmt: skip
    """Write to the folder `output` the `model` with new tokens; returns `output`.

    tokens: texts that become tokens, or a file of them, one a line, where spaces at the beginning count; skip: leave out those
    that the tokenizer cannot make. Or from_text: a text source, of which the `n` most useful tokens are made by going on with
    the training of the tokenizer; its held-out part is measured. method, hypernet, language, seed: of the new tokens' rows, as
    for `zett.transfer`; None: the hypernetwork in the package that is for the model, or FVT if there is none. Rows beyond the
    tokenizer are used first. pad_to_multiple_of: of which the number of rows is. made_with: of the settings the text that the
    card shows as what was run. Bad input is a UserError, with nothing written.
    """
    check_seed(seed)
    output = folders.output_path(output)
    _check(tokens, from_text, n, pad_to_multiple_of)
    chosen = choose_method(method or ("hypernet" if hypernet else "fvt"), hypernet, language)
    chosen.precheck(model)
    hub.check_push(push)
    file, given = _asked(tokens)
    sources = [one for _, one in weighted_sources(from_text) if is_local(one)] if from_text else []
    read = [find_gguf(model) or find_folder(model, revision), file, hypernet, *chosen.inputs(), *sources]
    folders.check_output(output, overwrite=overwrite, inputs=read)
    wanted = given if file is None else _listed(file)
    base, parts = _read(model, from_text, text_column, revision)
    chosen = chosen.settled(base) if method or hypernet else _usual(model, base)
    check_method(chosen, base)
    settings = {
        "model": str(model), "output": str(output), "tokens": str(file) if file else given or None,
        "from_text": from_text, "n": n, "method": spec_of(chosen), "skip": skip,
        "pad_to_multiple_of": pad_to_multiple_of, "text_column": text_column, "revision": revision, "seed": seed,
    }  # fmt: skip
    made = (made_with or call_of("zett.add_tokens", USUAL))(settings)
    growth = _growth(base.vocab, wanted, parts[0], n, skip)
    _write(output, base, growth, chosen, parts[1], settings, made)
    if push is not None:
        hub.push(output, push, "Tokens added by zett")
    return output


def preview_add_tokens(
    model: str | Path, *, tokens: str | Path | Sequence[str] | None = None, from_text: str | None = None, n: int = 2000,
    skip: bool = False, pad_to_multiple_of: int = 1, text_column: str = "text", revision: str | None = None,
) -> Preview:  # fmt: skip
    """What `add_tokens` would do with the same arguments: tokenizer and settings are made and tried, and nothing is kept."""
    _check(tokens, from_text, n, pad_to_multiple_of)
    file, given = _asked(tokens)
    wanted = given if file is None else _listed(file)
    base, parts = _read(model, from_text, text_column, revision)
    edit = _edit(base, _growth(base.vocab, wanted, parts[0], n, skip), pad_to_multiple_of)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        left_out = write_edited(folder, base, edit, sample(base.vocab, parts[1]), weights=False)
        target = load_tokenizer(folder, rows=len(edit.old))
        check_used(target, edit)
        facts = _facts(base, target, folder, edit, parts[1])
    return Preview(facts, spelled(target, edit.new), "come", tuple(left_out))


def _check(tokens, from_text: str | None, n: int, pad_to_multiple_of: int) -> None:
    """UserError for arguments that make no sense."""
    if (tokens is None) == (from_text is None):
        raise UserError("give either tokens (--tokens FILE) or a text to find them in (--from-text SPEC)")
    check_count(n, "n")
    check_count(pad_to_multiple_of, "pad_to_multiple_of")


def _asked(tokens: str | Path | Sequence[str] | None) -> tuple[Path | None, list[str]]:
    """The file of tokens, or the tokens."""
    if isinstance(tokens, str | Path):
        return Path(tokens).expanduser(), []
    return None, list(tokens or ())


def _read(
    model: str | Path, source: str | None, text_column: str, revision: str | None
) -> tuple[BaseModel, list[Sequence[str]]]:
    """The model without its body, and the texts: what new tokens are found in, and what is held out."""
    parts: list[Sequence[str]] = [
        open_text(source, split=split, text_column=text_column) if source else [] for split in ("train", "valid")
    ]
    with progress.phase(f"reading the model {model}"):
        return load_base_model(model, revision=revision, body=False), parts


def _edit(base: BaseModel, growth: Growth, multiple: int) -> VocabularyEdit:
    return growing(
        growth.tokens, len(base.vocab), row_count(base), multiple, merges=growth.merges, scores=growth.scores
    )  # fmt: skip


def _facts(base: BaseModel, target: Vocabulary, folder: Path, edit: VocabularyEdit, text: Sequence[str]) -> dict:
    """Numbers before and after; of a held-out text, too, if there is one."""
    lengths = compare(base.vocab, target, edit, first_bytes(text, HELD_OUT)) if len(text) else None
    facts = report(base, folder, edit, lengths)
    if lengths is not None:
        progress.say(f"held-out text: {lengths}")
        facts["new tokens that held-out text uses"] = [None, int((lengths.used[edit.before :] > 0).sum())]
    return facts


def _usual(model: str | Path, base: BaseModel) -> Method:
    """The shipped hypernetwork for this model, or FVT."""
    try:
        chosen = choose_method("hypernet", None, None)
        chosen.precheck(model)
        chosen = chosen.settled(base)
        check_method(chosen, base)
    except UserError:
        progress.say("no hypernetwork in the package is for this model: rows are the means of their pieces' (fvt)")
        return choose_method("fvt", None, None)
    return chosen


def _listed(file: Path) -> list[str]:
    try:
        lines = [line for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"tokens {file} cannot be read: {error}") from error
    if not lines:
        raise UserError(f"tokens {file} is empty; it has to hold texts, one a line")
    return lines


def _growth(vocab: Vocabulary, wanted: list[str], text: Sequence[str], n: int, skip: bool) -> Growth:
    if not len(text):
        if not wanted:
            raise UserError("tokens is an empty list; give the texts that are to become tokens")
        growth = grown_from_list(vocab, wanted, skip=skip)
    else:
        with progress.phase("going on with the training of the tokenizer"):
            growth = grown_from_text(vocab, first_bytes(text, READ), n, FEWEST)
    steps = f", {len(growth.steps):,} of them steps of merges to others" if growth.steps else ""
    fewer = f"; the text has no more that save {FEWEST} tokens" if len(text) and len(growth.tokens) < n else ""
    progress.say(f"{len(growth.tokens):,} new tokens{steps}{fewer}")
    return growth


def _write(
    output: Path, base: BaseModel, growth: Growth, method: Method, text: Sequence[str], settings: dict, made: str
) -> None:
    edit = _edit(base, growth, settings["pad_to_multiple_of"])
    with folders.new_folder(output) as folder, tempfile.TemporaryDirectory() as scratch:
        write_tokenizer(Path(scratch), base.vocab, edit)
        target = load_tokenizer(scratch, rows=len(edit.old))
        check_used(target, edit)
        with progress.phase("making the rows of the new tokens"):
            table = method(base, target, seed=settings["seed"])
            per_layer = rows_per_layer(method, base, target, seed=settings["seed"])
        with progress.phase(f"writing {output}"):
            left_out = write_edited(folder, base, edit, sample(base.vocab, text), table, per_layer)
        facts = _facts(base, target, folder, edit, text)
        what = (
            f"`{settings['model']}` with {len(edit.new):,} new tokens, whose rows were made by `{settings['method']}`; nothing "
            "was trained after that. All other ids, rows and weights are the base model's, bit for bit."
        )
        card = edit_card(output.name, settings["model"], f"{what}\n\n{_shown(target, edit)}", facts, left_out, made)
        (folder / "README.md").write_text(card, encoding="utf-8")
        folders.mark(folder, "add-tokens", settings | {"report": facts})


def _shown(target: Vocabulary, edit: VocabularyEdit, most: int = 50) -> str:
    """The first new tokens, for the card."""
    texts = list(map(repr, spelled(target, edit.new)))
    more = f" and {len(texts) - most:,} more" if len(texts) > most else ""
    return f"New tokens, from id {edit.before} on: {', '.join(f'`{text}`' for text in texts[:most])}{more}."


def check_used(target: Vocabulary, edit: VocabularyEdit) -> None:
    """UserError unless the tokenizer's model makes each new token of the text that it stands for."""
    model, form = target.tokenizer.model, target.format or token_format(target.tokenizer)
    words = {i: text for i, text in edit.new.items() if not (form.continuing and text.startswith(form.continuing))}
    if form.word_end:
        words = {i: text.removesuffix(form.word_end) for i, text in words.items() if text.endswith(form.word_end)}
    wrong = [text for i, text in words.items() if [token.id for token in model.tokenize(text)] != [i]]
    if wrong:
        raise UserError(f"{len(wrong)} new tokens would never be used, such as {wrong[0]!r}")
    without = [text for i, text in edit.new.items() if not target.tokens[i]]
    if without:
        raise UserError(f"{len(without)} new tokens would stand for no text, such as {without[0]!r}")
    assert np.array_equal(edit.ids, np.arange(edit.before))  # old ids stay
