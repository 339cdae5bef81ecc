"""`make smollm2`: a real language model with the tokenizers of others, how much it loses, and what it writes."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from zett.demos.pace import Pace, clamped
from zett.demos.packages import packaged_model, packaged_tokenizers
from zett.demos.page import write_page
from zett.demos.sample import Sample, sample
from zett.evaluate.evaluate import evaluate
from zett.evaluate.report import table
from zett.evaluate.results import Report
from zett.evaluate.saving import save
from zett.evaluate.tasks import reading_task
from zett.evaluate.windows import measured_windows
from zett.files.folders import output_path
from zett.lms.base import BaseModel, load_base_model
from zett.lms.layers import product_dtype
from zett.methods import Method
from zett.progress import bar, phase, say
from zett.table import EmbeddingTable
from zett.transfer import transfer
from zett.vocab import Vocabulary

METHODS = ("hypernet", "fvt")  # the first is the one in the package that is for the model
FEWEST = 2  # tokenizers
TEXT = "prose"  # the English in docstrings and package descriptions: what every machine with Python has
WINDOW, BATCH = 1024, 8  # bytes of a window, and windows in a batch
WINDOWS = (BATCH, 8 * BATCH)  # the fewest and the most that are measured
TOKENS = (48, 160)  # the fewest and the most of a sample
TRIED = 8  # tokens of a sample that is written to see how long it takes
PROMPT = "Write a short text about a lighthouse keeper who finds a letter in a bottle."
# Shares of the time that is left when each begins.
FURTHER, SAMPLES, MEASURING = 0.15, 0.45, 0.85


class Written(Method):
    """The tables of models that some method has written, by their vocabulary. baseline: whether that one is a baseline."""

    def __init__(self, models: Mapping[Vocabulary, BaseModel], baseline: bool):
        self.models, self.baseline = dict(models), baseline  # type: ignore[misc]

    def __call__(self, base: BaseModel, target: Vocabulary, *, seed: int = 0) -> EmbeddingTable:
        return self.models[target].table


def smollm2(folder: str | Path, packages: str | Path, *, text: str = TEXT, minutes: float = 4.0) -> Path:
    """Transfer, let the models write, measure, and show it all on a page; everything goes into `folder`. Returns the page.

    packages: the folder that holds the packages of zett/demos/packages.py. text: a source, as for
    `zett.evaluate`. minutes: that it may take; how many tokenizers, how long the samples and how much text follow from what the
    first of each take on this machine.
    """
    pace, folder, packages = Pace(60 * minutes), output_path(folder), Path(packages).expanduser()
    source = packaged_model(packages)
    tokenizers = packaged_tokenizers(packages, folder / "tokenizers")
    models = _transferred(source, tokenizers, folder, pace)
    base = load_base_model(source, dtype=product_dtype("auto").name)
    samples = _samples(base, models, pace)
    report = _measured(base, models, text, pace)
    files = save(report, folder / "report")
    page = write_page(folder / "index.html", report, samples, PROMPT, files[-1])
    print(table(report))
    print(NEXT.format(page=page, json=files[0], seconds=pace.spent, models=folder))
    return page


def _transferred(source: Path, tokenizers: dict[str, Path], folder: Path, pace: Pace) -> dict[str, dict[str, BaseModel]]:
    """The models that were written, by tokenizer and method: two tokenizers, and further ones where they fit in the time."""
    models: dict[str, dict[str, BaseModel]] = {}
    slowest = 0.0
    for name, tokenizer in tokenizers.items():
        before = pace.spent
        if len(models) >= FEWEST and slowest > FURTHER * pace.left:
            rest = ", ".join(list(tokenizers)[len(models) :])
            say(f"left out for want of time: {rest}; a tokenizer took {slowest:.0f} s on this machine")
            break
        say(f"transferring SmolLM2-135M to the tokenizer {name}, with {' and '.join(METHODS)}")
        models[name] = {}
        for method in METHODS:
            output = folder / f"smollm2-{name}-{method}"
            # With the base model's special tokens its chat template goes on working.
            transfer(source, tokenizer, output, method=method, special="map-to-source", overwrite=True)
            models[name][method] = load_base_model(output, body=False)
        # One vocabulary for both, as an evaluation compares methods on one target.
        vocab = models[name][METHODS[0]].vocab
        models[name] = {method: dataclasses.replace(model, vocab=vocab) for method, model in models[name].items()}
        slowest = max(slowest, pace.spent - before)
    return models


def _samples(base: BaseModel, models: dict[str, dict[str, BaseModel]], pace: Pace) -> list[Sample]:
    """What the original and all others write, as long as they can in the time."""
    number = 1 + sum(map(len, models.values()))
    with phase("finding out how fast a sample is written"):
        compiling, tried = _twice(lambda: sample(base, "original", PROMPT, TRIED))
    seconds = SAMPLES * pace.left - number * compiling
    tokens = clamped(seconds / number / (tried / TRIED), TOKENS)
    say(f"writing {tokens} tokens with each of {number} models: a token takes {tried / TRIED:.2f} s on this machine")
    samples = []
    with bar(number, "samples", "model") as advance:
        for name, table, vocab in _all(base, models):
            samples.append(sample(base.with_vocabulary(table, vocab), name, PROMPT, tokens))
            advance(1)
    return samples


def _all(base: BaseModel, models: dict[str, dict[str, BaseModel]]):
    yield "original", base.table, base.vocab
    for name, written in models.items():
        for method, model in written.items():
            yield f"{name}, {method}", model.table, model.vocab


def _measured(base: BaseModel, models: dict[str, dict[str, BaseModel]], text: str, pace: Pace) -> Report:
    task = reading_task(base, dtype=product_dtype("auto"), batch_size=BATCH)
    with phase("finding text, and how fast it is read"):
        windows, _ = measured_windows(text, BATCH * WINDOW, WINDOW, text_column="text", prose="prose", specs=(), seed=0)
        compiling, batch = _twice(lambda: task.score(base, task.items(base, windows)))
    number = 1 + sum(map(len, models.values()))
    # A larger vocabulary than the original's takes longer; half of the work is the body's.
    larger = max(1.0, sum(len(m[METHODS[0]].vocab) for m in models.values()) / len(models) / len(base.vocab))
    seconds = MEASURING * pace.left - number * compiling
    count = clamped(BATCH * seconds / number / (batch * (1 + larger) / 2), WINDOWS, BATCH)
    say(f"measuring on {count * WINDOW:,} bytes of text: {WINDOW * BATCH:,} take {batch:.1f} s on this machine")
    methods = {
        method: Written({m[method].vocab: m[method] for m in models.values()}, method != "hypernet") for method in METHODS
    }
    targets = {name: written[METHODS[0]].vocab for name, written in models.items()}
    return evaluate(
        base, targets, methods=methods, text=text, text_bytes=count * WINDOW, window=WINDOW, batch_size=BATCH, dtype="auto"
    )


def _twice(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds that compiling took, and that it takes without."""
    times = []
    for _ in range(2):
        clock = time.perf_counter()
        run()
        times.append(time.perf_counter() - clock)
    return max(times[0] - times[1], 0.0), times[1]


NEXT = """
{seconds:.0f} s. Page: {page}   Numbers: {json}   Models: {models}/smollm2-*

What next
  your own tokenizer    .venv/bin/zett transfer --model MODEL --tokenizer DIR --output my-model
                        (MODEL: the .gguf file, or SmolLM2-135M-Instruct; the hypernetwork comes with zett)
  another model         .venv/bin/zett transfer --model MODEL --tokenizer DIR --method fvt --output my-model
  before that           .venv/bin/zett inspect --model MODEL --tokenizer DIR --html report.html"""
