"""How well a base model works with tokenizers that it was not trained with: `evaluate`, and what `eval.py` calls."""

import argparse
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zett.arguments import renamed, several
from zett.belongs import check_belongs
from zett.errors import UserError
from zett.progress import phase

if TYPE_CHECKING:
    from zett.evaluate.bpb import EncodedWindows
    from zett.evaluate.measure import Measure
    from zett.vocab import Vocabulary

BASELINES = ("fvt", "mean", "random")
RESAMPLES = 1000  # of the bootstrap


@dataclasses.dataclass(frozen=True)
class Score:
    """One method on one target tokenizer.

    ratio: bits per byte over the original's. fvt_gap_left: (bits - original) / (FVT's bits - original), None without FVT or
    where FVT loses nothing. Errors are standard errors, by a paired bootstrap over the windows. seconds: to make the table.
    """

    bits_per_byte: float
    ratio: float
    ratio_error: float
    fvt_gap_left: float | None
    fvt_gap_left_error: float | None
    seconds: float


@dataclasses.dataclass(frozen=True)
class TargetResult:
    """All methods on one target tokenizer.

    relative_length: tokens that the text takes, over those of the original tokenizer. shared: share of the vocabulary that the
    original has too. bytes_lost: share of the text's bytes that its tokens do not stand for.
    """

    name: str
    kind: str
    vocab_size: int
    tokens_per_byte: float
    relative_length: float
    shared: float
    bytes_lost: float
    losses: tuple[str, ...]
    scores: dict[str, Score]


@dataclasses.dataclass(frozen=True)
class Report:
    """What `evaluate` measured; `zett.evaluate.report` prints, plots and saves it."""

    base: dict
    text: dict  # what was measured: see zett/evaluate/windows.py
    original: dict  # bits_per_byte, tokens_per_byte, vocab_size, bytes_lost
    hypernets: dict[str, str]  # folder by name
    targets: list[TargetResult]
    settings: dict
    environment: dict

    @property
    def methods(self) -> list[str]:
        """Names in the order of evaluation."""
        return list(self.targets[0].scores) if self.targets else []


def evaluate(
    model=None,
    tokenizer: "str | Path | Vocabulary | Sequence[str | Path] | Mapping[str, Vocabulary] | None" = None,
    *,
    hypernets: str | Path | Mapping[str, str | Path] | None = None,
    language: str | int | None = None,
    methods: str | Sequence[str] | Mapping[str, Callable] = BASELINES,
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

    Of a masked language model it is bits for each byte of words that are hidden; see zett/evaluate/masked.py.
    model: a `BaseModel`, or what `load_base_model` takes (None: "pico"). tokenizer: one or more specs for `load_target` (None:
    `DEFAULT_TARGETS`, which "default" among others stands for, too), or vocabularies by name; base, targets: their old names.
    hypernets: folders by name, or one folder; language: of the targets, by code or number, where they know languages.
    methods: names in `METHODS`, or functions with their signature, by name.
    windows: pieces of text, each scored alone; None: those of `text`, of at most `window` bytes. text: a file or folder is
    measured whole unless targets are trained on it, else its held-out split is. text_bytes: the most that is measured (None: of
    a held-out split, 131072).
    dtype: of matrix products. progress: show a bar; None: in a terminal only. Raises UserError.
    """
    base = renamed("model", model, "base", base)
    base = "pico" if base is None else base
    targets = renamed("tokenizer", tokenizer, "targets", targets)
    hypernets = {"hypernet": hypernets} if isinstance(hypernets, str | Path) else dict(hypernets or {})
    specs = _specs(targets)
    if isinstance(base, str | Path):
        for folder in hypernets.values():
            check_belongs(base, folder)  # before JAX is loaded
    from tqdm import tqdm

    from zett.config import check_seed
    from zett.evaluate.measure import measure_of
    from zett.evaluate.windows import described, measured_windows
    from zett.lms import load_base_model
    from zett.lms.layers import product_dtype
    from zett.vocab import Vocabulary

    check_seed(seed)
    quiet = None if progress is None else not progress  # tqdm's None: quiet unless in a terminal
    bar = functools.partial(tqdm, disable=quiet, leave=False)
    dtype = product_dtype(dtype).name
    if isinstance(base, str | Path):
        with phase(f"reading the base model {base}"):
            base = load_base_model(str(base), dtype=dtype)
    measure = measure_of(base)
    functions = _functions(base, hypernets, methods if isinstance(methods, Mapping) else several(methods), language)
    if isinstance(targets, Vocabulary):
        targets = {targets.folder.name if targets.folder else "tokenizer": targets}
    text, prose = str(text), str(prose)
    if windows is None:
        windows, record = measured_windows(
            text, text_bytes, window, text_column=text_column, prose=prose, specs=specs, seed=seed
        )
    else:
        windows = several(windows)
        if not any(windows):
            raise UserError("there is no text to evaluate on")
        record = {"source": None, "split": None, **described(windows)}
    if not isinstance(targets, Mapping):
        with phase("reading the tokenizers, and training those that are not in the cache"):
            targets = _load_targets(specs, bar, text=text, prose=prose, text_column=text_column)
    if not targets:
        raise UserError("there is no target tokenizer to evaluate")
    with bar(total=1 + len(targets) * len(functions), desc="original", unit="run") as runs:
        with phase("compiling, and scoring the original"):
            trial = _start(base, measure, windows, functions, batch_size=batch_size, dtype=dtype, seed=seed)
        runs.update()
        results = [_target_result(trial, name, target, runs) for name, target in targets.items()]
    return Report(
        base={"name": base.name, "fingerprint": base.fingerprint},
        text=record,
        original=_original(trial),
        hypernets={name: str(path) for name, path in hypernets.items()},
        targets=results,
        settings={
            "measure": measure.name,
            "seed": seed,
            "batch_size": batch_size,
            "dtype": dtype,
            "bootstrap_resamples": RESAMPLES,
            "language": language,
        },
        environment=environment(),
    )


def _specs(given: "str | Path | Vocabulary | Sequence[str | Path] | Mapping[str, Vocabulary] | None") -> list[str]:
    """Those of the targets that are to be loaded, each once; "default" is those of `DEFAULT_TARGETS`. UserError if absurd."""
    from zett.evaluate.targets import DEFAULT_TARGETS, parse_target
    from zett.vocab import Vocabulary

    if isinstance(given, Mapping | Vocabulary):
        return []
    named = ["default"] if given is None else map(str, several(given))
    specs = list(dict.fromkeys(spec for name in named for spec in (DEFAULT_TARGETS if name == "default" else (name,))))
    for spec in specs:
        parse_target(spec)
    return specs


def _load_targets(specs: Sequence[str], bar, **texts) -> dict[str, "Vocabulary"]:
    """Vocabularies by short name."""
    from zett.evaluate.targets import load_target

    return {_short_name(s, specs): load_target(s, **texts) for s in bar(specs, desc="tokenizers", unit="tokenizer")}


@dataclasses.dataclass(frozen=True)
class _Trial:
    """What every target and every method is compared on.

    nats_of: (table, encoded windows) -> nats of each window. own, original: the windows in the original tokenizer, their nats.
    draws: of the bootstrap.
    """

    base: Any
    measure: "Measure"
    windows: list[str]
    functions: dict[str, Callable]
    nats_of: Callable
    own: "EncodedWindows"
    original: np.ndarray
    draws: np.ndarray
    seed: int


def _start(base, measure, windows: list[str], functions, *, batch_size: int, dtype: str, seed: int) -> _Trial:
    """Measures the original."""
    import jax.numpy as jnp

    from zett.table import bucket

    def nats_of(table, encoded) -> np.ndarray:
        # Padded to few sizes, so that a handful of shapes is compiled for all targets.
        padded = table.pad(bucket(table.input.shape[0]))
        return measure.nats(base.params, padded, encoded, batch_size=batch_size, dtype=jnp.dtype(dtype))

    own = measure.encode(windows, base.vocab.tokenizer)
    draws = _bootstrap_draws(len(windows), seed)
    return _Trial(base, measure, windows, functions, nats_of, own, nats_of(base.table, own), draws, seed)


def _target_result(trial: _Trial, name: str, target: "Vocabulary", runs) -> TargetResult:
    """All methods on one target. runs: the progress bar."""
    from zett.transfer import MAX_PIECES
    from zett.vocab import surface_forms

    base, own = trial.base, trial.own
    encoded = trial.measure.encode(trial.windows, target.tokenizer)
    forms = surface_forms(target, base.vocab, MAX_PIECES)
    nats, seconds = {}, {}
    for method, function in trial.functions.items():
        runs.set_description(f"{name}, {method}")
        clock = time.perf_counter()
        with phase(f"{name}, {method}: making rows and scoring them"):
            table = function(base.table, base.vocab, target, forms, seed=trial.seed)
            seconds[method] = time.perf_counter() - clock
            nats[method] = trial.nats_of(table, encoded)
        runs.update()
    return TargetResult(
        name=name,
        kind=target.kind,
        vocab_size=len(target),
        tokens_per_byte=encoded.num_tokens / encoded.total_bytes,
        relative_length=encoded.num_tokens / own.num_tokens,
        shared=float(np.mean(forms.same >= 0)),
        bytes_lost=bytes_lost(trial.windows, encoded, target),
        losses=tuple(target.losses),
        scores=_scores(nats, trial.original, encoded.scored_bytes, trial.draws, seconds),
    )


def _original(trial: _Trial) -> dict:
    own, vocab = trial.own, trial.base.vocab
    return {
        "bits_per_byte": float(trial.original.sum()) / math.log(2) / own.scored_bytes,
        "tokens_per_byte": own.num_tokens / own.total_bytes,
        "vocab_size": len(vocab),
        "bytes_lost": bytes_lost(trial.windows, own, vocab),
    }


def bytes_lost(windows: Sequence[str], encoded, vocab) -> float:
    """Share of the text's bytes that the tokens do not stand for: those outside the longest common subsequence of both."""
    kept = 0
    for window, ids, length in zip(windows, encoded.ids, encoded.lengths):
        text = window.encode()
        tokens = b"".join(vocab.tokens[i] for i in ids[:length])
        kept += len(text) if tokens == text else common_bytes(text, tokens)
    return 1 - kept / encoded.total_bytes


def common_bytes(a: bytes, b: bytes) -> int:
    """Length of the longest common subsequence, bit-parallel (Hyyrö, 2004): one big-integer step a byte of `b`."""
    where = [0] * 256
    for i, byte in enumerate(a):
        where[byte] |= 1 << i
    full = (1 << len(a)) - 1
    row = full
    for byte in b:
        matches = row & where[byte]
        row = ((row + matches) | (row - matches)) & full
    return len(a) - row.bit_count()


def _functions(base, hypernets: Mapping, methods, language) -> dict[str, Callable]:
    """Name -> function with the signature of `METHODS`; hypernetworks first."""
    from zett.config import nearest
    from zett.methods import METHODS

    functions: dict[str, Callable] = {}
    for name, folder in hypernets.items():
        from zett.hypernet import load_hypernet

        trained = load_hypernet(folder)
        trained.check_model(base)
        trained.language_number(language)
        functions[name] = _method_of(trained, base, language)
    for name in methods:
        if name in functions:
            raise UserError(
                f"the name {name!r} is given to a hypernetwork and to a method; call the hypernetwork something else"
            )
        if isinstance(methods, Mapping):
            functions[name] = methods[name]
        elif name in METHODS:
            functions[name] = METHODS[name]
        else:
            raise UserError(f"method {name!r} does not exist; {nearest(name, METHODS)}")
    if not functions:
        raise UserError("there is no method to evaluate; give --hypernet or --method")
    return functions


def _method_of(hypernet, base, language) -> Callable:
    """A hypernetwork as a method. It makes its surface forms itself: a published one has a source tokenizer of its own."""

    def method(table, source, target, forms, *, seed=0):
        return hypernet.table_for(base, target, language=language)

    return method


def _short_name(spec: str, specs: Sequence[str]) -> str:
    """The last part of a path, as long as no other target ends in it."""
    short = Path(spec).parent.name if Path(spec).name == "tokenizer.json" else Path(spec).name
    clash = [s for s in specs if s != spec and short in (Path(s).name, Path(s).parent.name)]
    return spec if clash or not short else short


def _bootstrap_draws(number: int, seed: int) -> np.ndarray:
    """How often each resample holds each window: `[RESAMPLES, number]`. The same draws serve everything, so they are paired."""
    return np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=RESAMPLES).astype(np.float64)


def _scores(nats: dict[str, np.ndarray], original, scored_bytes: int, draws, seconds: dict[str, float]) -> dict[str, Score]:
    base, base_draws = original.sum(), draws @ original
    fvt = nats.get("fvt")
    scores = {}
    for name, values in nats.items():
        gap = gap_error = None
        if fvt is not None and fvt.sum() > base:
            gap = float((values.sum() - base) / (fvt.sum() - base))
            gap_error = float(np.std((draws @ values - base_draws) / (draws @ fvt - base_draws)))
        scores[name] = Score(
            bits_per_byte=float(values.sum()) / math.log(2) / scored_bytes,
            ratio=float(values.sum() / base),
            ratio_error=float(np.std(draws @ values / base_draws)),
            fvt_gap_left=gap,
            fvt_gap_left_error=gap_error,
            seconds=seconds[name],
        )
    return scores


def environment() -> dict:
    import importlib.metadata
    import os
    import platform

    import jax

    versions = {"python": platform.python_version()}
    for package in ("zett", "jax", "jaxlib", "flax", "numpy", "tokenizers"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # a checkout that is not installed
    device = jax.devices()[0]
    return {
        "versions": versions,
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "machine": {"system": platform.system(), "architecture": platform.machine(), "cpus": os.cpu_count()},
    }


# ---------------------------------------------------------------------------------------------------------- command line

DEFAULT_OUTPUT = "runs/eval"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `eval.py` and `zett eval`."""
    from zett.vocab.build import KINDS

    def add(name: str, help: str, **settings) -> None:
        if settings.get("default") not in (None, []) and "(default" not in help:
            help += " (default: %(default)s)"
        parser.add_argument(name, help=help, **settings)

    add("--model", "base model: a folder, a Hub name, or pico, the one in the package", default="pico")
    add(
        "--hypernet",
        "hypernetwork, may be repeated; 'none' for baselines only (default for pico: pico, the one in the package)",
        action="append",
        metavar="[NAME=]DIR",
    )
    add("--language", "language of the targets, by code or number, where the hypernetworks know languages", metavar="CODE")
    add(
        "--tokenizer",
        "target tokenizers: a folder with tokenizer.json, that file, a Hub name, KIND-SIZE, trained on the spot, such as "
        f"bpe-8k or prose-bpe-8k (kinds: {', '.join(KINDS)}), or default, which is six of these (default: default)",
        action="extend",
        nargs="+",
        metavar="SPEC",
    )
    add("--target", argparse.SUPPRESS, dest="tokenizer", action="extend", nargs="+")  # its old name
    add("--method", "methods to compare with (default: fvt mean random)", nargs="+", default=list(BASELINES))
    add(
        "--text",
        "text source: python, prose, a file, a folder, or hf:NAME[:CONFIG]; files and folders are measured whole, unless "
        "KIND-SIZE targets are trained on them; else the held-out split is",
        default="python",
        metavar="SPEC",
    )
    add("--text-column", "column of jsonl and parquet files", default="text")
    add("--text-bytes", "the most bytes to measure (default: a whole file or folder, 131072 of a held-out split)", type=int)
    add("--window", "bytes of context, the same for all tokenizers", type=int, default=512)
    add("--prose", "text source that trains prose-KIND-SIZE targets (default: docstrings)", default="prose", metavar="SPEC")
    add("--output", f"where report.json and report.png go (default: {DEFAULT_OUTPUT}, replaced)", metavar="DIR")
    add("--overwrite", "replace an earlier report in --output", action="store_true")
    add("--json", "print the report as JSON instead of the table", action="store_true")
    add("--dtype", "of matrix products", choices=("float32", "bfloat16", "auto"), default="float32")
    add("--batch-size", "windows in a batch", type=int, default=32)
    add("--seed", "of the windows, the random method and the bootstrap", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Evaluate as the arguments say; print the table, write report.json and report.png. Raises UserError."""
    import json
    import shlex
    import sys

    from zett.evaluate import report as reports

    inputs = [args.model, *(args.hypernet or ()), *(args.tokenizer or ())]
    output = reports.check_output(args.output, args.overwrite, inputs=inputs)
    if args.batch_size < 1:
        raise UserError(f"--batch-size is {args.batch_size}; it has to be greater than 0")
    clock = time.perf_counter()
    result = evaluate(
        args.model,
        args.tokenizer,
        hypernets=_named_hypernets(args.hypernet, args.model),
        language=args.language,
        methods=list(dict.fromkeys(args.method)),
        text=args.text,
        text_bytes=args.text_bytes,
        window=args.window,
        text_column=args.text_column,
        prose=args.prose,
        batch_size=args.batch_size,
        dtype=args.dtype,
        seed=args.seed,
    )
    result.settings["command"] = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    result.settings["seconds"] = round(time.perf_counter() - clock, 1)
    files = reports.save(result, output)
    if args.json:
        print(json.dumps(dataclasses.asdict(result), indent=2, ensure_ascii=False))
    else:
        print(reports.table(result))
        print(f"\nwrote {' and '.join(map(str, files))} in {result.settings['seconds']:.0f} s")
    return 0


def _named_hypernets(given: Sequence[str] | None, model: str) -> dict[str, str]:
    """Folder by name; a folder without a name is called "hypernet", or by its own name where there are several."""
    if given is None:
        return {"hypernet": "pico"} if model == "pico" else {}
    named: dict[str, str] = {}
    for entry in given:
        if entry == "none":
            continue
        name, equals, folder = entry.partition("=")
        if not equals or Path(entry).exists():
            folder = entry
            name = "hypernet" if len(given) == 1 else Path(entry).name
        if not name or name in named:
            raise UserError(f"--hypernet {entry}: the name {name!r} is empty or taken; give another as NAME=DIR")
        named[name] = folder
    return named
