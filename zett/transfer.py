"""Base model + target tokenizer + method -> a model folder that any Hugging Face client loads."""

import dataclasses
import json
import logging
import re
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zett.checkpoint import write_json
from zett.errors import UserError
from zett.gguf import find_gguf

# What a tokenizer's folder may hold; each is copied byte for byte.
TOKENIZER_FILES = [
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template*",
    "additional_chat_templates", "vocab.json", "vocab.txt", "merges.txt", "*.model", "*.spm", "*.tiktoken",
]  # fmt: skip
# What follows a model wherever it goes.
LEGAL_FILES = ["LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*"]
# Of a sentence-embedding model, beside modules.json and the folders that it names.
SENTENCE_FILES = ["sentence_bert_config.json", "config_sentence_transformers.json"]
# Generation settings that name tokens of the old vocabulary.
OLD_TOKEN_SETTINGS = [
    "bad_words_ids", "force_words_ids", "sequence_bias", "suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids",
]  # fmt: skip
# Enough for whole tokens; a hypernetwork cuts them to what it was made for.
MAX_PIECES = 64


def transfer(
    model: str | Path, tokenizer: str | Path, output: str | Path, *, method: str = "hypernet",
    hypernet: str | Path | None = None, language: str | int | None = None, special: str = "keep-target",
    revision: str | None = None, overwrite: bool = False, seed: int = 0, measure: Sequence[str | Path] = (),
    push: str | None = None,
) -> Path:  # fmt: skip
    """Write to the folder `output` the base `model` with the `tokenizer` in place of its own; returns `output`.

    model: "pico", a folder or a Hub name. tokenizer: a folder with tokenizer.json, that file, or a Hub name. method: "hypernet"
    or one of zett.methods.METHODS. hypernet: its folder or Hub name, for "hypernet"; None: the shipped one, for "pico".
    language: of the tokenizer, by code or number, for hypernetworks that know languages. special: one of
    zett.vocab.special.MODES. revision: of the base model, on the Hub. measure: text files, on which bits per byte before and
    after are measured for the card. push: the name under which the result goes to the Hub as well. All but the vocabulary's
    rows is copied byte for byte, and so are the tokenizer's files, but for the ones that `special` changes. Bad input is a
    UserError, with nothing written.
    """
    from zett import folders, hub
    from zett.cards import transfer_card
    from zett.config import check_seed
    from zett.evaluate.measure import measure_of
    from zett.lms import find_folder, load_base_model
    from zett.lms.layers import product_dtype
    from zett.vocab import load_tokenizer
    from zett.vocab.special import adapt_special, check_mode, special_section, special_warnings

    check_seed(seed)
    output = Path(output).expanduser()
    hypernet = _check_method(method, hypernet, model, language)
    check_mode(special)
    # Before anything slow: a run of minutes that then may not write is a bad joke.
    windows = _read_windows(measure)
    if push is not None:
        hub.check_push(push)
    read = find_gguf(model) or find_folder(model, revision)
    inputs = [read, *(Path(p).expanduser() for p in (tokenizer, hypernet) if p is not None)]
    folders.check_output(output, overwrite=overwrite, marker="config.json", inputs=[p for p in inputs if p.exists()])
    base = load_base_model(model, revision=revision, dtype=product_dtype("auto").name, body=bool(windows))
    measured_by = measure_of(base) if windows else None
    given = load_tokenizer(tokenizer)
    command = ["zett", "transfer", "--model", str(model), "--tokenizer", str(tokenizer), "--method", method]
    command += ["--hypernet", str(hypernet)] if hypernet else []
    command += ["--language", str(language)] if language is not None else []
    command += ["--revision", revision] if revision else []
    command += ["--special", special] if special != "keep-target" else []
    command += ["--seed", str(seed)] if seed else []
    command += ["--measure", *map(str, measure)] if measure else []
    command += ["--output", str(output)]
    with folders.new_folder(output) as folder, tempfile.TemporaryDirectory() as scratch:
        target = adapt_special(given, base.vocab, special, Path(scratch))
        table = transfer_table(base, target, method=method, hypernet=hypernet, language=language, seed=seed)
        write_model(folder, base, target, table, tokenizer_file=_single_file(tokenizer) if target is given else None)
        result = _measured(base, measured_by, folder, windows) if measured_by else None
        card = transfer_card(
            output.name, base=base.name, revision=revision, tokenizer=f"`{tokenizer}`: {target.kind}, {len(target)} ids",
            method=method, hypernet=hypernet, command=shlex.join(command), result=result,
        )  # fmt: skip
        card += special_section(target, base.vocab, special, len(given))
        warnings = special_warnings(target, base.vocab)
        (folder / "README.md").write_text(card, encoding="utf-8")
    for line in warnings:
        logging.getLogger("zett").warning("zett: warning: %s", line)
    if push is not None:
        hub.push(output, push, "Tokenizer transferred by zett")
    return output


# Text that is measured: windows of so many bytes each.
WINDOW, WINDOWS = 512, 256


def _read_windows(files: Sequence[str | Path]) -> list[str]:
    from zett.evaluate.bpb import byte_windows

    texts = []
    for file in files:
        try:
            texts.append(Path(file).expanduser().read_text(encoding="utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{file} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}") from error
        except OSError as error:
            raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    windows = byte_windows(texts, window=WINDOW, count=WINDOWS) if texts else []
    if texts and not windows:
        raise UserError(f"{', '.join(map(str, files))}: too short to measure anything on; at least {WINDOW} bytes of text")
    return windows


def _measured(base, measure, folder: Path, windows: list[str]) -> str:
    """One sentence: (masked) bits per byte of the base model and of the one in `folder`."""
    from zett.lms import load_base_model
    from zett.lms.layers import product_dtype
    from zett.table import bucket

    new = load_base_model(folder, body=False)
    bits = []
    for table, vocab in ((base.table, base.vocab), (new.table, new.vocab)):
        table = _float32(table).pad(bucket(len(vocab)))
        bits.append(measure.bits(base.params, table, measure.encode(windows, vocab.tokenizer), dtype=product_dtype("auto")))
    size = sum(len(w.encode()) for w in windows)
    return f"{bits[1]:.4f} {measure.name}, {bits[0]:.4f} before ({bits[1] / bits[0]:.3f} times), on {size} bytes of text"


def _check_method(method: str, hypernet, model, language):
    """The hypernetwork to use, or None for a training-free method."""
    from zett.config import nearest
    from zett.methods import METHODS

    if method != "hypernet":
        if method not in METHODS:
            raise UserError(f"method {method!r} does not exist; {nearest(method, ['hypernet', *METHODS])}")
        if hypernet is not None:
            raise UserError(f"hypernet is {str(hypernet)!r}, but method {method!r} uses none; leave one of the two out")
        if language is not None:
            raise UserError(f"language is {language!r}, but method {method!r} makes no use of it; leave it out")
        return None
    if hypernet is None and str(model) != "pico":
        raise UserError(
            f"method 'hypernet' needs a hypernetwork made for {model}: give its folder, or a method of {', '.join(METHODS)}"
        )
    return "pico" if hypernet is None else hypernet


def transfer_table(
    base, target, *, method: str = "hypernet", hypernet: str | Path | None = None,
    language: str | int | None = None, seed: int = 0,
):  # fmt: skip
    """The `EmbeddingTable` of `base` for the Vocabulary `target`: `len(target)` valid rows.

    In float32 from a hypernetwork, else in the dtype of the base's table.
    """
    from zett.methods import METHODS
    from zett.vocab import surface_forms

    hypernet = _check_method(method, hypernet, base.name, language)
    if method != "hypernet":
        return METHODS[method](base.table, base.vocab, target, surface_forms(target, base.vocab, MAX_PIECES), seed=seed)
    from zett.hypernet import load_hypernet

    base = dataclasses.replace(base, table=_float32(base.table))
    return load_hypernet(hypernet).table_for(base, target, language=language)


def _float32(table):
    import jax

    return jax.tree.map(lambda x: np.asarray(x, np.float32) if np.ndim(x) else x, table)


def write_model(folder: Path, base, target, table, *, tokenizer_file: Path | None = None) -> None:
    """Write into `folder` the model `base` with the rows of `table` and the tokenizer `target`, in Hugging Face's format.

    tokenizer_file: the tokenizer.json to copy, if it is all there is; else the files come from `target.folder`.
    """
    from zett.lms.unported import vocabulary_config
    from zett.vocab.special import follow_ids

    size = int(table.num_valid)
    if size != len(target):
        raise ValueError(f"the table has {size} rows for a tokenizer of {len(target)}")
    if (table.bias is None) != (base.table.bias is None):
        raise ValueError(f"the table {'lacks' if table.bias is None else 'has'} an output bias, unlike {base.name}'s")
    tokenizer_class = _copy_tokenizer(folder, target, tokenizer_file)
    _copy(_companions(base.folder), folder)
    # Absent ids are written as null: where the key is missing, Transformers assumes Llama's own ids.
    ids = dict.fromkeys(f"{role}_token_id" for role in ("bos", "eos", "pad"))
    hf_config = _follow_other_ids(follow_ids({**ids, **base.hf_config}, target, base.vocab), base, target)
    owner = vocabulary_config(hf_config, folder / "config.json")
    owner["vocab_size"] = size
    if (table.output is None) != (base.table.output is None):
        for part in (hf_config, owner):
            part["tie_word_embeddings"] = table.output is None
    hf_config |= _write_weights(folder, base, table, size, hf_config)
    # Without it AutoTokenizer would guess from model_type, and rewrite the tokenizer into a Llama's.
    hf_config["tokenizer_class"] = tokenizer_class
    write_json(folder / "config.json", hf_config)
    generation = base.folder / "generation_config.json"
    settings = json.loads(generation.read_text(encoding="utf-8")) if generation.is_file() else {}
    own_ends = {"eos_token_id": base.hf_config.get("eos_token_id")}
    settings = {k: v for k, v in {**ids, **own_ends, **settings}.items() if k not in OLD_TOKEN_SETTINGS}
    settings = _follow_other_ids(follow_ids(settings, target, base.vocab, several=True), base, target)
    write_json(folder / "generation_config.json", {k: v for k, v in settings.items() if k not in ids or v is not None})


def _follow_other_ids(config: dict, base, target) -> dict:
    """`config` with the target's ids of tokens without a usual role, such as `image_token_id` and `decoder_start_token_id`."""
    from zett.vocab import ROLES

    def follow(key: str, old: int) -> int:
        text = base.vocab.tokenizer.id_to_token(old)
        roles = [role for role, i in base.vocab.roles.items() if i == old and role in target.roles]
        new = target.special.get(text, target.roles[roles[0]] if roles else None)
        if new is None:
            raise UserError(
                f"{base.folder / 'config.json'}: {key} is the token {text!r} ({old}), which the target tokenizer lacks; "
                "give a tokenizer that has it, or --special add-missing"
            )
        return new

    followed = {}
    for key, value in config.items():
        if isinstance(value, dict):
            value = _follow_other_ids(value, base, target)
        elif (match := re.fullmatch(r"(.+)_token_(id|ids|index)", key)) and match[1] not in ROLES and value is not None:
            value = [follow(key, i) for i in value] if isinstance(value, list) else follow(key, value)
        followed[key] = value
    return followed


def write_trained(folder: Path, base, table, body: dict | None = None) -> None:
    """Write into `folder` the model `base` with other values: the rows of `table`, and the parameters `body` (None: its own).

    Names, shards and dtypes of its tensors stay, as do rows beyond the tokenizer; its other files are copied byte for byte.
    """
    from zett.files.tensors import FLOATS, read_tensor, stored_tensors
    from zett.lms.weights import body_tensors, spelled

    _copy(_companions(base.folder) + _found(base.folder, [*TOKENIZER_FILES, "config.json", "generation_config.json"]), folder)
    stored = stored_tensors(base.folder)
    new = {}
    for name, rows in _vocabulary_rows(base, stored, table, len(base.vocab)).items():
        beyond = read_tensor(stored, name)[len(rows) :]
        new[name] = np.concatenate([rows, beyond]) if len(beyond) else rows
    if body is not None:
        family = _family(base)
        theirs = spelled(family, stored)
        dtypes = {name: FLOATS.get(stored[own].dtype) for name, own in theirs.items()}
        new |= {theirs[name]: x for name, x in body_tensors(body, family, base.config, dtypes).items()}
    _write_shards(folder, base, stored, new)


def _found(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _copy(paths: Sequence[Path], folder: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.copytree(path, folder / path.name, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(path, folder / path.name)


def _companions(folder: Path) -> list[Path]:
    """What follows a model wherever it goes: licences, and the modules of a sentence-embedding model."""
    paths = _found(folder, LEGAL_FILES)
    modules = folder / "modules.json"
    if modules.is_file():
        try:
            names = [module["path"] for module in json.loads(modules.read_text(encoding="utf-8")) if module["path"]]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{modules} is not a list of modules with paths ({error!r}); copy or download it again") from error
        absent = [name for name in names if Path(name).name != name or not (folder / name).is_dir()]
        if absent:
            raise UserError(f"{modules} names folders that are not in {folder}: {', '.join(map(str, absent))}")
        paths += [modules, *(folder / name for name in names)]
        paths += [folder / name for name in SENTENCE_FILES if (folder / name).is_file()]
    return paths


def _write_weights(folder: Path, base, table, size: int, hf_config: dict) -> dict:
    """The base's safetensors files, shard by shard, with new vocabulary rows in the old ones' dtype.

    Returns the fields of config.json that have to follow, where positions depend on the padding id.
    """
    from zett.files.tensors import FLOATS, read_tensor, stored_tensors
    from zett.lms.unported import PADDED_POSITIONS
    from zett.lms.weights import spelled

    stored = stored_tensors(base.folder)
    new = _vocabulary_rows(base, stored, table, size)
    fields = {}
    family, padding = _family(base), (base.hf_config.get("pad_token_id", 1), hf_config["pad_token_id"])
    if family is not None and family.follow_padding is not None:
        name = spelled(family, stored)[next(row.key for row in family.weights if row.path == "positions")]
        new[name], fields = family.follow_padding(read_tensor(stored, name), *padding)
    elif family is None and base.hf_config["model_type"] in PADDED_POSITIONS and padding[0] != padding[1]:
        raise UserError(
            f"the positions of a model of type {base.hf_config['model_type']!r} count from its padding id, which would change "
            f"from {padding[0]} to {padding[1]}; give a tokenizer with padding id {padding[0]}"
        )
    if table.output is not None and not base.names.output:  # a tied model becomes untied
        if family is None:
            raise ValueError(f"{base.name} has no output rows of its own, but the table has")
        new[family.output_rows] = _in_dtype(table.output, size, FLOATS[stored[base.names.input[0]].dtype])
    _write_shards(folder, base, stored, new)
    return fields


def _vocabulary_rows(base, stored, table, size: int) -> dict[str, np.ndarray]:
    """The tensors with a row for each token, by their names in the base's files, in the dtype that they have there."""
    from zett.files.tensors import FLOATS

    new: dict[str, np.ndarray] = {}
    for names, rows in ((base.names.input, table.input), (base.names.output, table.output_rows), (base.names.bias, table.bias)):
        new |= dict.fromkeys(names, _in_dtype(rows, size, FLOATS[stored[names[0]].dtype]) if names else None)
    return new


def _write_shards(folder: Path, base, stored, new: dict[str, np.ndarray]) -> None:
    """The base's safetensors files and their index, with `new` tensors; what it lacks stands beside its input rows."""
    from zett.files.tensors import INDEX_FILE, WEIGHTS_FILE, Stored, file_metadata, write_tensors

    def order(item: tuple):  # as stored, so that long runs are copied at once; wide types first, which keeps all aligned
        tensor = item[1]
        return -(tensor.nbytes // max(int(np.prod(tensor.shape)), 1)), tensor.start

    shards: dict[Path, dict[str, np.ndarray | Stored]] = {}
    for name, tensor in sorted(stored.items(), key=order):
        shard = shards.setdefault(tensor.file, {})
        shard[name] = new.get(name, tensor)
        if name == base.names.input[0]:
            shard |= {other: rows for other, rows in new.items() if other not in stored}
    for file, tensors in sorted(shards.items()):
        write_tensors(folder / file.name, tensors, file_metadata(file))
    if not (base.folder / WEIGHTS_FILE).is_file():
        index = json.loads((base.folder / INDEX_FILE).read_text(encoding="utf-8"))
        index["weight_map"] = {name: file.name for file, tensors in sorted(shards.items()) for name in tensors}
        everything = [tensor for tensors in shards.values() for tensor in tensors.values()]
        totals = {
            "total_size": sum(t.nbytes for t in everything),
            "total_parameters": sum(int(np.prod(t.shape)) for t in everything),
        }
        known = index.get("metadata") or {}
        index["metadata"] = {**known, **{k: v for k, v in totals.items() if k in known or k == "total_size"}}
        write_json(folder / INDEX_FILE, index)


def _family(base):
    """The base's family, or None if it is not ported."""
    from zett.lms.family import family_of

    return None if base.config is None else family_of(base.hf_config)


def _in_dtype(rows, size: int, dtype: np.dtype, chunk: int = 4096) -> np.ndarray:
    """The first `size` rows in `dtype`; cast some at a time, since two copies of a large table may not fit."""
    if isinstance(rows, np.ndarray) and rows.dtype == dtype:
        return rows[:size]
    cast = np.empty((size, *rows.shape[1:]), dtype)
    for start in range(0, size, chunk):
        stop = min(start + chunk, size)
        cast[start:stop] = np.asarray(rows[start:stop])
    return cast


def _single_file(tokenizer: str | Path) -> Path | None:
    path = Path(tokenizer).expanduser()
    return path if path.is_file() and find_gguf(path) is None else None


def _copy_tokenizer(folder: Path, target, file: Path | None) -> str:
    """Copy the target's files as they are; returns the tokenizer class that loads them."""
    if file is not None:
        shutil.copyfile(file, folder / "tokenizer.json")
    elif target.folder is not None:
        _copy(_found(Path(target.folder), TOKENIZER_FILES), folder)
    if not (folder / "tokenizer.json").is_file():
        target.tokenizer.save(str(folder / "tokenizer.json"))
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        special = {f"{role}_token": target.tokenizer.id_to_token(i) for role, i in target.roles.items()}
        write_json(config, {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **special})
    return json.loads(config.read_text(encoding="utf-8")).get("tokenizer_class") or "PreTrainedTokenizerFast"
