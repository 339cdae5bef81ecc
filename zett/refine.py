"""A transferred model -> the same, trained a little further on text against the model that it was made from."""

import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np

from zett.config import Config, from_dict
from zett.errors import UserError
from zett.export import write_run
from zett.files import folders, hub
from zett.files.jsonfile import json_or_empty, write_json
from zett.gguf import find_gguf
from zett.lms.base import BaseModel, check_causal, find_folder, load_base_model
from zett.objectives import TAUGHT
from zett.progress import phase, say
from zett.recipes.language_model_release import BEFORE
from zett.refine_plot import CURVE, PLOT, save_plot
from zett.train.run import train
from zett.transfer import transfer
from zett.values import Within, check_seed, nearest

MINUTES = Within(0, 10**5, above=True)
ENDLESS = 10**8  # steps: time ends the run
PATIENCE = 3
WINDOWS = 64  # of held-out text, each of 512 bytes
# What the learning rate is of the standard deviation of input rows: Adam moves each number by about that much in a step. Rows
# that a hypernetwork made are near their place, and a rate that is right for others only shakes them.
RATE_OF_ROWS, RATE_OF_PREDICTED = 0.01, 0.003
RATE_OF_BODY = 0.005  # of Muon, for the matrices of a body that is trained, too
ON_CPU, ELSEWHERE = {"batch_size": 8, "length": 256}, {"batch_size": 32, "length": 512}


def refine(
    model: str | Path, text: str, output: str | Path, *, minutes: float = 2.0, original: str | Path | None = None,
    body: bool = False, body_rank: int = 0, untie: bool = False, distil: dict[str, float] | None = None,
    turns: float | None = None, chats: str | None = None, valid_text: str | None = None, text_column: str = "text",
    learning_rate: float | None = None, batch_size: int | None = None, length: int | None = None, overwrite: bool = False,
    seed: int = 0, push: str | None = None, transferred: dict | None = None,
) -> Path:  # fmt: skip
    """Write to the folder `output` the `model`, its rows trained on `text` for `minutes`; returns `output`.

    model: a folder that `zett transfer` wrote, or any other causal model with its tokenizer. text: a text source, such as a
    file or a folder; a fiftieth of its documents (or valid_text) is held out, and measured before and after. original: the
    model that it was made from, which it is compared with (None: what its zett.json says; "none": none). body: train all of
    the body, too; body_rank: only changes of this rank of each of its matrices, which are added to it in the end. untie: of a
    tied model, whose output rows are its input rows, train each apart; the result is untied. distil: weights of what is learnt
    from the original, by the names in config.loss ("hidden", "chunk"). turns: the share of texts that are framed as turns of a
    chat, by the model's own template; chats: a file or "hf:NAME" with a column of messages, such as `zett chats` writes, which
    they are then (turns=None: half of the texts). transferred: of a `model` that is not kept, what `zett.transfer` made it of;
    it is recorded in its place. learning_rate, batch_size, length: of training (None: by the size of the rows and the device).
    It ends early when nothing is gained any more; Ctrl-C ends it, and what there is is written. The folder also gets the curve,
    refinement.json and refinement.png. Bad input is a UserError, with nothing written.
    """
    check_seed(seed)
    if minutes not in MINUTES:
        raise UserError(f"minutes is {minutes!r}; it has to be {MINUTES}")
    output = folders.output_path(output)
    hub.check_push(push)
    turns = (0.0 if chats is None else 0.5) if turns is None else turns
    own = find_gguf(model) or find_folder(model)
    original = _original_of(own) if original is None else None if str(original) == "none" else str(original)
    folders.check_output(output, overwrite=overwrite, inputs=[own, original, text, valid_text, chats])
    with phase(f"reading the model {model}"):
        base = load_base_model(model, body=False)
    check_causal(base)
    distil = _weights(distil, original)
    settings = {
        "model": str(model), "original": original, "text": text, "valid_text": valid_text, "minutes": minutes,
        "body": body, "body_rank": body_rank, "untie": untie, "distil": distil, "seed": seed, "output": str(output),
        **({"turns": turns} if turns else {}), **({} if chats is None else {"chats": str(chats)}),
    }  # fmt: skip
    rate = _rate(base, own) if learning_rate is None else learning_rate
    given = {
        "batch_size": batch_size,
        "length": length,
        "text_column": text_column,
        "learning_rate": rate,
        "turns": turns,
        "chats": chats,
    }
    config = _config(base, settings, distil, given)
    with _workdir(output) as workdir:
        stopped = _train(config, workdir)
        record = _record(workdir, config)
        _release(workdir, output, settings, record, transferred)
    _tell(record, output)
    if push is not None:
        hub.push(output, push, "Refined by zett")
    if stopped is not None:
        raise stopped
    return output


def transfer_and_refine(
    model: str | Path, tokenizer: str | Path, output: str | Path, *, refine_on: str, minutes: float = 2.0, body: bool = False,
    body_rank: int = 0, overwrite: bool = False, push: str | None = None, **settings,
) -> Path:  # fmt: skip
    """`zett.transfer` with `settings`, and then `refine` on the text source `refine_on` of what it made, against `model`."""
    output = folders.output_path(output)
    read = [model, tokenizer, *map(settings.get, ("hypernet", "base", "like", "fit_scale"))]
    folders.check_output(output, overwrite=overwrite, inputs=read)
    with _workdir(output) as scratch:
        made = transfer(model, tokenizer, scratch / output.name, **settings)
        return refine(
            made, refine_on, output, minutes=minutes, body=body, body_rank=body_rank, overwrite=overwrite, push=push,
            transferred=_settings(made),
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- before


def _original_of(folder: Path) -> str | None:
    """The model that `zett transfer` made the one in `folder` from, perhaps with `zett refine` after it; None if unknown."""
    settings, command = _settings(folder), str(json_or_empty(folder / folders.MARKER).get("command"))
    name = {"transfer": settings.get("model"), "refine": settings.get("original")}.get(command)
    if not isinstance(name, str):
        say(f"{folder} does not say what it was made from, so that it learns from text alone (--original names the model)")
        return None
    try:
        return str(find_folder(name, settings.get("revision"))) if settings.get("revision") else str(find_folder(name) and name)
    except UserError as error:
        raise UserError(
            f"{folder / folders.MARKER} says that it was made from {name!r}, which is not there ({error}); give --original, "
            "or --original none to learn from text alone"
        ) from error


def _rate(base: BaseModel, folder: Path) -> float:
    """The learning rate for the rows of `base`, which is in `folder`."""
    settings = _settings(folder)
    near = "original" in settings or str(settings.get("method")).partition(":")[0] == "hypernet"  # refined before, or predicted
    deviation = float(np.std(np.asarray(base.table.input[:4096], np.float32)))
    return min(max((RATE_OF_PREDICTED if near else RATE_OF_ROWS) * deviation, 1e-7), 100.0)


def _settings(folder: Path) -> dict:
    """Of what zett did to write it."""
    found = json_or_empty(folder / folders.MARKER).get("settings")
    return found if isinstance(found, dict) else {}


def _weights(distil: dict[str, float] | None, original: str | None) -> dict[str, float]:
    """The weights of objectives that compare with the original."""
    for name in distil or {}:
        if name not in TAUGHT:
            raise UserError(f"distil has {name!r}; {nearest(name, TAUGHT)}")
    if distil and original is None:
        raise UserError(f"distil is {distil}, but there is no original to learn from; give original (--original)")
    return distil or {}  # nothing by default: docs/log.md says why


def _config(base: BaseModel, settings: dict, distil: dict[str, float], given: dict) -> Config:
    """The run that refines."""
    sizes = ON_CPU if jax.default_backend() == "cpu" else ELSEWHERE
    most = base.config.max_positions if base.config is not None else sizes["length"]
    batch_size, length = given["batch_size"] or sizes["batch_size"], given["length"] or min(sizes["length"], most)
    return from_dict({
        "recipe": "refinement", "seed": settings["seed"], "start": settings["model"], "base": settings["original"] or "pico",
        "data": {
            "text": settings["text"], "valid_text": settings["valid_text"], "text_column": given["text_column"],
            "batch_size": batch_size, "length": length, "turns": given["turns"], "chats": given["chats"],
        },
        "loss": {"token": 1.0, **distil},
        "optim": {
            "learning_rate": given["learning_rate"], "warmup_steps": 10, "schedule": "constant", "weight_decay": 0.0,
            "clip": 1.0, "name": "muon" if settings["body"] else "adamw", "matrix_learning_rate": RATE_OF_BODY,
        },
        "train": {
            "steps": ENDLESS, "minutes": settings["minutes"], "patience": PATIENCE * (1 + settings["body"]), "eval_first": True,
            "eval_windows": WINDOWS,
            "eval_original": settings["original"] is not None, "eval_every": ENDLESS, "checkpoint_every": ENDLESS, "keep": 1,
            "body": settings["body"], "body_rank": settings["body_rank"], "untie": settings["untie"],
            "remat": "none" if sizes is ON_CPU else "dots",
        },
    })  # fmt: skip


@contextlib.contextmanager
def _workdir(output: Path) -> Iterator[Path]:
    """A folder beside the output, removed at the end."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise UserError(f"cannot write to {output.parent}: {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -------------------------------------------------------------------------------------------------------- while and after


def _train(config: Config, workdir: Path) -> BaseException | None:
    """Runs to its end, or until it is interrupted: what ended it. Either way the folder `workdir / "export"` is there."""
    try:
        train(config, workdir)
        return None
    except (KeyboardInterrupt, SystemExit) as error:
        if not (workdir / "checkpoints").is_dir() or not any((workdir / "checkpoints").iterdir()):
            raise
        say("stopped; writing what there is")
        with folders.new_folder(workdir / "export") as folder:
            write_run(folder, workdir, "latest")
        return error


def _record(workdir: Path, config: Config) -> dict:
    """What happened, for refinement.json: evaluations by step and by seconds of training."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    tokens = config.data.batch_size * config.data.length
    curve = [
        {"step": line["step"], "seconds": line["trained_seconds"], "tokens": line["step"] * tokens}
        | {name.removeprefix("eval/"): line[name] for name in ("eval/bits_per_byte", "eval/ratio") if name in line}
        for line in lines
        if "eval/bits_per_byte" in line
    ]  # fmt: skip
    released = json.loads((workdir / "export" / "training.json").read_text())["step"]
    scored = {point["step"]: point for point in curve}
    return {
        "before": curve[0], "after": scored.get(released), "steps": released,
        "seconds": max(line.get("trained_seconds", 0.0) for line in lines), "curve": curve,
        "learning_rate": config.optim.learning_rate, "loss": {"hidden": config.loss.hidden, "chunk": config.loss.chunk},
    }  # fmt: skip


def _release(workdir: Path, output: Path, settings: dict, record: dict, transferred: dict | None) -> None:
    with folders.new_folder(output) as folder:
        for path in sorted((workdir / "export").iterdir()):
            path.rename(folder / path.name)
        write_json(folder / CURVE, record)
        save_plot(record, output.name, folder / PLOT)
        card = folder / "README.md"
        text = f"{card.read_text(encoding='utf-8')}\n![held-out bits per byte over time]({PLOT})\n"
        if transferred is not None:  # the folder that it started from is about to go: its name tells nobody anything
            text = text.replace(settings["model"], f"{transferred['model']} transferred")
            for name in (BEFORE, "training.json"):
                said = (folder / name).read_text(encoding="utf-8")
                (folder / name).write_text(said.replace(settings["model"], str(output)), encoding="utf-8")
            transferred = transferred | {"output": str(output)}
            settings = settings | {"model": transferred["model"], "transferred": transferred}
        card.write_text(text, encoding="utf-8")
        folders.mark(folder, "refine", settings)


def _tell(record: dict, output: Path) -> None:
    before, after = record["before"], record["after"]
    if after is None:  # it was stopped between two evaluations
        say(f"{record['steps']} steps; {before['bits_per_byte']:.4f} bits per byte before, not measured after the last one")
        return
    ratios = f" ({before['ratio']:.3f} to {after['ratio']:.3f} times the original's)" if "ratio" in after else ""
    say(
        f"{before['bits_per_byte']:.4f} bits per byte before, {after['bits_per_byte']:.4f} after{ratios}: "
        f"{record['steps']} steps, {after['tokens']:,} tokens, {record['seconds']:.0f} s of training"
    )
    if after["bits_per_byte"] >= before["bits_per_byte"]:
        logging.getLogger("zett").warning(
            "zett: warning: nothing was gained; %s is no better than what it was made from. More text, more minutes or a lower "
            "--learning-rate than %g may help", output, record["learning_rate"],
        )  # fmt: skip
