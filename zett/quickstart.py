"""`make quickstart`: train a hypernetwork for two minutes, transfer a model with it, and show how good the result is."""

import sys
import time
from pathlib import Path

from zett.config import Config, DataConfig, OptimConfig, SamplerConfig, TrainConfig
from zett.evaluate.evaluate import evaluate
from zett.evaluate.report import table
from zett.evaluate.saving import save
from zett.evaluate.targets import load_target
from zett.files.folders import output_path
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


def quickstart(folder: str | Path) -> None:
    """Run the three parts in `folder`; a training that is there already is not done again."""
    folder = output_path(folder)
    clock = time.perf_counter()
    _say("1/3  training a hypernetwork for the base model `pico`, on tokenizers drawn anew at every step")
    train(CONFIG, folder / "run")
    _say("2/3  transferring `pico` to an 8k tokenizer that neither hypernetwork has seen")
    target = load_target("bpe-8k")
    assert target.folder is not None  # it was trained into the cache
    model = transfer("pico", target.folder, folder / "pico-bpe-8k", hypernet=folder / "run" / "export", overwrite=True)
    _say(f"     wrote {model}: transformers.AutoModelForCausalLM.from_pretrained({str(model)!r}) loads it")
    _say("3/3  scoring the original and every method on the same held-out bytes")
    hypernets: dict[str, str | Path] = {"quickstart": folder / "run" / "export", "shipped": "pico"}
    result = evaluate("pico", hypernets=hypernets, methods=("fvt", "mean", "random"), text_bytes=65536, dtype="auto")
    files = save(result, folder / "report")
    print(table(result))
    print(NEXT.format(plot=files[-1], json=files[0], seconds=time.perf_counter() - clock))


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
