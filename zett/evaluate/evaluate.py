"""How well a base model works with tokenizers that it was not trained with."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from zett.arguments import renamed, several
from zett.errors import UserError
from zett.evaluate.results import Report
from zett.evaluate.statistics import RESAMPLES
from zett.evaluate.targets import named_targets, target_specs
from zett.evaluate.tasks import reading_task
from zett.evaluate.trial import start_trial
from zett.evaluate.windows import described, measured_windows
from zett.files.provenance import environment
from zett.lms.base import BaseModel, load_base_model
from zett.lms.layers import product_dtype
from zett.methods import Method, make_method
from zett.methods.hypernet import HypernetMethod
from zett.progress import phase
from zett.values import check_seed
from zett.vocab import Vocabulary

BASELINES = ("fvt", "mean", "random")


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
    hypernets = {"hypernet": hypernets} if isinstance(hypernets, str | Path) else dict(hypernets or {})
    check_seed(seed)
    specs = target_specs(targets)
    dtype = product_dtype(dtype).name
    chosen = _methods(hypernets, methods if isinstance(methods, Mapping) else several(methods), language)
    base = _loaded("pico" if base is None else base, dtype, chosen)
    task = reading_task(base, dtype=dtype, batch_size=batch_size)
    texts, record = _texts(windows, str(text), text_bytes, window, text_column, str(prose), specs, seed)
    quiet = None if progress is None else not progress  # tqdm's None: quiet unless in a terminal
    bar = functools.partial(tqdm, disable=quiet, leave=False)
    named = named_targets(targets, specs, bar, text=str(text), prose=str(prose), text_column=text_column)
    with bar(total=1 + len(named) * len(chosen), desc="original", unit="run") as runs:
        trial = start_trial(base, task, texts, chosen, seed)
        runs.update()
        results = [trial.of_target(name, target, runs) for name, target in named.items()]
    return Report(
        base={"name": base.name, "fingerprint": base.fingerprint}, text=record, original=trial.of_original(),
        hypernets={name: str(path) for name, path in hypernets.items()},
        targets=results,
        settings={
            "measure": task.unit, "seed": seed, "batch_size": batch_size, "dtype": dtype, "bootstrap_resamples": RESAMPLES,
            "language": language,
        },
        environment=environment(),
        baselines=tuple(name for name, method in chosen.items() if method.baseline),
    )  # fmt: skip


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
