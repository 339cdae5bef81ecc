"""`zett export`: a published or released hypernetwork, or a run's checkpoint -> a folder in this project's released form."""

import functools
import logging
import shutil
from pathlib import Path

import numpy as np

from zett.errors import UserError
from zett.files.jsonfile import read_json
from zett.files.folders import LEGAL_FILES


def export(
    hypernet: str | Path, output: str | Path, *, checkpoint: str = "best", overwrite: bool = False, push: str | None = None
) -> Path:
    """Write `hypernet` to the folder `output` (config.json, model.safetensors, source_tokenizer/, a card); returns `output`.

    hypernet: what `load_hypernet` takes, or the workdir of a training run, of which `checkpoint` says which step: "best" or
    "latest"; of a language model's run the result is a model folder. push: the name under which the result goes to the Hugging
    Face Hub as well. Bad input is a UserError, with nothing written.
    """
    from zett.files import folders
    from zett.files import hub
    from zett.hypernet import find_hypernet

    output = folders.output_path(output)
    if checkpoint not in ("best", "latest"):
        raise UserError(f"checkpoint is {checkpoint!r}; it has to be 'best' or 'latest'")
    if push is not None:
        hub.check_push(push)
    folder = find_hypernet(hypernet)
    folders.check_output(output, overwrite=overwrite, inputs=[folder])
    with folders.new_folder(output) as new:
        if (folder / "checkpoints").is_dir():
            _write_run(new, folder, checkpoint)
        else:
            _write_hypernet(new, folder)
        _reopen(new)
    if push is not None:
        hub.push(output, push, "Exported by zett")
    return output


def _reopen(new: Path) -> None:
    """UserError unless what was written is what it is meant to be: a hypernetwork with its tokenizer, or a language model."""
    from zett.folders import read_json
    from zett.hypernet import load_hypernet
    from zett.lms import load_base_model

    try:
        if "format" in read_json(new / "config.json"):
            load_hypernet(new).source_tokenizer()
        else:
            load_base_model(new, body=False)
    except UserError as error:
        raise UserError(f"the result could not be used, so nothing was written: {error}") from error


def _write_hypernet(new: Path, folder: Path) -> None:
    from zett.hypernet import FORMAT, load_hypernet, save_hypernet

    trained = load_hypernet(folder)
    source = trained.source_tokenizer()
    content = read_json(folder / "config.json")
    if content.get("format") == FORMAT:  # written by this project: as it is
        save_hypernet(new, trained, source, read_json(folder / "training.json"))
    else:
        save_hypernet(new, trained, source, {"published": content})
        (new / "README.md").write_text(_card(trained, source is not None), encoding="utf-8")
    if source is None:
        logging.getLogger("zett").warning("zett: warning: %s has no source tokenizer; no transfer can use it", folder)
    for pattern in (*LEGAL_FILES, *(["README.md"] if content.get("format") == FORMAT else [])):
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


def _write_run(new: Path, workdir: Path, checkpoint: str) -> None:
    """The parameters of a run's best or latest checkpoint, whether or not the run came to its end."""
    import jax
    import jax.numpy as jnp

    from zett.checkpoint import Checkpoints
    from zett.config import from_dict
    from zett.lms import load_base_model
    from zett.mesh import one_device
    from zett.optim import make_optimizer
    from zett.tasks.hypernet import fresh_params, release
    from zett.tasks.lm import LMTask
    from zett.train import TrainState
    from zett.train.workdir import only_run

    record = read_json(workdir / "config.json")
    config = from_dict(record, where=f"{workdir / 'config.json'}: config")
    with only_run(workdir):
        checkpoints = Checkpoints(workdir / "checkpoints", config.train.keep)
        try:
            steps = checkpoints.steps()
            if not steps:
                raise UserError(f"{workdir} has no checkpoint yet")
            best = checkpoints.best() if checkpoint == "best" else None
            if config.task == "lm":
                task = LMTask(config, workdir, one_device(), texts=False)
                params, write = task.init(), task.export
            else:
                base = load_base_model(config.base, body=False)
                params = fresh_params(config, base)
                write = functools.partial(release, config=config, base=base, workdir=workdir)
            state = TrainState(jnp.zeros((), jnp.int32), params, make_optimizer(config.optim, config.train.steps).init(params))
            state = checkpoints.restore(state, steps[-1] if best is None else best)
        finally:
            checkpoints.close()
    write(params=jax.tree.map(np.asarray, state.params), folder=new, record={"step": int(state.step), "config": record})
