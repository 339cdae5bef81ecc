"""How well a base model works with tokenizers that it was not trained with."""

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from zett.arguments import named_folders, renamed, several
from zett.belongs import AnotherModel
from zett.errors import UserError
from zett.evaluate.prompts import read_prompts
from zett.evaluate.results import Report, TargetResult
from zett.evaluate.statistics import RESAMPLES
from zett.evaluate.targets import adapted_targets, named_targets, target_specs
from zett.evaluate.tasks import EvalTask, check_task, make_task, reading_task
from zett.evaluate.trial import Trial, start_trial, token_task
from zett.evaluate.windows import described, measured_windows
from zett.files.provenance import environment
from zett.lms.base import BaseModel, load_base_model
from zett.lms.layers import product_dtype
from zett.methods import Method, make_method
from zett.methods.hypernet import HypernetMethod
from zett.progress import phase, say
from zett.values import check_seed
from zett.vocab import Vocabulary
from zett.vocab.adapt import check_mode
from zett.vocab.prompts import chat_template

BASELINES = ("fvt", "mean", "random")


def evaluate(
    model=None, tokenizer: str | Path | Vocabulary | Sequence[str | Path] | Mapping[str, Vocabulary] | None = None, *,
    hypernets: str | Path | Mapping[str, str | Path] | None = None, language: str | int | None = None,
    methods: str | Sequence[str] | Mapping[str, Method] | None = None, windows: str | Sequence[str] | None = None,
    text: str = "python", text_bytes: int | None = None, window: int = 512, text_column: str = "text", prose: str = "prose",
    batch_size: int = 32, dtype: str = "float32", seed: int = 0, progress: bool | None = None, base=None,
    variant: str | None = None, targets=None, task: str | None = None, prompts: str | Path | Sequence[str] | None = None,
    special: str | None = None, classes: bool = False,
    compare: str | Path | Sequence[str | Path] | Mapping[str, str | Path] | None = None,
) -> Report:  # fmt: skip
    """Bits per byte of `model` with its own tokenizer and with every target, by every method, on the same held-out bytes.

    Of a masked language model it is bits for each byte of words that are hidden; see zett/evaluate/tasks.
    model: a `BaseModel`, or what `load_base_model` takes (None: "pico"). tokenizer: one or more specs for `load_target` (None:
    `DEFAULT_TARGETS`, which "default" among others stands for, too), or vocabularies by name; targets: its old name.
    hypernets: folders by name, or one folder; None: the one in the package that is for the model, if there is one; {}: none.
    base, variant: where `model` is a variant of the hypernetworks' base model, that base model, and one of
    zett.choices.VARIANTS (base without a model: its old name). language: of the targets, by code or number, where hypernetworks
    know languages.
    methods: specs of `zett.methods.make_method`, such as "fvt" or "hypernet:DIR", or methods by name (None: BASELINES).
    compare: folders of transferred, refined or trimmed models, measured as they are, with the tokenizers that they have; then
    there are no others, and no methods but those that are asked for, for the same tokenizers.
    windows: pieces of text, each scored alone; None: those of `text`, of at most `window` bytes. text: a file or folder is
    measured whole unless targets are trained on it, else its held-out split is. text_bytes: the most that is measured (None: of
    a held-out split, 131072). dtype: of matrix products. progress: show a bar; None: in a terminal only. task: one of TASKS
    (None: how well text is read). prompts: of the task "agreement", see `read_prompts`. special: one of zett.choices.MODES
    (None: keep-target, but for answers in a chat template). classes: find out at which tokens bits are lost (causal models
    that read). Raises UserError.
    """
    if model is None:
        model, base = ("pico" if base is None else base), None
    check_seed(seed)
    _check_task(task, prompts, special)
    targets = renamed("tokenizer", tokenizer, "targets", targets)
    dtype = product_dtype(dtype).name
    others = {} if compare is None else _others(compare, targets, special)
    if others:
        targets, hypernets, methods = {name: other.vocab for name, other in others.items()}, hypernets or {}, methods or ()
    specs = target_specs(targets)
    settings = HypernetMethod.shipped(language, base, variant)
    source, chosen, paths = opened(
        model, dtype, hypernets, BASELINES if methods is None else methods, settings, none=bool(others)
    )
    _check_others(others, source)
    measure = _measure(source, task, classes, dtype=dtype, batch_size=batch_size)
    if task == "agreement":
        texts, record = read_prompts(prompts, text_column)
    else:
        texts, record = _texts(windows, str(text), text_bytes, window, text_column, str(prose), specs, seed)
    bar = functools.partial(tqdm, disable=None if progress is None else not progress, leave=False)  # None: by terminal
    named = named_targets(targets, specs, bar, text=str(text), prose=str(prose), text_column=text_column)
    special, total = special or _special(source, task), 1 + len(named) * len(chosen) + len(others)
    with tempfile.TemporaryDirectory() as scratch, bar(total=total, desc="original", unit="run") as runs:
        named = named if others else adapted_targets(named, source.vocab, special, Path(scratch))
        trial = start_trial(source, measure, texts, chosen, seed, classes=classes)
        runs.update()
        results = [trial.of_target(name, target, runs, _whole(others.get(name), dtype)) for name, target in named.items()]
    used = {"seed": seed, "batch_size": batch_size, "dtype": dtype, "language": language, "special": special}
    return _report(trial, record, paths, results, used)


def _report(trial: Trial, text: dict, hypernets: dict[str, str], results: list[TargetResult], settings: dict) -> Report:
    source, task, methods = trial.base, trial.task, trial.methods
    measure = {"measure": task.unit, "lower_is_better": task.lower_is_better, "bootstrap_resamples": RESAMPLES}
    about = {name: words for name, method in methods.items() if (words := method.about(source))}
    return Report(
        base={"name": source.name, "fingerprint": source.fingerprint}, text=text, original=trial.of_original(),
        hypernets=hypernets, targets=results, environment=environment(), settings={**measure, **settings, "about": about},
        baselines=tuple(name for name, method in methods.items() if method.baseline),
    )  # fmt: skip


def _check_task(name: str | None, prompts, special: str | None) -> None:
    """UserError if these arguments make no sense, before anything is read."""
    if name is not None:
        check_task(name)
    if name == "drafts":
        raise UserError("the task 'drafts' takes a second model; it is zett.evaluate.drafts.evaluate_drafts that measures it")
    if name == "dynamic":
        raise UserError("the task 'dynamic' takes no tokenizer; it is zett.evaluate.dynamic.evaluate_dynamic that measures it")
    if special is not None:
        check_mode(special)
    if prompts is not None and name != "agreement":
        raise UserError("there are prompts, but only the task 'agreement' has them answered; give that task, or leave them out")


def _measure(source: BaseModel, task: str | None, classes: bool, **made) -> EvalTask:
    """The task. UserError if it is not for this model, or has no classes of tokens, before tokenizers are trained."""
    measure = reading_task(source, **made) if task is None else make_task(task, **made)
    measure.items(source, ())
    if classes:
        token_task(measure)
    return measure


def _special(source: BaseModel, task: str | None) -> str:
    """What becomes of special tokens, if nothing is said: a chat template works with the model's own."""
    chat = task == "agreement" and chat_template(source.vocab.folder) is not None
    return "map-to-source" if chat else "keep-target"


def opened(
    model: BaseModel | str | Path,
    dtype: str,
    hypernets: str | Path | Mapping | None,
    methods,
    settings: HypernetMethod,
    *,
    none: bool = False,
) -> tuple[BaseModel, dict[str, Method], dict[str, str]]:
    """The model, the methods that are for it, and where the hypernetworks among them are. UserError as soon as it can be told.

    settings: of all hypernetworks. none: there may be no method.
    """
    hypernets = {"hypernet": hypernets} if isinstance(hypernets, str | Path) else hypernets
    chosen = _methods(hypernets or {}, methods if isinstance(methods, Mapping) else several(methods), settings)
    shipped = settings if hypernets is None and "hypernet" not in chosen else None
    if settings.base is not None and not shipped and not hypernets:
        raise UserError(f"base is {settings.base!r}, but there is no hypernetwork that could make use of it")
    if isinstance(model, BaseModel):
        source, chosen = model, _settled(model, chosen, shipped)
    else:
        for method in chosen.values():
            method.precheck(model)
        with phase(f"reading the base model {model}"):
            light = load_base_model(model, body=False)
            chosen = _settled(light, chosen, shipped)
            source = load_base_model(model, dtype=dtype, vocab=light.vocab)
    if not chosen and not none:
        raise UserError("there is no method to evaluate; give --hypernet or --method")
    for method in chosen.values():
        method.check(source)
        if words := method.about(source):
            say(words)
    names = {"hypernet"} if shipped else set(hypernets or ())
    return source, chosen, {name: str(m.path) for name, m in chosen.items() if name in names and isinstance(m, HypernetMethod)}


def _settled(source: BaseModel, methods: dict[str, Method], shipped: HypernetMethod | None) -> dict[str, Method]:
    """The methods with what follows from the model filled in, and first of all the hypernetwork in the package that is for it.

    shipped: what takes that; None: it is not asked for. Where there is none, it is left out.
    """
    settled = {name: method.settled(source) for name, method in methods.items()}
    if shipped is None:
        return settled
    try:
        found = shipped.settled(source)
        found.check(source)
    except AnotherModel:
        if shipped.base is not None:
            raise
        return settled
    return {"hypernet": found, **settled}


def _others(folders, targets, special: str | None) -> dict[str, BaseModel]:
    """The models that are measured as they are, without their bodies, by name. UserError if other arguments contradict that."""
    for what, given in {"tokenizer": targets, "special": special}.items():
        if given is not None:
            raise UserError(f"{what} is {given!r}, but models to compare have tokenizers of their own; leave it out")
    if not (named := named_folders(folders)):
        raise UserError("there is no model to compare; give the folder of one or more")
    return {name: load_base_model(folder, body=False) for name, folder in named.items()}


def _whole(other: BaseModel | None, dtype: str) -> Callable[[], BaseModel] | None:
    """What reads a model of `_others` with its body."""
    return None if other is None else functools.partial(load_base_model, other.folder, dtype=dtype, vocab=other.vocab)


def _check_others(others: Mapping[str, BaseModel], source: BaseModel) -> None:
    for other in others.values():
        if other.causal != source.causal:
            kinds = [("an encoder", "a causal model")[m.causal] for m in (other, source)]
            raise UserError(f"{other.name} is {kinds[0]} and {source.name} {kinds[1]}; they cannot be compared")


def _texts(
    windows, text: str, text_bytes, window: int, text_column: str, prose: str, specs, seed: int
) -> tuple[list[str], dict]:
    """The pieces of text that are measured, and the record of what they are."""
    if windows is None:
        return measured_windows(text, text_bytes, window, text_column=text_column, prose=prose, specs=specs, seed=seed)
    windows = several(windows)
    if not any(windows):
        raise UserError("there is no text to evaluate on")
    return windows, {"source": None, "split": None, **described(windows)}


def _methods(hypernets: Mapping, methods, settings: HypernetMethod) -> dict[str, Method]:
    """By name, hypernetworks first. settings: of all hypernetworks."""
    chosen: dict[str, Method] = {name: dataclasses.replace(settings, path=str(path)) for name, path in hypernets.items()}
    for name in methods:
        if name in chosen:
            raise UserError(
                f"the name {name!r} is given to a hypernetwork and to a method; call the hypernetwork something else"
            )
        chosen[name] = methods[name] if isinstance(methods, Mapping) else make_method(name)
    return chosen
