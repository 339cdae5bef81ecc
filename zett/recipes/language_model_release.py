"""What a run of the recipe "lm" writes at its end, and its card."""

import math
import shutil
from pathlib import Path

import jax

from zett.cards import front_matter, training_card
from zett.config import Config
from zett.files.jsonfile import write_json
from zett.lms.base import BaseModel
from zett.lms.folder import becomes_untied, save_base_model, write_trained

BEFORE = "README_before.md"  # the card of the model that the training started from, kept beside the new one
MEASURE = "- Held-out bits per byte: in windows of at most 512 bytes, each scored alone, on documents that were not trained on"


def release_fresh(
    folder: Path, model: BaseModel, config: Config, record: dict, workdir: Path, read: tuple[int, int] | None
) -> None:
    """Write a model that was trained from scratch; read: tokens and documents of its text, if they are known."""
    assert model.params is not None  # all of it was trained
    save_base_model(folder, model.config, model.params, model.table, model.vocab.tokenizer, dtype="bfloat16", record=record)
    card = training_card(model.name, _about_fresh(model, config, record, read), workdir, record)
    (folder / "README.md").write_text(card, encoding="utf-8")


def release_further(folder: Path, model: BaseModel, config: Config, record: dict, workdir: Path) -> None:
    """Write a model that was trained further, in the format of the files that it came from.

    model.params: None if the body was frozen; then its files are copied.
    """
    write_trained(folder, model, model.table, model.params)
    write_json(folder / "training.json", record)
    title = f"{Path(model.name).name}, trained further"
    card = front_matter(model.name) + training_card(title, _about_further(model, config, record), workdir, record)
    if (before := model.folder / "README.md").is_file():
        shutil.copyfile(before, folder / BEFORE)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _tokens_seen(config: Config, record: dict) -> int:
    return record["step"] * config.data.batch_size * config.data.length


def _about_fresh(model: BaseModel, config: Config, record: dict, read: tuple[int, int] | None) -> str:
    seen = _tokens_seen(config, record)
    vocabulary = (1 if model.table.output is None else 2) * math.prod(model.table.input.shape)
    size = sum(x.size for x in jax.tree.leaves(model.params)) + vocabulary
    text, epochs = "", ""
    if read is not None:
        text, epochs = f", {read[0]:,} tokens in {read[1]:,} documents", f" ({seen / read[0]:.2f} epochs)"
    return f"""
A small language model of the Llama architecture, trained from scratch by zett as an
instrument for measuring tokenizer transfer. It knows the text that it was trained on and nothing else.

- Parameters: {size:,}, of which {vocabulary:,} in the rows of {len(model.vocab)} tokens
- Data: {config.data.text!r}{text}
- Tokens seen: {seen:,}{epochs}, a share of {config.data.resegment_share} of the
  rows cut more finely at random (StochasTok), as a stand-in for the odd spellings and spacings that large models have seen
{MEASURE}
- Licence of the weights: Apache-2.0
- Rebuild: `python train.py --config configs/{config.model.name}_base.py --workdir runs/{config.model.name}_base`
"""


def _about_further(model: BaseModel, config: Config, record: dict) -> str:
    before = f"; its own card is [{BEFORE}]({BEFORE})" if (model.folder / "README.md").is_file() else ""
    trained = "the rows of its vocabulary alone" if model.params is None else "all parameters"
    if config.train.body_rank and model.params is not None:
        trained = f"the rows of its vocabulary, and changes of rank {config.train.body_rank} of the body's matrices, merged"
    if becomes_untied(model, model.table):
        trained += "; output rows apart from input rows, which were one table before (tied)"
    return f"""
`{model.name}`, with the tokenizer that it had, trained further by zett to predict the next token of text.

- Started from: `{model.name}`{before}
- Trained: {trained}
- Data: {config.data.text!r}
- Tokens seen: {_tokens_seen(config, record):,}
{MEASURE}
- The licence of the model that it started from applies
"""
