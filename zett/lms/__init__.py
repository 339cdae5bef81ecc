"""Base models: families, loading from and saving to Hugging Face folders."""

import dataclasses
import functools
import hashlib
import importlib
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.errors import UserError
from zett.lms import weights
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary, load_tokenizer

# model_type of a config.json -> module with Body, Config, WEIGHTS, INPUT_ROWS, OUTPUT_ROWS, IGNORED.
FAMILIES = {"llama": "zett.lms.llama"}

HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model", "LICENSE*", "NOTICE*"]
# Subfolders hold other formats, and consolidated.safetensors the same weights once more.
HUB_IGNORED = ["*/*", "consolidated*"]

# Of config.json, part of the fingerprint: changing this list disowns every hypernetwork that exists.
SHAPE_FIELDS = ["model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """A pretrained language model: body (`graphdef` and `params`, stacked float32) and table `[len(vocab), D]`, as values.

    hf_config: its config.json. config: the family's. params and graphdef are None if it was loaded without its body.
    """

    name: str
    folder: Path
    hf_config: dict
    config: Any
    graphdef: Any
    params: dict | None
    table: EmbeddingTable
    vocab: Vocabulary

    @property
    def bos_row(self) -> np.ndarray:
        """Input row `[D]` that opens a text: of bos, else of eos, else the mean of all rows."""
        rows = np.asarray(self.table.input)
        row = self.vocab.roles.get("bos", self.vocab.roles.get("eos"))
        return rows.mean(0) if row is None else rows[row]

    @functools.cached_property
    def fingerprint(self) -> str:
        """What a hypernetwork is tied to: SHA-256 (hex) of the body's shape and the values of the input and output rows."""
        digest = hashlib.sha256(json.dumps([self.hf_config.get(field) for field in SHAPE_FIELDS]).encode())
        for rows in (self.table.input, self.table.output):
            # Values, not files: the same model stored in a wider dtype or in other shards is the same model.
            digest.update(b"-" if rows is None else np.ascontiguousarray(rows, np.float32).tobytes())
        return digest.hexdigest()


def load_base_model(name: str | Path, *, dtype: str = "float32", revision: str | None = None, body: bool = True) -> BaseModel:
    """Load "pico" (in the package), a Hugging Face folder, or a name on the Hugging Face Hub (at `revision`).

    dtype: of the body's matrix products; parameters are float32. body=False reads the table and the tokenizer alone (the
    weights are checked all the same). UserError for anything that is not a model of a known family with whole weights.
    """
    folder = find_folder(name, revision)
    hf_config = weights.read_json(folder / "config.json")
    family, config = _family(hf_config, folder / "config.json")
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: family.Body(config, dtype=jnp.dtype(dtype), rngs=nnx.Rngs(0))))
    shapes = {path: leaf.shape for path, leaf in weights.flatten(nnx.to_pure_dict(abstract)).items()}
    tied = is_tied(hf_config)
    stored = weights.stored_tensors(folder)
    weights.check_tensors(stored, family, config, shapes, vocab_size=hf_config["vocab_size"], tied=tied)
    rows = weights.read_tensor(stored, family.INPUT_ROWS).astype(np.float32)
    output = weights.read_tensor(stored, family.OUTPUT_ROWS).astype(np.float32) if family.OUTPUT_ROWS in stored else None
    if tied and output is not None and not np.array_equal(rows, output):
        raise UserError(
            f"{folder / 'config.json'} says tie_word_embeddings, but {family.OUTPUT_ROWS} differs from {family.INPUT_ROWS} in "
            f"{stored[family.OUTPUT_ROWS].file.name}; if the output rows are meant, set tie_word_embeddings to false"
        )
    vocab = load_tokenizer(folder)
    if len(rows) < len(vocab):
        raise UserError(
            f"{folder}: the tokenizer has {len(vocab)} ids, the embedding table only {len(rows)} rows; they do not match"
        )
    # Rows beyond the tokenizer are padding that was never trained: no token has them, and methods must not learn from them.
    table = EmbeddingTable.of(rows[: len(vocab)], None if tied or output is None else output[: len(vocab)])
    if not body:
        return BaseModel(str(name), folder, hf_config, config, None, None, table, vocab)
    params = weights.load_body(stored, family, config, shapes)
    params, table = jax.tree.map(
        jnp.asarray, (params, table)
    )  # on the device, where every call of a jitted function finds them
    return BaseModel(str(name), folder, hf_config, config, graphdef, params, table, vocab)


def is_tied(hf_config: dict) -> bool:
    """Whether the output rows are the input rows; Llama's default is that they are not."""
    return bool(hf_config.get("tie_word_embeddings", False))


def _family(hf_config: dict, where: Path):
    kind = hf_config.get("model_type")
    if kind not in FAMILIES:
        raise UserError(f"{where}: model_type is {kind!r}; supported: {', '.join(sorted(FAMILIES))}")
    family = importlib.import_module(FAMILIES[kind])
    try:
        config = family.Config.from_hf(hf_config)
        hf_config["vocab_size"] + 0
    except KeyError as error:
        raise UserError(f"{where} has no field {error}; a model of type {kind!r} needs it") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{where}: {error}") from error
    return family, config


def find_folder(name: str | Path, revision: str | None = None) -> Path:
    """The local folder of a base model, downloaded if `name` is one on the Hub; UserError if there is none."""
    if str(name) == "pico":
        import importlib.resources

        folder = Path(str(importlib.resources.files("zett") / "assets" / "pico"))
        if not folder.is_dir():
            raise UserError(f"this installation lacks the base model 'pico' ({folder}); install the package again")
        return folder
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} is not a model folder: it has no config.json")
        return folder
    if folder.exists():
        raise UserError(f"{folder} is a file; give the folder of the model")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", str(name)):
        raise UserError(f"there is no folder {folder} with a base model")
    return _download(str(name), revision)


def _download(name: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub import errors

    missing = f"there is no folder {name!r}, and on the Hugging Face Hub"
    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=HUB_FILES, ignore_patterns=HUB_IGNORED
        )
    except errors.GatedRepoError as error:
        raise UserError(
            f"{name} is gated: ask for access at https://huggingface.co/{name}, then run `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{name} has no revision {revision!r} on the Hugging Face Hub") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(f"{missing} there is no public model of that name (if it is private, run `hf auth login`)") from error
    except errors.HFValidationError as error:
        raise UserError(f"{missing} no model can have that name") from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{missing} it could not be reached ({reason}); give a folder, or try again online") from error
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"{name} on the Hugging Face Hub is not a model: it has no config.json")
    return Path(folder)


def save_base_model(folder: str | Path, config, body_params: dict, table, tokenizer, *, dtype: str, record: dict) -> None:
    """Write a Hugging Face folder: weights in `dtype`, config, tokenizer (a `tokenizers.Tokenizer`), `record` as training.json.

    A model folder that is there already is replaced, once the new one is complete.
    """
    from zett import folders
    from zett.checkpoint import write_json
    from zett.vocab.build import END_OF_TEXT, PAD, save_tokenizer

    folder = Path(folder)
    model_type = config.to_hf()["model_type"]
    family = importlib.import_module(FAMILIES[model_type])
    stored_dtype = jnp.dtype(dtype)
    size = int(table.num_valid)
    tensors = {family.INPUT_ROWS: np.asarray(table.input[:size]).astype(stored_dtype)}
    tensors |= weights.body_tensors(body_params, family, config, stored_dtype)
    if table.output is not None:
        tensors[family.OUTPUT_ROWS] = np.asarray(table.output[:size]).astype(stored_dtype)
    end, pad = tokenizer.token_to_id(END_OF_TEXT), tokenizer.token_to_id(PAD)
    ids = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": pad}
    hf_config = {
        **config.to_hf(),
        "vocab_size": size,
        "tie_word_embeddings": table.output is None,
        **ids,
        "dtype": str(stored_dtype),
    }
    folders.check_output(folder, overwrite=True, marker="config.json")
    with folders.new_folder(folder) as temporary:
        weights.write_tensors(temporary / weights.WEIGHTS_FILE, tensors, {"format": "pt"})
        write_json(temporary / "config.json", hf_config)
        write_json(temporary / "generation_config.json", ids)
        save_tokenizer(tokenizer, temporary)
        write_json(temporary / "training.json", record)
