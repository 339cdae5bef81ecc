"""How good the methods are and what they cost: one model, one text, some tokenizers and methods, into one JSON and one plot.

    python -m benchmarks.methods_quality --section "pico, Python" --model pico --text python --text-bytes 65536 \\
        --tokenizer bpe-8k unigram-8k --method hypernet fvt mean "focus=focus:text=python" "omp=omp:donor=DONOR"
    python -m benchmarks.methods_quality --page docs/methods.md     # the plot of what is there, and its table into the page

A method is written SPEC, or NAME=SPEC, under which it is kept. What is in the JSON is not computed again, so a run that was
stopped goes on where it was, and each command adds to it. The methods come in the order that is given, each with the smallest
tokenizer first. A method that refuses is said, not kept. Times are of processors, all of them added up, from the method's name
to the table, with all that it reads and compiles, but without the base model and the cutting of target tokens, which all
methods share. Memory is what is held at most beside what was held before, the table included.
"""

import ctypes
import dataclasses
import os
from pathlib import Path

import numpy as np

from benchmarks.common import HAS_PEAK, SEED, arguments, processor, with_memory
from benchmarks.methods_report import figure, in_page, markdown
from zett.errors import UserError
from zett.evaluate.statistics import bootstrap_draws, compared
from zett.evaluate.targets import named_targets, target_specs
from zett.evaluate.tasks import EvalTask, reading_task
from zett.evaluate.tasks.encoded import encode_items
from zett.evaluate.tasks.items import Items
from zett.evaluate.windows import measured_windows
from zett.files.jsonfile import read_json, write_json
from zett.files.provenance import environment
from zett.lms.base import BaseModel, load_base_model
from zett.methods import Method, make_method
from zett.progress import say, shown
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary, surface_forms

RESULTS = Path(__file__).parent / "results" / "methods_quality.json"
MAX_PIECES = 64


def named(method: str) -> tuple[str, str]:
    """The name of a method, under which it is kept, and its spec."""
    head, colon, settings = method.partition(":")
    name, equals, kind = head.rpartition("=")
    return (name, kind + colon + settings) if equals else (method, method)


@dataclasses.dataclass(frozen=True)
class Bench:
    """One section of the report: what all its cells are measured with. original: bits of each window."""

    base: BaseModel
    task: EvalTask
    items: Items
    original: np.ndarray

    def cell(self, spec: str, target: Vocabulary) -> dict:
        """One method on one target: bits of each window, ratio to the original's, seconds and memory of making the table."""
        trim()
        made, (method, table) = with_memory(lambda: self.table(spec, target))
        model = dataclasses.replace(self.base.with_vocabulary(table, target), params=method.adapted(self.base).params)
        bits = self.task.score(model, self.items)
        draws = bootstrap_draws(len(self.items), SEED)
        score = compared({"it": bits}, self.original, self.items, draws, {"it": 0.0})["it"]
        return {"ratio": score.ratio, "ratio_error": score.ratio_error, **made, "bits": numbers(bits)}

    def table(self, spec: str, target: Vocabulary) -> tuple[Method, EmbeddingTable]:
        method = make_method(spec)
        method.precheck(self.base.folder)
        method = method.settled(self.base)
        method.check(self.base)
        return method, method(self.base, target, seed=SEED)

    def about(self, target: Vocabulary) -> dict:
        """A target without its cells."""
        same, length = surface_forms(target, self.base.vocab, MAX_PIECES).same, encode_items(self.items, target).num_tokens
        return {
            "vocab_size": len(target),
            "kind": target.kind,
            "shared": float(np.mean(same >= 0)),
            "relative_length": length / encode_items(self.items, self.base.vocab).num_tokens,
            "cells": {},
        }


def trim() -> None:
    """Gives back what the C library keeps of memory that was freed, which would hide what the next method takes."""
    if HAS_PEAK and hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)


def numbers(values: np.ndarray) -> str:
    """In one line of the JSON."""
    return " ".join(f"{value:.3f}" for value in values)


def opened(args, report: dict) -> tuple[Bench, dict]:
    """What is to be measured with, and its section in the report. UserError if that is of another model or text."""
    texts, record = measured_windows(
        args.text, args.text_bytes, args.window, text_column="text", prose="prose", specs=args.tokenizer, seed=SEED
    )
    base = load_base_model(args.model)
    task = reading_task(base, batch_size=args.batch_size)
    items = task.items(base, texts)
    kept = {"model": Path(base.name).name, "fingerprint": base.fingerprint, "tied": base.table.output is None}
    kept["text"] = {name: record[name] for name in ("split", "bytes", "windows", "window_bytes", "sha256")}
    section = report["sections"].get(args.section)
    if section is None:
        say("scoring the original")
        original = task.score(base, items)
        section = kept | {
            "original": {"bits_per_byte": items.mean(original), "bits": numbers(original)},
            "environment": {"processor": processor(), "load_average": os.getloadavg()[1], **environment()},
            "targets": {},
        }
    for name, value in kept.items():
        if section[name] != value:
            raise UserError(f"section {args.section!r} of {args.output} is of another {name}; give another --section")
    return Bench(base, task, items, np.asarray([float(x) for x in section["original"]["bits"].split()])), section


def measure(args, report: dict) -> int:
    """All cells that are not there yet; how many methods refused."""
    specs = target_specs(args.tokenizer)
    bench, section = opened(args, report)
    report["sections"][args.section] = section
    found = named_targets(args.tokenizer, specs, lambda x, **_: x, text=args.text, prose="prose", text_column="text")
    by_size = sorted(found.items(), key=lambda item: len(item[1]))
    for name, target in by_size:
        if name not in section["targets"]:
            section["targets"][name] = bench.about(target)
    refused = 0
    for label, spec in map(named, args.method):
        for name, target in by_size:
            cells = section["targets"][name]["cells"]
            if label in cells:
                continue
            try:
                cells[label] = bench.cell(spec, target)
            except UserError as error:
                say(f"{label}, {name}: {error}")
                refused += 1
                continue
            write_json(args.output, report)
            cell = cells[label]
            say(f"{label}, {name}: {cell['ratio']:.4f} ±{cell['ratio_error']:.4f}, {cell['cpu_seconds']:.1f} s of processors")
    return refused


def main(argv: list[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--section", help="under which name results are kept")
    parser.add_argument("--model", default="pico")
    parser.add_argument("--text", default="python")
    parser.add_argument("--text-bytes", type=int, default=65536)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tokenizer", nargs="+", default=["bpe-8k"])
    parser.add_argument("--method", nargs="+", default=[])
    parser.add_argument("--page", type=Path, help="a page to put the table into, between the two comments that say so")
    parser.set_defaults(output=RESULTS)
    args = parser.parse_args(argv)
    report = read_json(args.output) if args.output.exists() else {"seed": SEED, "sections": {}}
    refused = 0
    if args.method:
        with shown():
            refused = measure(args, report)
    print(markdown(report))
    if args.page is not None:
        args.page.write_text(in_page(args.page.read_text(), report))
    figure(report).savefig(args.output.with_suffix(".png"), dpi=160)
    raise SystemExit(1 if refused else 0)


if __name__ == "__main__":
    main()
