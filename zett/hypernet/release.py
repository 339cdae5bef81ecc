"""The released form of a hypernetwork: config.json, model.safetensors, source_tokenizer/, training.json, rows of its base."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import unflatten_dict

from zett.config import HypernetConfig
from zett.errors import UserError
from zett.files.jsonfile import write_json
from zett.files.resolve import BASE_ROWS, HYPERNETWORK, SOURCE_TOKENIZER, find
from zett.files.tensors import FLOATS, WEIGHTS_FILE, write_tensors
from zett.hypernet.base_rows import BaseRows, read_base_rows
from zett.hypernet.network import make_hypernet
from zett.hypernet.published import MODEL_TYPE, read_published
from zett.hypernet.quantised import restored, stored
from zett.hypernet.trained import TrainedHypernet
from zett.lms.base import BaseModel, load_base_model
from zett.values import from_dict
from zett.vocab import Vocabulary

FORMAT = "zett-hypernet-1"
CHANGES = "body"  # what changes of the base model's body are called among the parameters


def save_hypernet(
    folder: str | Path, trained: TrainedHypernet, source: Vocabulary | None, record: dict, weights: str | None = None
) -> None:
    """Write the released form: config.json, model.safetensors, source_tokenizer/ (if there is one), training.json.

    base_rows.safetensors is written where `trained` has rows of its base model. weights: one of zett.choices.STORED, or None
    for the parameters as they are.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_params(folder, trained, weights)
    write_json(
        folder / "config.json",
        {
            "format": FORMAT,
            "hypernet": dataclasses.asdict(trained.config),
            "hidden_size": trained.hidden_size,
            "tied": trained.tied,
            "base": trained.base,
        },
    )
    write_json(folder / "training.json", record)
    if trained.base_rows is not None:
        trained.base_rows.write(folder)
    if source is None:
        return
    (folder / SOURCE_TOKENIZER).mkdir(exist_ok=True)
    source.tokenizer.save(str(folder / SOURCE_TOKENIZER / "tokenizer.json"))
    if source.folder is not None:
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if (source.folder / name).exists():
                (folder / SOURCE_TOKENIZER / name).write_bytes((source.folder / name).read_bytes())


def write_params(folder: Path, trained: TrainedHypernet, weights: str | None = None) -> None:
    """Write model.safetensors alone; weights: as in `save_hypernet`."""
    params = trained.params if trained.changes is None else trained.params | {CHANGES: trained.changes}
    flat = {".".join(map(_key, path)): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(params)}
    write_tensors(folder / WEIGHTS_FILE, stored(flat, weights), {"format": FORMAT})


def _key(entry) -> str:
    return str(getattr(entry, "key", getattr(entry, "idx", entry)))


def find_hypernet(name: str | Path, revision: str | None = None) -> Path:
    """The local folder of a hypernetwork, downloaded if `name` is one on the Hub; UserError if there is none."""
    return find(name, HYPERNETWORK, revision=revision)


def load_hypernet(path: str | Path, *, revision: str | None = None) -> TrainedHypernet:
    """A hypernetwork: "pico" for the one in the package, a folder, or a name on the Hugging Face Hub (at `revision`).

    The folder is one of `save_hypernet`, or of those that the authors of ZeTT published. UserError if it is none.
    """
    import safetensors
    from safetensors.numpy import load_file

    folder = find_hypernet(path, revision)
    try:
        content = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("model_type") == MODEL_TYPE:
            return read_published(folder, content)
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT:
            run = (folder / "checkpoints").is_dir()
            hint = "; a run's hypernetwork is in its folder export, or made by `zett export`" if run else ""
            raise UserError(f"{folder / 'config.json'} has format {found!r}; expected {FORMAT!r}{hint}")
        flat = restored(load_file(folder / "model.safetensors"))
        changed = {name: flat.pop(name) for name in list(flat) if name.startswith(f"{CHANGES}.")}
    except FileNotFoundError:
        missing = next(name for name in ("config.json", "model.safetensors") if not (folder / name).exists())
        raise UserError(f"{folder} is not a hypernetwork: {missing} is missing") from None
    except UserError:
        raise
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise UserError(f"{folder} cannot be read as a hypernetwork: {error}") from None
    try:
        hidden_size, tied, base = int(content["hidden_size"]), bool(content["tied"]), dict(content["base"])
        config = from_dict(content["hypernet"], HypernetConfig, where=f"{folder}/config.json: hypernet")
        base["name"], base["fingerprint"]
    except KeyError as error:
        raise UserError(f"{folder / 'config.json'} has no field {error}; it is not a hypernetwork's") from None
    expected = nnx.to_pure_dict(nnx.split(nnx.eval_shape(lambda: make_hypernet(config, hidden_size, tied, jnp.float32, 0)))[1])
    leaves, structure = jax.tree_util.tree_flatten_with_path(expected)
    names = [".".join(map(_key, leaf_path)) for leaf_path, _ in leaves]
    wrong = [
        n
        for n, (_, leaf) in zip(names, leaves)
        if n not in flat or flat[n].shape != leaf.shape or flat[n].dtype not in FLOATS.values()
    ]
    wrong += sorted(set(flat) - set(names))
    wrong += sorted(name for name, x in changed.items() if x.dtype not in FLOATS.values())
    if wrong:
        raise UserError(
            f"{folder / 'model.safetensors'} does not fit its config: missing, misshapen or unknown: {', '.join(wrong)}"
        )
    params = jax.tree_util.tree_unflatten(structure, [flat[n] for n in names])
    changes = unflatten_dict(changed, sep=".")[CHANGES] if changed else None  # `TrainedHypernet.fit` checks their shapes
    rows = read_base_rows(folder, hidden_size, tied)
    return TrainedHypernet(config, params, hidden_size, tied, base, folder, rows, changes)


def add_base_rows(folder: str | Path, base: str | Path) -> Path:
    """Give the folder of a released hypernetwork the rows of its base model by which variants are known; returns the file.

    UserError if `base`, what `load_base_model` takes, is not exactly that model.
    """
    rows_to_keep(load_hypernet(folder), load_base_model(base, body=False)).write(find_hypernet(folder))
    return find_hypernet(folder) / BASE_ROWS


def rows_to_keep(trained: TrainedHypernet, base: BaseModel) -> BaseRows:
    """Rows of `base` to keep with the hypernetwork. UserError if it is not exactly the model that this was trained for."""
    theirs, found = trained.base["fingerprint"], base.fingerprint
    if theirs != found:
        known = "which it does not know" if theirs is None else f"{trained.base['name']!r} ({theirs[:12]})"
        raise UserError(f"{base.name} ({found[:12]}) is not the model that {trained.folder} was trained for, {known}")
    return BaseRows.of(base.table)
