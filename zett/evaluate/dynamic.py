"""How much shorter texts become by merging in a batch, and what the model loses, with rows of several methods."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from zett.arguments import several
from zett.dynamic.reading import rows_by
from zett.errors import UserError
from zett.evaluate.drafts import save
from zett.evaluate.evaluate import opened
from zett.evaluate.statistics import bootstrap_draws
from zett.evaluate.tasks.dynamic import Dynamic
from zett.evaluate.windows import measured_windows, text_words
from zett.files.provenance import environment
from zett.lms.base import BaseModel
from zett.lms.layers import product_dtype
from zett.methods import Method
from zett.methods.hypernet import HypernetMethod
from zett.progress import phase
from zett.values import check_seed

__all__ = ["MERGES", "DynamicReport", "MergedScore", "evaluate_dynamic", "save", "table"]
METHODS = ("fvt",)
MERGES = (25, 50, 100, 200, 400)


@dataclasses.dataclass(frozen=True)
class MergedScore:
    """With `merges` in each batch of texts.

    tokens, left: tokens that are read without and with merges, and new: those that were made, in all batches. By method:
    bits_per_byte of what is predicted; ratio over that without merges, with its standard error by a bootstrap over the texts;
    seconds, with making the rows and compiling.
    """

    merges: int
    tokens: int
    left: int
    new: int
    bits_per_byte: dict[str, float]
    ratio: dict[str, float]
    ratio_error: dict[str, float]
    seconds: dict[str, float]

    @property
    def reduction(self) -> float:
        return 1 - self.left / self.tokens


@dataclasses.dataclass(frozen=True)
class DynamicReport:
    """What `evaluate_dynamic` measured. original: bits per byte without merges, and the bytes and texts that this is of."""

    base: dict
    text: dict
    original: dict
    targets: list[MergedScore]
    settings: dict
    environment: dict


def evaluate_dynamic(
    model: str | Path | BaseModel, *, merges: int | Sequence[int] = MERGES, across: bool = False,
    methods: str | Sequence[str] | Mapping[str, Method] | None = None,
    hypernets: str | Path | Mapping[str, str | Path] | None = None, language: str | int | None = None,
    text: str = "python", text_bytes: int | None = None, window: int = 512, text_column: str = "text", batch_size: int = 32,
    dtype: str = "float32", seed: int = 0,
) -> DynamicReport:  # fmt: skip
    """How much shorter texts become in merged tokens, and how much worse `model` then predicts what follows.

    Of each window of text the first three quarters of its tokens are read, after so many `merges` in each batch of `batch_size`
    texts, and the rest is predicted; an encoder reads whole windows, and predicts the words that are hidden in them. across:
    neighbouring words are merged, too. The new tokens' rows are made by each of the `methods` (None: fvt) and `hypernets`;
    these, language, text, text_bytes and window are as in `evaluate`. Raises UserError.
    """
    check_seed(seed)
    numbers = [merges] if isinstance(merges, int) else list(merges)
    for number in numbers:
        if type(number) is not int or number < 1:
            raise UserError(f"merges is {number!r}; it has to be a whole number, at least 1")
    dtype = product_dtype(dtype).name
    windows, record = measured_windows(text, text_bytes, window, text_column=text_column, prose="prose", specs=(), seed=seed)
    methods = METHODS if methods is None else methods if isinstance(methods, Mapping) else several(methods)
    source, chosen, _ = opened(model, dtype, hypernets, methods, HypernetMethod.shipped(language, None, None))
    task = Dynamic(dtype=dtype, batch_size=batch_size, across=across)
    rows = {name: rows_by(method, source) for name, method in chosen.items()}
    items = task.items(source, windows)
    with phase(f"reading {len(items)} texts as they are"):
        original = task.score(source, items)
    draws = bootstrap_draws(len(items), seed)
    scores = [_score(task, source, items, rows, number, original, draws) for number in numbers]
    size = int(items.weights.sum())
    return DynamicReport(
        base={"name": source.name, "fingerprint": source.fingerprint}, text=record,
        original={"bits_per_byte": items.mean(original), "bytes": size, "texts": len(items)}, targets=scores,
        settings={"measure": task.unit, "across": across, "batch_size": batch_size, "dtype": dtype, "seed": seed},
        environment=environment(),
    )  # fmt: skip


def _score(task: Dynamic, source: BaseModel, items, rows: Mapping, merges: int, original, draws) -> MergedScore:
    by_method: dict[str, list[float]] = {}
    for name, make in rows.items():
        clock = time.perf_counter()
        with phase(f"{name}: {merges} merges"):
            cost = task.cost(source, items, make, merges)
        error = float(np.std(draws @ cost.bits / (draws @ original)))
        ratio = float(cost.bits.sum() / original.sum())
        by_method[name] = [items.mean(cost.bits), ratio, error, time.perf_counter() - clock]
    columns = ({name: values[i] for name, values in by_method.items()} for i in range(4))
    return MergedScore(merges, int(cost.before.sum()), int(cost.after.sum()), cost.new, *columns)


def table(report: DynamicReport) -> str:
    """Plain text, a line for each number of merges."""
    original, settings = report.original, report.settings
    names = list(report.targets[0].ratio) if report.targets else []
    width = max([21, *(len(name) + 2 for name in names)])
    lines = [
        f"{Path(report.base['name']).name}: {original['bits_per_byte']:.3f} bits per byte without merges, on "
        f"{original['bytes']:,} bytes of {original['texts']} texts",
        f"text: {text_words(report.text)}; merged {'across' if settings['across'] else 'within'} words, in batches of "
        f"{settings['batch_size']} texts",
        "",
        " " * 32 + "".join(f"  {f' {name} ':─^{width}}" for name in names),
        f"{'merges':>6}  {'tokens':>7}  {'new':>5}  {'shorter':>8}"
        + "".join(f"  {'bpb':>7}  {'ratio':<{width - 9}}" for _ in names),
    ]
    lines.append("─" * len(lines[-1].rstrip()))
    for s in report.targets:
        cells = (
            f"  {s.bits_per_byte[name]:7.3f}  {f'{s.ratio[name]:.3f} ±{s.ratio_error[name]:.3f}':<{width - 9}}"
            for name in names
        )
        lines.append(f"{s.merges:>6}  {s.left:>7,}  {s.new:>5,}  {s.reduction:>8.1%}{''.join(cells)}".rstrip())
    lines += ["", "ratio: bits per byte over those without merges, ± one standard error"]
    return "\n".join(lines)
