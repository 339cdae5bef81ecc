"""How well a base model works with tokenizers that it was not trained with."""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from zett.arguments import renamed, several
from zett.errors import UserError
from zett.evaluate.lost import bytes_lost
from zett.evaluate.results import Report, TargetResult
from zett.evaluate.statistics import RESAMPLES, bootstrap_draws, compared
from zett.evaluate.targets import DEFAULT_TARGETS, load_target
from zett.evaluate.tasks import EvalTask, reading_task
from zett.evaluate.tasks.encoded import encode_items
from zett.evaluate.tasks.items import Items
from zett.evaluate.windows import described, measured_windows
from zett.files.provenance import environment
from zett.lms.base import BaseModel, load_base_model
from zett.lms.layers import product_dtype
from zett.methods import Method, make_method
from zett.methods.hypernet import HypernetMethod
from zett.progress import phase
from zett.values import check_seed
from zett.vocab import Vocabulary, surface_forms

BASELINES = ("fvt", "mean", "random")
MAX_PIECES = 64


def evaluate(
    model=None,
    tokenizer: str | Path | Vocabulary | Sequence[str | Path] | Mapping[str, Vocabulary] | None = None,
    *,
    hypernets: str | Path | Mapping[str, str | Path] | None = None,
    language: str | int | None = None,
    methods: str | Sequence[str] | Mapping[str, Method] = BASELINES,
    windows: str | Sequence[str] | None = None,
    text: str = "python",
    text_bytes: int | None = None,
    window: int = 512,
    text_column: str = "text",
    prose: str = "prose",
    batch_size: int = 32,
    dtype: str = "float32",
    seed: int = 0,
    progress: bool | None = None,
    base=None,
    targets=None,
) -> Report:
    """Bits per byte of `model` with its own tokenizer and with every target, by every method, on the same held-out bytes.

    Of a masked language model it is bits for each byte of words that are hidden; see zett/evaluate/tasks.
    model: a `BaseModel`, or what `load_base_model` takes (None: "pico"). tokenizer: one or more specs for `load_target` (None:
    `DEFAULT_TARGETS`, which "default" among others stands for, too), or vocabularies by name; base, targets: their old names.
    hypernets: folders by name, or one folder; language: of the targets, by code or number, where they know languages.
    methods: specs of `zett.methods.make_method`, such as "fvt" or "hypernet:DIR", or methods by name.
    windows: pieces of text, each scored alone; None: those of `text`, of at most `window` bytes. text: a file or folder is
    measured whole unless targets are trained on it, else its held-out split is. text_bytes: the most that is measured (None: of
    a held-out split, 131072).
    dtype: of matrix products. progress: show a bar; None: in a terminal only. Raises UserError.
    """
    base, targets = renamed("model", model, "base", base), renamed("tokenizer", tokenizer, "targets", targets)
    base = "pico" if base is None else base
    hypernets = {"hypernet": hypernets} if isinstance(hypernets, str | Path) else dict(hypernets or {})
    check_seed(seed)
    quiet = None if progress is None else not progress  # tqdm's None: quiet unless in a terminal
    bar = functools.partial(tqdm, disable=quiet, leave=False)
    dtype = product_dtype(dtype).name
    chosen = _methods(hypernets, methods if isinstance(methods, Mapping) else several(methods), language)
    base = _loaded(base, dtype, chosen)
    task = reading_task(base, dtype=dtype, batch_size=batch_size)
    if isinstance(targets, Vocabulary):
        targets = {targets.folder.name if targets.folder else "tokenizer": targets}
    specs = [] if isinstance(targets, Mapping) else _specs(targets)
    texts, record = _texts(windows, str(text), text_bytes, window, text_column, str(prose), specs, seed)
    if not isinstance(targets, Mapping):
        targets = _load_targets(specs, bar, text=str(text), prose=str(prose), text_column=text_column)
    with bar(total=1 + len(targets) * len(chosen), desc="original", unit="run") as runs:
        trial = _start(base, task, texts, chosen, seed)
        runs.update()
        results = [_target_result(trial, name, target, runs) for name, target in targets.items()]
    return Report(
        base={"name": base.name, "fingerprint": base.fingerprint},
        text=record,
        original=_original(trial),
        hypernets={name: str(path) for name, path in hypernets.items()},
        targets=results,
        settings={
            "measure": task.unit,
            "seed": seed,
            "batch_size": batch_size,
            "dtype": dtype,
            "bootstrap_resamples": RESAMPLES,
            "language": language,
        },
        environment=environment(),
        baselines=tuple(name for name, method in chosen.items() if method.baseline),
    )


def _loaded(base: BaseModel | str | Path, dtype: str, methods: Mapping[str, Method]) -> BaseModel:
    """The base model. UserError, as soon as it can be told, for a method that is for another one."""
    if isinstance(base, str | Path):
        for method in methods.values():
            method.precheck(base)
        with phase(f"reading the base model {base}"):
            base = load_base_model(str(base), dtype=dtype)
    for method in methods.values():
        method.check(base)
    return base


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


def _specs(given: str | Path | Sequence[str | Path] | None) -> list[str]:
    """Those of the targets, each once; "default" is those of `DEFAULT_TARGETS`."""
    named = ["default"] if given is None else map(str, several(given))
    return list(dict.fromkeys(spec for name in named for spec in (DEFAULT_TARGETS if name == "default" else (name,))))


def _load_targets(specs: Sequence[str], bar, **texts) -> dict[str, Vocabulary]:
    """Vocabularies by short name."""
    if not specs:
        raise UserError("there is no target tokenizer to evaluate")
    with phase("reading the tokenizers, and training those that are not in the cache"):
        return {_short_name(s, specs): load_target(s, **texts) for s in bar(specs, desc="tokenizers", unit="tokenizer")}


def _methods(hypernets: Mapping, methods, language) -> dict[str, Method]:
    """By name, hypernetworks first."""
    chosen: dict[str, Method] = {}
    for name, folder in hypernets.items():
        chosen[name] = HypernetMethod(str(folder), None if language is None else str(language))
    for name in methods:
        if name in chosen:
            raise UserError(
                f"the name {name!r} is given to a hypernetwork and to a method; call the hypernetwork something else"
            )
        chosen[name] = methods[name] if isinstance(methods, Mapping) else make_method(name)
    if not chosen:
        raise UserError("there is no method to evaluate; give --hypernet or --method")
    return chosen


@dataclasses.dataclass(frozen=True)
class _Trial:
    """What every target and every method is compared on. original: scores of the base itself. draws: of the bootstrap."""

    base: BaseModel
    task: EvalTask
    items: Items
    methods: dict[str, Method]
    original: np.ndarray
    draws: np.ndarray
    seed: int


def _start(base: BaseModel, task: EvalTask, texts: Sequence[str], methods: dict[str, Method], seed: int) -> _Trial:
    """Scores the original."""
    items = task.items(base, texts)
    with phase("compiling, and scoring the original"):
        original = task.score(base, items)
    return _Trial(base, task, items, methods, original, bootstrap_draws(len(items), seed), seed)


def _target_result(trial: _Trial, name: str, target: Vocabulary, runs) -> TargetResult:
    """All methods on one target. runs: the progress bar."""
    base, items = trial.base, trial.items
    scores, seconds = {}, {}
    for key, method in trial.methods.items():
        runs.set_description(f"{name}, {key}")
        clock = time.perf_counter()
        with phase(f"{name}, {key}: making rows and scoring them"):
            table = method(base, target, seed=trial.seed)
            seconds[key] = time.perf_counter() - clock
            scores[key] = trial.task.score(base.with_vocabulary(table, target), items)
        runs.update()
    encoded, size = encode_items(items, target), sum(len(text.encode()) for text in items.texts)
    return TargetResult(
        name=name,
        kind=target.kind,
        vocab_size=len(target),
        tokens_per_byte=encoded.num_tokens / size,
        relative_length=encoded.num_tokens / encode_items(items, base.vocab).num_tokens,
        shared=float(np.mean(surface_forms(target, base.vocab, MAX_PIECES).same >= 0)),
        bytes_lost=bytes_lost(items.texts, encoded, target),
        losses=tuple(target.losses),
        scores=compared(scores, trial.original, items, trial.draws, seconds),
    )


def _original(trial: _Trial) -> dict:
    items, vocab = trial.items, trial.base.vocab
    encoded = encode_items(items, vocab)
    return {
        "bits_per_byte": items.mean(trial.original),
        "tokens_per_byte": encoded.num_tokens / sum(len(text.encode()) for text in items.texts),
        "vocab_size": len(vocab),
        "bytes_lost": bytes_lost(items.texts, encoded, vocab),
    }


def _short_name(spec: str, specs: Sequence[str]) -> str:
    """The last part of a path, as long as no other target ends in it."""
    short = Path(spec).parent.name if Path(spec).name == "tokenizer.json" else Path(spec).name
    clash = [s for s in specs if s != spec and short in (Path(s).name, Path(s).parent.name)]
    return spec if clash or not short else short
