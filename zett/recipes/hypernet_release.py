"""What a run of the recipe "hypernet" writes at its end, and its card."""

import dataclasses
from pathlib import Path

import jax
import numpy as np

from zett.cards import training_card
from zett.config import Config
from zett.hypernet.base_rows import ALIKE
from zett.hypernet.release import save_hypernet
from zett.hypernet.trained import TrainedHypernet
from zett.lms.base import BaseModel


def release(folder: Path, trained: TrainedHypernet, base: BaseModel, config: Config, record: dict, workdir: Path) -> None:
    """Write the hypernetwork that a run in `workdir` has trained. record: "step" and "config" of the run."""
    params, changes = jax.tree.map(np.asarray, (trained.params, trained.changes))
    trained = dataclasses.replace(trained, params=params, changes=changes)
    save_hypernet(folder, trained, base.vocab, record)
    card = training_card(f"Hypernetwork for {base.name}", _about(config, base, trained, record), workdir, record)
    (folder / "README.md").write_text(card, encoding="utf-8")


UNTIED = """
- Output rows of their own: the base model's are its input rows (tied), and models that it is transferred to are untied"""

CHANGED = """
- With changes of its body, the same for all tokenizers, which models that it is transferred to get"""


def _about(config: Config, base: BaseModel, trained: TrainedHypernet, record: dict) -> str:
    size = sum(x.size for x in jax.tree.leaves((trained.params, trained.changes)))
    sources = ", ".join(map(repr, config.sampler.texts or (config.data.text,)))
    return f"""
Predicts embedding tables that make the base model {base.name!r} work with other tokenizers, zero-shot. Trained by
zett.

- Base model: {base.name}, fingerprint {base.fingerprint[:16]}; it works with this one, and with variants
  of it (fine-tuned, quantised): the same tokenizer, rows alike to a median cosine of {ALIKE}
- Parameters: {size:,}{UNTIED if trained.tied and trained.kinds == 2 else ""}{CHANGED if trained.changes else ""}
- Data: {config.data.text!r}; tokenizers drawn from {sources}
- Steps: {record["step"]:,} of {config.data.batch_size * config.data.length:,} tokens, a new tokenizer each
- Numbers below: {"" if base.causal else "masked "}bits per byte over the original model's, on tokenizers never trained on
- Licence of the weights: Apache-2.0
- Use: `zett transfer --model {base.name} --hypernet FOLDER --tokenizer DIR --output DIR`
"""
