"""`make quickstart`: train a hypernetwork for two minutes, transfer a model with it, and show how good the result is."""

import dataclasses
import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

from zett.config import Config, DataConfig, OptimConfig, SamplerConfig, TrainConfig
from zett.demos.pace import Pace, clamped
from zett.evaluate.evaluate import evaluate
from zett.evaluate.report import table
from zett.evaluate.saving import save
from zett.evaluate.targets import load_target
from zett.files.folders import output_path
from zett.files.jsonfile import write_json
from zett.train.run import train
from zett.transfer import transfer

CONFIG = Config(
    base="pico",
    data=DataConfig(text="python", batch_size=16, length=256),
    # Few and small, so that they are ready in half a minute; configs/pico.py draws from many more.
    sampler=SamplerConfig(texts=("python", "prose"), max_size=16384, pool=4, pool_bytes=2_000_000, inventory_bytes=4_000_000),
    optim=OptimConfig(
        name="muon", learning_rate=1e-3, matrix_learning_rate=0.01, warmup_steps=10, schedule="linear", weight_decay=0.0
    ),
    train=TrainConfig(
        steps=90, eval_every=1000, checkpoint_every=1000, log_every=10, eval_windows=32, eval_targets=("bpe-8k",)
    ),
)


TRIED = 6  # steps that say how fast the machine is; the first one compiles
STEPS = (20, CONFIG.train.steps)  # the fewest, and the most
WINDOW = 512
BYTES = (32 * WINDOW, 128 * WINDOW)  # of text to measure on
# What the rest takes in steps of training: starting the run and transferring; measuring with the most text.
TRANSFERRING, MEASURING = 25, 100
SLOWER = 1.15  # steps of a long run take more than the first ones: some are larger, and batches are made beside them


def quickstart(folder: str | Path, minutes: float = 5.0) -> None:
    """Run the three parts in `folder`; a training that is there already is not done again.

    minutes: that all may take. How many steps and how much text follow from what the first steps take.
    """
    folder, pace = output_path(folder), Pace(60 * minutes)
    _say("1/3  training a hypernetwork for the base model `pico`, on tokenizers drawn anew at every step")
    config, text_bytes = _fitted(folder, pace)
    train(config, folder / "run")
    _say("2/3  transferring `pico` to an 8k tokenizer that neither hypernetwork has seen")
    target = load_target("bpe-8k")
    assert target.folder is not None  # it was trained into the cache
    model = transfer("pico", target.folder, folder / "pico-bpe-8k", hypernet=folder / "run" / "export", overwrite=True)
    _say(f"     wrote {model}: transformers.AutoModelForCausalLM.from_pretrained({str(model)!r}) loads it")
    _say("3/3  scoring the original and every method on the same held-out bytes")
    hypernets: dict[str, str | Path] = {"quickstart": folder / "run" / "export", "shipped": "pico"}
    result = evaluate("pico", hypernets=hypernets, methods=("fvt", "mean", "random"), text_bytes=text_bytes, dtype="auto")
    files = save(result, folder / "report")
    print(table(result))
    print(NEXT.format(plot=files[-1], json=files[0], seconds=pace.spent))


def _fitted(folder: Path, pace: Pace) -> tuple[Config, int]:
    """The config with as many steps as fit in the time, and the bytes of text to measure on; those of a run that is there."""
    record, run = folder / "fitted.json", folder / "run"
    if not (record.is_file() and run.is_dir()):
        seconds = _step_seconds(folder / "tried")
        share = (pace.left / (SLOWER * seconds) - TRANSFERRING) / (STEPS[1] + MEASURING)
        steps = clamped(share * STEPS[1], STEPS)
        text_bytes = clamped(share * BYTES[1], BYTES, WINDOW)
        write_json(record, {"step_seconds": seconds, "steps": steps, "text_bytes": text_bytes})
        _say(f"     a step takes {seconds:.1f} s on this machine: {steps} steps, and {text_bytes:,} bytes to measure on")
    fitted = json.loads(record.read_text())
    return _with(CONFIG, steps=fitted["steps"]), fitted["text_bytes"]


def _step_seconds(workdir: Path) -> float:
    """What a step of training takes when it is compiled; what the first ones compile is kept for the run."""
    try:
        train(_with(CONFIG, steps=TRIED, log_every=1, eval_windows=1), workdir)
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        return statistics.median(line["step_seconds"] for line in lines[1:] if "step_seconds" in line)
    finally:
        shutil.rmtree(workdir, ignore_errors=True)


def _with(config: Config, **train: Any) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **train))


NEXT = """
{seconds:.0f} s. Plot: {plot}   Numbers: {json}

What next
  your own tokenizer    .venv/bin/zett transfer --model pico --tokenizer DIR --output my-model
  measure it            .venv/bin/zett eval --tokenizer DIR
  train longer          .venv/bin/python train.py --config configs/pico.py --workdir runs/pico
  your own model        .venv/bin/python train.py --config configs/pico.py --workdir runs/mine \\
                            --config.base=MODEL_DIR --config.data.text=TEXT_DIR"""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
