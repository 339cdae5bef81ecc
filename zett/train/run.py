"""Starting or resuming a run in its workdir: one run at a time, with the config of its start, and all hosts see it."""

import contextlib
import json
import time
from pathlib import Path

import jax

from zett.config import Config, to_dict, with_new_names
from zett.errors import UserError
from zett.files.folders import output_path
from zett.files.jsonfile import write_json
from zett.mesh import mesh_sizes, same_everywhere
from zett.plan.checks import check_inputs
from zett.plan.choose import chosen, is_open, recorded
from zett.recipes import RECIPES, recipe_class
from zett.train.loop import train_in
from zett.train.metrics import check_trackers
from zett.train.workdir import CONFIG, has_begun, held_workdir

# Fields that may change when a run is resumed: its length, and what changes its parameters by no more than rounding.
CHANGEABLE = {
    "train.steps", "train.log_every", "train.eval_every", "train.eval_windows", "train.eval_targets", "train.checkpoint_every",
    "train.keep", "train.eval_first", "train.eval_original", "train.patience", "train.ahead", "train.workers", "train.track",
    "train.max_skipped", "data.valid_text",
    "mesh.data", "mesh.fsdp", "mesh.tensor", "train.microbatches", "train.remat", "train.remat_hypernet",
    "train.attention", "train.loss_chunk",
}  # fmt: skip


def train(config: Config, workdir: str | Path) -> dict[str, float]:
    """Run `config` in `workdir`, resuming what is there; returns the last evaluation.

    The workdir gets config.json, starts.jsonl (versions, commit and devices of each start), metrics.jsonl, checkpoints/ and,
    at the end, export/ with the best parameters. Ctrl-C and SIGTERM save and stop; the same command goes on from there, bit
    for bit as if it had not been stopped. A run that fails before its first step leaves no workdir behind. Raises UserError for
    a workdir that holds another run, a running one or anything else, for a full disk, and when the gradient is not finite in
    `config.train.max_skipped` steps in a row.
    """
    check_trackers(config.train.track)
    if "://" in str(workdir):
        raise UserError(f"--workdir is {str(workdir)!r}; it has to be a folder, such as a mounted bucket, that all hosts see")
    workdir = output_path(workdir, "--workdir")
    main = jax.process_index() == 0
    with held_workdir(workdir) if main else contextlib.nullcontext():
        if has_begun(workdir):
            _check_same_run(config, workdir / CONFIG)
        check_inputs(config)
        config = _settled(config, workdir)
        if main:
            write_json(workdir / CONFIG, to_dict(config))
        if jax.process_count() > 1:
            _check_shared(workdir)
        return train_in(workdir, config)


def _settled(config: Config, workdir: Path) -> Config:
    """The config with nothing left open: as an earlier start of the run had it, or as fits the devices."""
    if not is_open(config):
        return config
    if has_begun(workdir) and (workdir / CONFIG).exists():
        config = recorded(config, with_new_names(json.loads((workdir / CONFIG).read_text())))
    settled = chosen(config, mesh_sizes(config.mesh, jax.device_count()))
    if jax.process_count() > 1 and not same_everywhere([json.dumps(to_dict(settled.train))]):
        raise UserError(
            "the processes of this run, which have other devices or memory, chose different values for "
            "config.train.microbatches, .remat and .remat_hypernet; set all three"
        )
    return settled


SHARED_TRIES = 12  # five seconds apart, since network file systems may show an old state of a folder for a while


def _check_shared(workdir: Path) -> None:
    """UserError unless all processes see one folder: each writes a part of a checkpoint, useless without the others."""
    from jax.experimental import multihost_utils

    seen, main = workdir / ".seen", jax.process_index() == 0
    if main:
        seen.write_text(str(time.time_ns()))
    multihost_utils.sync_global_devices("workdir")
    for number in range(SHARED_TRIES):
        if same_everywhere([seen.read_text() if seen.exists() else f"nothing seen by {jax.process_index()}"]):
            break
        if number + 1 == SHARED_TRIES:
            raise UserError(
                f"{workdir} is not the same folder on all hosts; --workdir has to be on a file system that they share"
            )
        time.sleep(5)
    if main:
        seen.unlink()


def _check_same_run(config: Config, path: Path) -> None:
    """UserError if `path` holds the config of another run."""
    if not path.exists():
        return
    try:
        before = _flat(with_new_names(json.loads(path.read_text()), f"{path}: config"))
    except UserError:  # which is a ValueError, too
        raise
    except (ValueError, AttributeError):
        raise UserError(f"{path} is not a config that a run has written; give another --workdir") from None
    # Also through JSON, which turns tuples into lists. Fields that only one of the two versions has are not compared.
    now = _flat(json.loads(json.dumps(to_dict(config))))
    unread = _sections_of_others(config)
    for name in sorted(before.keys() & now.keys()):
        ignored = name in CHANGEABLE or name.split(".")[0] in unread
        if before[name] != now[name] and not ignored:
            raise UserError(
                f"{path.parent} holds a run with config.{name} = {before[name]!r}, not {now[name]!r}; "
                "give another --workdir, or the old value"
            )


def _sections_of_others(config: Config) -> set[str]:
    """Sections of the config that only other recipes read."""
    every = {section for name in RECIPES for section in recipe_class(name).sections}
    return every - recipe_class(config.recipe).sections


def _flat(values: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} -> {"a.b": 1}."""
    flat: dict = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
