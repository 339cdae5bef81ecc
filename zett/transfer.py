"""Base model + target tokenizer + method -> a model folder that any Hugging Face client loads."""

import importlib
import json
import shlex
import shutil
from pathlib import Path

import numpy as np

from zett.checkpoint import write_json
from zett.errors import UserError

# What a tokenizer's folder may hold; each is copied byte for byte.
TOKENIZER_FILES = [
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template*",
    "additional_chat_templates", "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.spm", "*.tiktoken",
]  # fmt: skip
# What follows a model wherever it goes.
LEGAL_FILES = ["LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*"]
# Generation settings that name tokens of the old vocabulary.
OLD_TOKEN_SETTINGS = [
    "bad_words_ids", "force_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids",
    "forced_bos_token_id", "forced_eos_token_id", "decoder_start_token_id",
]  # fmt: skip
# Enough for whole tokens; a hypernetwork cuts them to what it was made for.
MAX_PIECES = 64


def transfer(
    model: str | Path, tokenizer: str | Path, output: str | Path, *, method: str = "hypernet",
    hypernet: str | Path | None = None, overwrite: bool = False, seed: int = 0,
) -> Path:  # fmt: skip
    """Write to the folder `output` the base `model` with the `tokenizer` in place of its own; returns `output`.

    model: "pico", a folder or a Hub name. tokenizer: a folder with tokenizer.json, that file, or a Hub name. method: "hypernet"
    or one of zett.methods.METHODS. hypernet: its folder, for "hypernet"; None: the shipped one, for "pico". All but the
    vocabulary's rows is copied byte for byte, and so are the tokenizer's files. Bad input is a UserError, with nothing written.
    """
    from zett import folders
    from zett.lms import find_folder, load_base_model
    from zett.vocab import load_tokenizer

    output = Path(output).expanduser()
    hypernet = _check_method(method, hypernet, model)
    # Before anything slow: a run of minutes that then may not write is a bad joke.
    inputs = [find_folder(model), *(Path(p).expanduser() for p in (tokenizer, hypernet) if p is not None)]
    folders.check_output(output, overwrite=overwrite, marker="config.json", inputs=[p for p in inputs if p.exists()])
    base = load_base_model(model, body=False)
    target = load_tokenizer(tokenizer)
    table = transfer_table(base, target, method=method, hypernet=hypernet, seed=seed)
    command = ["zett", "transfer", "--model", str(model), "--tokenizer", str(tokenizer), "--method", method]
    command += ["--hypernet", str(hypernet)] if hypernet else []
    command += ["--seed", str(seed)] if seed else []
    command += ["--output", str(output)]
    with folders.new_folder(output) as folder:
        write_model(folder, base, target, table, tokenizer_file=_single_file(tokenizer))
        card = _card(base, target, tokenizer, method, hypernet, shlex.join(command), output.name)
        (folder / "README.md").write_text(card, encoding="utf-8")
    return output


def _check_method(method: str, hypernet, model):
    """The hypernetwork to use, or None for a training-free method."""
    from zett.config import nearest
    from zett.methods import METHODS

    if method != "hypernet":
        if method not in METHODS:
            raise UserError(f"method {method!r} does not exist; {nearest(method, ['hypernet', *METHODS])}")
        if hypernet is not None:
            raise UserError(f"hypernet is {str(hypernet)!r}, but method {method!r} uses none; leave one of the two out")
        return None
    if hypernet is None and str(model) != "pico":
        raise UserError(
            f"method 'hypernet' needs a hypernetwork made for {model}: give its folder, or a method of {', '.join(METHODS)}"
        )
    return "pico" if hypernet is None else hypernet


def transfer_table(base, target, *, method: str = "hypernet", hypernet: str | Path | None = None, seed: int = 0):
    """The `EmbeddingTable` of `base` for the Vocabulary `target`: `len(target)` valid rows, float32."""
    from zett.methods import METHODS
    from zett.vocab import surface_forms

    hypernet = _check_method(method, hypernet, base.name)
    forms = surface_forms(target, base.vocab, MAX_PIECES)
    if method != "hypernet":
        return METHODS[method](base.table, base.vocab, target, forms, seed=seed)
    from zett.hypernet import load_hypernet

    return load_hypernet(hypernet)(base.table, base.vocab, target, forms, fingerprint=base.fingerprint)


def write_model(folder: Path, base, target, table, *, tokenizer_file: Path | None = None) -> None:
    """Write into `folder` the model `base` with the rows of `table` and the tokenizer `target`, in Hugging Face's format.

    tokenizer_file: the tokenizer.json to copy, if it is all there is; else the files come from `target.folder`.
    """
    size = int(table.num_valid)
    if size != len(target):
        raise ValueError(f"the table has {size} rows for a tokenizer of {len(target)}")
    if table.bias is not None:
        raise ValueError(f"models of type {base.hf_config['model_type']!r} have no output bias, but the table has one")
    _write_weights(folder, base, table, size)
    tokenizer_class = _copy_tokenizer(folder, target, tokenizer_file)
    for pattern in LEGAL_FILES:
        for path in sorted(base.folder.glob(pattern)):
            shutil.copyfile(path, folder / path.name)
    # Absent ids are written as null: where the key is missing, Transformers assumes Llama's own ids.
    ids = {f"{role}_token_id": target.roles.get(role) for role in ("bos", "eos", "pad")}
    hf_config = {**base.hf_config, "vocab_size": size, "tie_word_embeddings": table.output is None, **ids}
    # Without it AutoTokenizer would guess from model_type, and rewrite the tokenizer into a Llama's.
    hf_config["tokenizer_class"] = tokenizer_class
    write_json(folder / "config.json", hf_config)
    generation = base.folder / "generation_config.json"
    settings = json.loads(generation.read_text(encoding="utf-8")) if generation.is_file() else {}
    settings = {k: v for k, v in settings.items() if k not in (*ids, *OLD_TOKEN_SETTINGS)}
    write_json(folder / "generation_config.json", {**settings, **{k: v for k, v in ids.items() if v is not None}})


def _write_weights(folder: Path, base, table, size: int) -> None:
    """The base's safetensors files, shard by shard, with new vocabulary rows in the old ones' dtype."""
    import jax.numpy as jnp

    from zett.lms import FAMILIES, weights

    family = importlib.import_module(FAMILIES[base.hf_config["model_type"]])
    stored = weights.stored_tensors(base.folder)
    dtypes = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    dtype = jnp.dtype(dtypes[stored[family.INPUT_ROWS].dtype])
    rows = {family.INPUT_ROWS: np.asarray(table.input)[:size].astype(dtype)}
    if table.output is not None:
        rows[family.OUTPUT_ROWS] = np.asarray(table.output)[:size].astype(dtype)
    shards: dict[Path, dict[str, np.ndarray | weights.Stored]] = {}
    for name, tensor in stored.items():
        if name == family.OUTPUT_ROWS and name not in rows:
            continue  # a tied model's second copy
        shards.setdefault(tensor.file, {})[name] = rows.pop(name, tensor)
    shards[stored[family.INPUT_ROWS].file] |= rows  # what is left: the output rows of a tied model that becomes untied
    for file, tensors in shards.items():
        weights.write_tensors(folder / file.name, tensors, weights.file_metadata(file))
    if not (base.folder / weights.WEIGHTS_FILE).is_file():
        index = json.loads((base.folder / weights.INDEX_FILE).read_text(encoding="utf-8"))
        index["weight_map"] = {name: file.name for file, tensors in shards.items() for name in tensors}
        everything = [tensor for tensors in shards.values() for tensor in tensors.values()]
        totals = {
            "total_size": sum(t.nbytes for t in everything),
            "total_parameters": sum(int(np.prod(t.shape)) for t in everything),
        }
        known = index.get("metadata") or {}
        index["metadata"] = {**known, **{k: v for k, v in totals.items() if k in known or k == "total_size"}}
        write_json(folder / weights.INDEX_FILE, index)


def _single_file(tokenizer: str | Path) -> Path | None:
    path = Path(tokenizer).expanduser()
    return path if path.is_file() else None


def _copy_tokenizer(folder: Path, target, file: Path | None) -> str:
    """Copy the target's files as they are; returns the tokenizer class that loads them."""
    if file is not None:
        shutil.copyfile(file, folder / "tokenizer.json")
    elif target.folder is not None:
        for pattern in TOKENIZER_FILES:
            for path in sorted(Path(target.folder).glob(pattern)):
                if path.is_dir():
                    shutil.copytree(path, folder / path.name, copy_function=shutil.copyfile)
                else:
                    shutil.copyfile(path, folder / path.name)
    if not (folder / "tokenizer.json").is_file():
        target.tokenizer.save(str(folder / "tokenizer.json"))
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        special = {f"{role}_token": target.tokenizer.id_to_token(i) for role, i in target.roles.items()}
        write_json(config, {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special})
    return json.loads(config.read_text(encoding="utf-8")).get("tokenizer_class") or "PreTrainedTokenizerFast"


def _card(base, target, tokenizer, method: str, hypernet, command: str, title: str) -> str:
    """README.md of a transferred model."""
    on_hub = base.name != "pico" and not Path(base.name).expanduser().exists()
    made_by = f"the hypernetwork `{hypernet}`, zero-shot" if method == "hypernet" else f"the training-free method `{method}`"
    return f"""---
library_name: transformers
tags: [zett, tokenizer-transfer]
{f"base_model: {base.name}" if on_hub else ""}
---

# {title}

`{base.name}` with another tokenizer. The rows of the embedding tables were made by {made_by}; nothing was trained after that.
All other weights are the base model's, bit for bit, and the tokenizer's files are the ones that were given.

| | |
|---|---|
| base model | `{base.name}` |
| tokenizer | `{tokenizer}`: {target.kind}, {len(target)} ids |
| method | {method} |
| hypernetwork | {f"`{hypernet}`" if hypernet else "none"} |

Made with:

```
{command}
```

The base model's licence applies.
""".replace("\n\n---", "\n---")
