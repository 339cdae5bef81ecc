"""Base model + target tokenizer + method -> a model folder that any Hugging Face client loads."""

import dataclasses
import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from zett import progress
from zett.arguments import several
from zett.belongs import AnotherModel
from zett.cards import python_call, special_section, transfer_card, warnings_section
from zett.errors import UserError
from zett.evaluate.tasks import reading_task
from zett.evaluate.windows import files_in_windows, files_words
from zett.files import folders, hub
from zett.gguf import find_gguf
from zett.inspect.warnings import HEADINGS, lines, warnings_of
from zett.lms.base import BaseModel, find_folder, load_base_model
from zett.lms.folder import write_model
from zett.lms.layers import product_dtype
from zett.lms.like import Like, read_like
from zett.lms.reopen import check_written, try_tokenizer
from zett.methods import Method, make_method, spec_of
from zett.methods.hypernet import HypernetMethod
from zett.methods.per_layer import check_method, rows_per_layer
from zett.values import check_seed
from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.adapt import adapt_special, check_mode
from zett.vocab.mapping import Mapped, with_map
from zett.vocab.pairing import Pairing, pairing

INSTEAD = "fvt"  # where no hypernetwork fits: of the methods that need nothing the one to take (docs/methods.md)


def transfer(
    model: str | Path, tokenizer: str | Path, output: str | Path, *, method: str | Method | None = None,
    hypernet: str | Path | None = None, language: str | int | None = None, special: str = "keep-target",
    revision: str | None = None, overwrite: bool = False, seed: int = 0, text: str | Path | Sequence[str | Path] = (),
    push: str | None = None, measure: str | Path | Sequence[str | Path] = (), made_with: Callable[[dict], str] | None = None,
    base: str | Path | None = None, variant: str | None = None, fit_scale: str | Path | None = None,
    like: str | Path | None = None, map: Mapped = (),
) -> Path:  # fmt: skip
    """Write to the folder `output` the base `model` with the `tokenizer` in place of its own; returns `output`.

    model: "pico", a folder or a Hub name. tokenizer: a folder with tokenizer.json, that file, or a Hub name. method: a method,
    or what `zett.methods.make_method` takes, such as "fvt" or "hypernet:DIR"; None: "hypernet", or INSTEAD, with a warning, if
    none is given and the package has none for the model. hypernet, language: the settings of the method "hypernet": its folder
    or Hub name (None: the one in the package that is for the model), and the language of the tokenizer, by code or number, for
    hypernetworks that know languages. base, variant: where `model` is a variant of the hypernetwork's base model, that base
    model, and one of zett.choices.VARIANTS. fit_scale: a file or folder of text, on which it is chosen how far the
    hypernetwork's rows go from FVT's. special: one of zett.choices.MODES. revision: of `model`, on the Hub.
    like: the model for which the result drafts in speculative decoding: its folder, which needs no weights, or a Hub name;
    vocab_size, ids in the configs and the chat template become that model's. map: texts of the base model by tokens of the
    tokenizer that get their rows, or "TOKEN=TEXT" each. text: files and folders, on which bits per byte before and after are
    measured for the card (measure: its old name). push: the name under which the result goes to the Hub, too. made_with: of the
    settings the text that the card shows as what was run; None: the call of this function. All but rows (and a body that the
    method changes) is copied byte for byte, and so are the tokenizer's files that `special` leaves alone. Raises UserError.
    """
    check_seed(seed)
    output = folders.output_path(output)
    chosen, instead = _first_choice(model, method, hypernet, language, base, variant, fit_scale)
    check_mode(special)
    # Before anything slow: a run of minutes that then may not write is a bad joke.
    windows = files_in_windows(text) if (text := [*several(text), *several(measure)]) else []
    hub.check_push(push)
    inputs = [find_gguf(model) or find_folder(model, revision), tokenizer, hypernet, base, like, *chosen.inputs()]
    folders.check_output(output, overwrite=overwrite, inputs=inputs)
    big = None if like is None else read_like(like)
    source, chosen = _read_model(model, revision, chosen, instead, body=bool(windows))
    given, drafts = _read_tokenizer(tokenizer, source, map, big, special)
    settings = {
        "model": str(model), "revision": revision, "tokenizer": str(tokenizer), **_recorded(method, chosen, source),
        "special": special, "like": None if like is None else str(like), "map": _texts_by_token(given), "seed": seed,
        "text": [str(file) for file in text], "output": str(output), **drafts,
    }  # fmt: skip
    with folders.new_folder(output) as folder, tempfile.TemporaryDirectory() as scratch:
        target = adapt_special(given, source.vocab, special, Path(scratch))
        file = Path(tokenizer).expanduser() if target is given and _is_json(tokenizer) else None
        try_tokenizer(Path(scratch) / "tried", source, target, file)  # before the rows are made, which may take long
        with progress.phase("making the rows"):
            table, adapted = chosen(source, target, seed=seed), chosen.adapted(source)
            per_layer = rows_per_layer(chosen, source, target, seed=seed)
            settings |= chosen.record(target)
        with progress.phase(f"writing {output}"):
            write_model(folder, source, target, table, adapted.params, per_layer=per_layer, tokenizer_file=file, like=big)
            check_written(folder, source.names, target, ported=source.config is not None, rows=big.rows if big else None)
        result = _measured(source, adapted, folder, windows, text) if windows else None
        made = (made_with or python_call)(settings)
        warnings, advice = _write_card(folder, output.name, source, given, target, settings, made, result)
        folders.mark(folder, "transfer", settings)
    _warn(warnings, output, None if special == advice.mode else advice, big)
    if push is not None:
        hub.push(output, push, "Tokenizer transferred by zett")
    return output


def _read_tokenizer(
    tokenizer: str | Path, source: BaseModel, map: Mapped, big: Like | None, special: str
) -> tuple[Vocabulary, dict[str, str]]:
    """The tokenizer with what is mapped; and for the record, what was checked of it for `big`, the model that is drafted for.
    UserError.
    """
    with progress.phase(f"reading the tokenizer {tokenizer}"):
        given = with_map(load_tokenizer(tokenizer, rows=None if big is None else big.rows), source.vocab, map)
    if big is None:
        return given, {}
    if _is_json(tokenizer):  # which has no roles of its own
        given = dataclasses.replace(given, roles=big.vocab.roles, ends=big.vocab.ends)
    drafts = f"{big.name}: {big.check(source, given, special)}"
    progress.say(f"drafts for {drafts}")
    return given, {"drafts": drafts}


def _texts_by_token(target: Vocabulary) -> dict[str, str]:
    """What is mapped, as a card and a record show it."""
    return {target.tokenizer.id_to_token(i): text for i, text in target.mapped.items()}


def _first_choice(model: str | Path, given: str | Method | None, *settings) -> tuple[Method, Method | None]:
    """The method, and the one that is taken instead if the package has no hypernetwork for the model (None: that is an error).

    If small files show that already, it is the first one, too. settings: see `choose_method`.
    """
    method = choose_method("hypernet" if given is None else given, *settings)
    instead = make_method(INSTEAD) if given is None and method == HypernetMethod() else None
    try:
        method.precheck(model)
    except AnotherModel as error:
        return _replaced(error, model, instead), instead
    return method, instead


def _replaced(error: AnotherModel, model: str | Path, instead: Method | None) -> Method:
    """The method `instead` of a hypernetwork that there is not, which is warned of. Raises the error if there is none."""
    if instead is None:
        raise error
    logging.getLogger("zett").warning(
        "zett: warning: no hypernetwork is given, and the package has none for %s: %s; rows are made by %s, by measurement the "
        "one to take of the methods that need nothing (docs/methods.md)",
        model,
        error.why,
        spec_of(instead),
    )
    return instead


def _read_model(
    model: str | Path, revision: str | None, method: Method, instead: Method | None, *, body: bool
) -> tuple[BaseModel, Method]:
    """The model, and the method settled for it. UserError if it is not for this model: before a body is read, if possible.

    instead: the method if the package has no hypernetwork for the model. body: whether it is read even if the method does not
    need it.
    """
    dtype = product_dtype("auto").name
    with progress.phase(f"reading the base model {model}"):
        source = load_base_model(model, revision=revision, dtype=dtype, body=False)
        try:
            method = method.settled(source)
            if instead is not None:
                check_method(method, source)
        except AnotherModel as error:
            method = _replaced(error, model, instead)
        if body or method.reads_body:
            source = load_base_model(model, revision=revision, dtype=dtype, vocab=source.vocab)
    check_method(method, source)
    about = method.about(source)
    if about is not None:
        progress.say(about)
    return source, method


def _recorded(given: str | Method | None, method: Method, source: BaseModel) -> dict:
    """The settings of a transfer that say what the method is; a hypernetwork in one way, however it was given."""
    about = {} if (words := method.about(source)) is None else {"about": words}
    if isinstance(method, HypernetMethod):
        way = None if method.base is None else method.way
        settings = {"language": method.language, "base": method.base, "variant": way, "fit_scale": method.fit_scale}
        name = f"hypernet:shared={method.shared:g}" if method.shared else "hypernet"
        return {"method": name, "hypernet": method.path, **settings, **about}
    return {"method": given if isinstance(given, str) else spec_of(method), "hypernet": None, "language": None, **about}


def _write_card(
    folder: Path, title: str, base: BaseModel, given: Vocabulary, target: Vocabulary, settings: dict, made_with: str,
    result: str | None,
) -> tuple[list[dict], Pairing]:  # fmt: skip
    """README.md; returns the warnings in it, and the pairing of the tokenizer as it was given, which advises a mode."""
    pairs, advice = pairing(target, base.vocab, len(given)), pairing(given, base.vocab)
    warnings = warnings_of(base.vocab, target, pairs)
    card = transfer_card(title, settings, f"{target.kind}, {len(target)} ids", made_with, result)
    card += special_section(pairs, settings["special"], advice if settings["like"] is None else None)
    card += warnings_section(warnings)
    (folder / "README.md").write_text(card, encoding="utf-8")
    return warnings, advice


def _is_json(tokenizer: str | Path) -> bool:
    """Whether it is a tokenizer.json alone."""
    return Path(tokenizer).expanduser().is_file() and find_gguf(tokenizer) is None


def choose_method(
    method: str | Method, hypernet: str | Path | None, language: str | int | None, base: str | Path | None = None,
    variant: str | None = None, fit_scale: str | Path | None = None,
) -> Method:  # fmt: skip
    """The method, with its settings. UserError where one of them is given to a method that has no such setting."""
    given = {"hypernet": hypernet, "language": language, "base": base, "variant": variant, "fit_scale": fit_scale}
    extra = {name: str(value) for name, value in given.items() if value is not None}
    if isinstance(method, str) and method.partition(":")[0] == "hypernet":
        return make_method(method, **{"path" if name == "hypernet" else name: value for name, value in extra.items()})
    for name, value in extra.items():
        raise UserError(f"{name} is {value!r}, but the method {method!r} makes no use of it; leave one of the two out")
    return make_method(method) if isinstance(method, str) else method


def _measured(base: BaseModel, adapted: BaseModel, folder: Path, windows: list[str], files: Sequence[str | Path]) -> str:
    """One sentence: (masked) bits per byte of the base model and of the one in `folder`, on what.

    adapted: the base model with the body of the one in `folder`.
    """
    with progress.phase(f"measuring on {len(windows)} windows of text, before and after"):
        new = load_base_model(folder, body=False)
        task = reading_task(base, dtype=product_dtype("auto"))
        items = task.items(base, windows)
        models = (base, dataclasses.replace(base.with_vocabulary(new.table, new.vocab), params=adapted.params))
        before, after = (items.mean(task.score(model, items)) for model in models)
    size, ratio = sum(len(w.encode()) for w in windows), f"{after / before:.3f} times"
    result = f"{after:.4f} {task.unit}, {before:.4f} before ({ratio}), on all {size:,} bytes of {files_words(files)}"
    progress.say(f"measured: {result}")
    return result


def _warn(warnings: Sequence[dict], output: Path, advice: Pairing | None, big: Like | None) -> None:
    """Say what is worth it; all of it is in the card.

    advice: of a mode that would be better than the one that was used. big: the model that is drafted for, if any.
    """
    said = [warning for warning in warnings if warning["severity"] != "low"]
    for warning, line in zip(said, lines(said)):
        logging.getLogger("zett").warning("zett: warning: %s %s", HEADINGS[warning["severity"]].lower(), line)
    if len(said) < len(warnings):
        logging.getLogger("zett").warning("zett: minor warnings: %d, in %s", len(warnings) - len(said), output / "README.md")
    if big is not None:
        if any("--special" in warning["do"] for warning in warnings):
            progress.say(
                "a draft's tokenizer has to stay as it is (no --special): --map TOKEN=TEXT gives special tokens their rows"
            )
    elif advice is not None:
        logging.getLogger("zett").warning("zett: --special %s is recommended, because %s", advice.mode, advice.why)
