"""A published or released hypernetwork, or a run's checkpoint -> a folder in this project's released form."""

import dataclasses
import logging
import shutil
from pathlib import Path

import jax
import numpy as np

from zett.checkpoint import Checkpoints
from zett.choices import STORED
from zett.config import from_dict
from zett.errors import UserError
from zett.files import folders, hub
from zett.files.jsonfile import json_or_empty, read_json, write_json
from zett.files.tensors import WEIGHTS_FILE
from zett.hypernet.release import FORMAT, find_hypernet, load_hypernet, rows_to_keep, save_hypernet, write_params
from zett.lms.base import load_base_model
from zett.mesh import one_device
from zett.optim import make_optimizer
from zett.recipes import recipe_class
from zett.train.step import abstract_state


def export(
    hypernet: str | Path, output: str | Path, *, checkpoint: str = "best", weights: str | None = None, overwrite: bool = False,
    push: str | None = None, base: str | Path | None = None, mean_with: str | Path | None = None,
) -> Path:  # fmt: skip
    """Write `hypernet` to the folder `output` (config.json, model.safetensors, source_tokenizer/, a card); returns `output`.

    hypernet: what `load_hypernet` takes, or the workdir of a training run, of which `checkpoint` says which step: "best" or
    "latest"; of a language model's run the result is a model folder. weights: of a hypernetwork, how its parameters are stored,
    one of zett.choices.STORED; None: as they are. base: the base model of a released hypernetwork of an earlier version, of
    which it gets some rows, so that it works with variants of that model, too. mean_with: a hypernetwork of the same shape for
    the same base model, such as the one that the run started from: written is the mean of both, which may be better than
    either. push: the name under which the result goes to the Hugging Face Hub as well. Bad input is a UserError, with nothing
    written.
    """
    output = folders.output_path(output)
    if checkpoint not in ("best", "latest"):
        raise UserError(f"checkpoint is {checkpoint!r}; it has to be 'best' or 'latest'")
    if weights is not None and weights not in STORED:
        raise UserError(f"weights is {weights!r}; it has to be one of {', '.join(STORED)}")
    hub.check_push(push)
    folder, other = find_hypernet(hypernet), None if mean_with is None else find_hypernet(mean_with)
    folders.check_output(output, overwrite=overwrite, inputs=[folder, *([other] if other else [])])
    with folders.new_folder(output) as new:
        if (folder / "checkpoints").is_dir():
            if base is not None:
                raise UserError(f"base is {str(base)!r}, but {folder} is a run, which knows its base model; leave base out")
            write_run(new, folder, checkpoint)
        else:
            _write_hypernet(new, folder, base)
        if other is not None:
            _average(new, other)
        if weights is not None:
            _store(new, weights)
        _reopen(new)
    if push is not None:
        hub.push(output, push, "Exported by zett")
    return output


def _average(new: Path, other: Path) -> None:
    """Put the mean of what was written and of a released hypernetwork in its place."""
    _check_hypernet(new, f"mean_with is {str(other)!r}")
    one, two = load_hypernet(new), load_hypernet(other)
    kinds = [(t.base.get("fingerprint"), t.config, t.hidden_size, t.tied) for t in (one, two)]
    if kinds[0] != kinds[1] or kinds[0][0] is None:  # published ones do not say which model exactly they are for
        raise UserError(
            f"mean_with is {str(other)!r}, which is for {two.base.get('name')}, with {two.config.layers} layers of width "
            f"{two.config.width}; the mean is taken with one for {one.base.get('name')} itself and of the same config, with "
            f"{one.config.layers} layers of width {one.config.width}"
        )
    # One that leaves the body as it is changes it by nothing.
    none = jax.tree.map(np.zeros_like, one.changes or two.changes)
    both = ((t.params, none if t.changes is None else t.changes) for t in (one, two))
    params, changes = jax.tree.map(lambda a, b: (np.asarray(a, np.float32) + np.asarray(b, np.float32)) / 2, *both)
    write_params(new, dataclasses.replace(one, params=params, changes=changes))
    records = [read_json(folder / "training.json") for folder in (new, other)]
    write_json(new / "training.json", records[0] | {"mean_with": records[1]})
    with (new / "README.md").open("a", encoding="utf-8") as card:
        card.write("\nThese parameters are the mean of those described here and of others (mean_with in training.json).\n")


def _store(new: Path, weights: str) -> None:
    _check_hypernet(new, f"weights is {weights!r}")
    write_params(new, load_hypernet(new), weights)


def _check_hypernet(new: Path, given: str) -> None:
    if "format" not in json_or_empty(new / "config.json"):
        raise UserError(f"{given}, but this is a language model's run; that is there for hypernetworks alone")


def _reopen(new: Path) -> None:
    """UserError unless what was written is what it is meant to be: a hypernetwork with its tokenizer, or a language model."""
    try:
        if "format" in json_or_empty(new / "config.json"):
            load_hypernet(new).source_tokenizer()
        else:
            load_base_model(new, body=False)
    except UserError as error:
        raise UserError(f"the result could not be used, so nothing was written: {error}") from error


def _write_hypernet(new: Path, folder: Path, base: str | Path | None) -> None:
    trained = load_hypernet(folder)
    if base is not None:
        trained = dataclasses.replace(trained, base_rows=rows_to_keep(trained, load_base_model(base, body=False)))
    source = trained.source_tokenizer()
    content = read_json(folder / "config.json")
    if content.get("format") == FORMAT:  # written by this project: as it is
        save_hypernet(new, trained, source, read_json(folder / "training.json"))
        shutil.copyfile(folder / WEIGHTS_FILE, new / WEIGHTS_FILE)  # int8 stays int8
    else:
        save_hypernet(new, trained, source, {"published": content})
        (new / "README.md").write_text(_card(trained, source is not None), encoding="utf-8")
    if source is None:
        logging.getLogger("zett").warning("zett: warning: %s has no source tokenizer; no transfer can use it", folder)
    for pattern in (*folders.LEGAL_FILES, *(["README.md"] if content.get("format") == FORMAT else [])):
        for path in sorted(folder.glob(pattern)):
            shutil.copyfile(path, new / path.name)


def _card(trained, has_tokenizer: bool) -> str:
    c, tied = trained.config, "are the same" if trained.tied else "differ"
    languages = f"\n- Languages (`--language`): {', '.join(c.languages)}" if c.languages else ""
    tokenizer = "in source_tokenizer/" if has_tokenizer else "missing: put its tokenizer.json into source_tokenizer/"
    return f"""# Hypernetwork {trained.base["name"]}

Predicts embedding tables that make a base model work with other tokenizers, zero-shot. Published by the authors of ZeTT (arXiv
2405.07883), converted by `zett export`; it computes the same. The licence of what was published applies.

- Base model: {trained.base.get("vocab_size")} tokens, rows of width {trained.hidden_size}, input and output rows {tied}
- Source tokenizer: {tokenizer}
- {c.layers} layers of width {c.width}, at most {c.max_pieces} pieces a token{languages}
"""


def write_run(new: Path, workdir: Path, checkpoint: str) -> None:
    """The parameters of a run's best or latest checkpoint, whether the run came to its end, was stopped or is going on."""
    record = read_json(workdir / "config.json")
    config = from_dict(record, where=f"{workdir / 'config.json'}: config")
    mesh = one_device()
    recipe = recipe_class(config.recipe).to_export(config, workdir, mesh)
    state = abstract_state(recipe, make_optimizer(config.optim, config.train.steps), mesh)
    state = _restored(workdir, config.train.keep, checkpoint, state)
    recipe.export(jax.tree.map(np.asarray, state.released), new, {"step": int(state.step), "config": record})


def _restored(workdir: Path, keep: int, checkpoint: str, state):
    """The state of that checkpoint, with the structure of `state`."""
    while True:
        checkpoints = Checkpoints(workdir / "checkpoints", keep, reading=True)
        try:
            steps = checkpoints.steps()
            if not steps:
                raise UserError(f"{workdir} has no checkpoint yet")
            best = checkpoints.best() if checkpoint == "best" else None
            step = steps[-1] if best is None else best
            return checkpoints.restore(state, step)
        except UserError:
            # A run that is going on may have replaced it by a later one meanwhile.
            if not steps or (workdir / "checkpoints" / str(step)).is_dir():
                raise
        finally:
            checkpoints.close()
