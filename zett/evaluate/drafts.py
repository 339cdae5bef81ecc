"""How well a model drafts for another one, with its own rows or with those that methods make for the other's tokenizer."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from zett.arguments import several
from zett.errors import UserError
from zett.evaluate.evaluate import opened
from zett.evaluate.results import AS_IT_IS, JSON_NAME, PLOT_NAME
from zett.evaluate.statistics import bootstrap_draws
from zett.evaluate.tasks.drafts import Agreed, DraftItems, Drafts, drafted, expected_length
from zett.evaluate.windows import measured_windows, text_words
from zett.files.jsonfile import write_json
from zett.files.provenance import environment
from zett.lms.base import BaseModel, check_causal, load_base_model
from zett.lms.layers import product_dtype
from zett.lms.like import different_ids
from zett.methods import Method
from zett.methods.hypernet import HypernetMethod
from zett.progress import phase
from zett.values import Within, check_count, check_seed

METHODS = ("fvt", "first_last", "weighted")
TEMPERATURE = Within(0, 100, above=True)


@dataclasses.dataclass(frozen=True)
class DraftScore:
    """One draft. Shares are of 1, with standard errors by a bootstrap over the texts.

    right: of the tokens that the big model writes greedily, those that the draft has, too. kept: of the tokens in greedy
    drafts, those that the big model keeps. length: how many of a greedy draft it keeps, on average. sampled: the chance that a
    token drawn from the draft is kept. sampled_length: of a drawn draft, how many are kept if that is the chance everywhere.
    seconds: to make the rows.
    """

    name: str
    right: float
    right_error: float
    kept: float
    length: float
    sampled: float
    sampled_error: float
    sampled_length: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class DraftReport:
    """What `evaluate_drafts` measured. base: the draft's model; target_model: the one that it drafts for, by name and size."""

    base: dict
    target_model: dict
    text: dict
    targets: list[DraftScore]
    settings: dict
    environment: dict


def evaluate_drafts(
    model: str | Path | BaseModel, target_model: str | Path | BaseModel, *,
    methods: str | Sequence[str] | Mapping[str, Method] | None = None,
    hypernets: str | Path | Mapping[str, str | Path] | None = None, language: str | int | None = None, base=None,
    variant: str | None = None, text: str = "python", prompts: int = 16, window: int = 512, text_column: str = "text",
    prompt_tokens: int = 32, new_tokens: int = 64, draft_tokens: int = 4, temperature: float = 1.0, batch_size: int = 16,
    dtype: str = "float32", seed: int = 0,
) -> DraftReport:  # fmt: skip
    """How much of what `model` drafts `target_model` keeps, after the beginnings of held-out texts.

    model: a draft with the target model's ids, which is measured as it is; or any causal model, with the rows that each of the
    `methods` (None: fvt, first_last and weighted) and `hypernets` make for the target model's tokenizer. These, language, base
    and variant are as in `evaluate`. text: a source as there; prompts: how many pieces of `window` bytes of it, whose first
    `prompt_tokens` are read; new_tokens: how many the target model writes after each; draft_tokens: in a draft; temperature: of
    sampling. What the numbers are is said at `DraftScore`. Raises UserError.
    """
    check_seed(seed)
    sizes = {"prompts": prompts, "prompt_tokens": prompt_tokens, "new_tokens": new_tokens, "draft_tokens": draft_tokens}
    for name, value in sizes.items():
        check_count(value, name)
    if temperature not in TEMPERATURE:
        raise UserError(f"temperature is {temperature!r}; it has to be {TEMPERATURE}")
    dtype = product_dtype(dtype).name
    windows, record = measured_windows(
        text, prompts * window, window, text_column=text_column, prose="prose", specs=(), seed=seed
    )
    with phase(f"reading the model that is drafted for, {target_model}"):
        big = target_model if isinstance(target_model, BaseModel) else load_base_model(target_model, dtype=dtype)
    check_causal(big)
    settings = HypernetMethod.shipped(language, base, variant)
    source, chosen = _drafts(model, big, methods, hypernets, settings, dtype)
    task = Drafts(batch_size=batch_size, prompt=prompt_tokens, tokens=new_tokens, temperature=float(temperature), seed=seed)
    with phase(f"{big.name} writes {new_tokens} tokens after {len(windows)} texts, greedily and sampled"):
        items = task.items(big, windows[:prompts])
    results = [_result(name, method, source, task, items, draft_tokens, seed) for name, method in chosen.items()]
    return DraftReport(
        base={"name": source.name, "fingerprint": source.fingerprint},
        target_model={"name": big.name, "vocab_size": len(big.vocab)}, text=record, targets=results,
        settings={
            "measure": task.unit, **sizes, "prompts": len(items), "temperature": temperature, "seed": seed, "dtype": dtype,
        },
        environment=environment(),
    )  # fmt: skip


def _drafts(
    model, big: BaseModel, methods, hypernets, settings: HypernetMethod, dtype: str
) -> tuple[BaseModel, dict[str, Method | None]]:
    """The model, and the methods that make drafts of it, by name; None: it is one. UserError as soon as it can be told."""
    if methods is None and hypernets in (None, {}):
        source = model if isinstance(model, BaseModel) else load_base_model(model, body=False)
        if not different_ids(source.vocab, big.vocab):
            whole = model if isinstance(model, BaseModel) else load_base_model(model, dtype=dtype, vocab=source.vocab)
            return whole, {AS_IT_IS: None}
    methods = METHODS if methods is None else methods if isinstance(methods, Mapping) else several(methods)
    source, chosen, _ = opened(model, dtype, hypernets, methods, settings)
    return source, dict(chosen)


def _result(
    name: str, method: Method | None, source: BaseModel, task: Drafts, items: DraftItems, draft_tokens: int, seed: int
) -> DraftScore:
    clock = time.perf_counter()
    with phase(f"{name}: making rows and comparing them"):
        target = items.big.vocab
        draft = source if method is None else method.model(source, target, seed=seed)
        seconds = 0.0 if method is None else time.perf_counter() - clock
        found = task.agreement(draft, items)
    return score(name, found, items, draft_tokens, seconds, seed)


def score(name: str, found: Agreed, items: DraftItems, draft_tokens: int, seconds: float, seed: int) -> DraftScore:
    """What follows from agreement token by token."""
    draws = bootstrap_draws(len(items), seed)

    def share(values: np.ndarray, lengths: np.ndarray) -> tuple[float, float]:
        sums = values.sum(1)
        return float(sums.sum() / lengths.sum()), float(np.std(draws @ sums / (draws @ lengths)))

    right, right_error = share(found.agreed, items.greedy.lengths)
    sampled, sampled_error = share(found.overlap, items.sampled.lengths)
    made = drafted(found.agreed, items.greedy.lengths, draft_tokens)
    return DraftScore(
        name, right, right_error, made.accepted / max(made.drafted, 1), made.accepted / max(made.drafts, 1), sampled,
        sampled_error, expected_length(sampled, draft_tokens), seconds,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------------ report


def table(report: DraftReport) -> str:
    """Plain text, a line for each draft."""
    given, big = report.settings, report.target_model
    k, first = given["draft_tokens"], max([len("draft"), *(len(result.name) for result in report.targets)])
    sampled = f"sampled at {given['temperature']:g}"
    lines = [
        f"{_short(report.base['name'])} drafts for {_short(big['name'])} ({big['vocab_size']:,} tokens)",
        f"text: {text_words(report.text)}: {given['prompts']} beginnings of {given['prompt_tokens']} tokens, "
        f"{given['new_tokens']} tokens written after each",
        "",
        f"{'':<{first}}  {'greedy':─^31}  {sampled:─^21}",
        f"{'draft':<{first}}  right         kept  of {k:<2}    rows  kept          of {k:<2}",
    ]
    lines.append("─" * len(lines[-1]))
    for r in report.targets:
        lines.append(
            f"{r.name:<{first}}  {r.right:5.1%} ±{r.right_error:4.1%}  {r.kept:5.1%}  {r.length:5.2f} {r.seconds:6.1f}s  "
            f"{r.sampled:5.1%} ±{r.sampled_error:4.1%}  {r.sampled_length:5.2f}"
        )
    notes = (
        f"right: tokens of {_short(big['name'])} that the draft has, too, ± one standard error; kept: of the tokens in drafts,",
        f"those that are accepted; of {k}: how many of a draft are, on average; rows: seconds to make them",
    )
    return "\n".join([*lines, "", *notes])


def save(report, folder: Path) -> list[Path]:
    """Write report.json into `folder`, made if missing; returns its path. The plot of another report goes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLOT_NAME).unlink(missing_ok=True)
    write_json(folder / JSON_NAME, dataclasses.asdict(report))
    return [folder / JSON_NAME]


def _short(name: str) -> str:
    return Path(name).name.removesuffix(".gguf") or name
