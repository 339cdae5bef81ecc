"""Base models: families, loading from and saving to Hugging Face folders."""

import dataclasses
import functools
import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from zett.errors import UserError
from zett.files import hub
from zett.files.jsonfile import read_json, write_json
from zett.lms import checks, weights
from zett.lms.layers import Remat, product_dtype
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary, load_tokenizer

# model_type of a config.json -> module with Body, Config, WEIGHTS, INPUT_ROWS, OUTPUT_ROWS, IGNORED.
FAMILIES = {
    "bert": "zett.lms.bert",
    "gemma": "zett.lms.gemma",
    "gemma2": "zett.lms.gemma2",
    "gemma3_text": "zett.lms.gemma3",
    "gpt2": "zett.lms.gpt2",
    "gpt_neox": "zett.lms.gpt_neox",
    "llama": "zett.lms.llama",
    "mistral": "zett.lms.mistral",
    "modernbert": "zett.lms.modernbert",
    "olmo2": "zett.lms.olmo2",
    "phi3": "zett.lms.phi3",
    "qwen2": "zett.lms.qwen2",
    "qwen3": "zett.lms.qwen3",
    "roberta": "zett.lms.roberta",
    "smollm3": "zett.lms.smollm3",
    "starcoder2": "zett.lms.starcoder2",
    "xlm-roberta": "zett.lms.roberta",
}
# Of these, the ones whose output rows are the input rows where a config.json does not say; Transformers writes what differs.
TIED = {
    "bert", "gemma", "gemma2", "gemma3_text", "gpt2", "modernbert", "roberta", "smollm3", "starcoder2", "xlm-roberta",
}  # fmt: skip
# Kinds of model that are refused, with the reason, and model types of each.
REFUSED = {
    "a mixture of experts": (
        "dbrx deepseek_v2 deepseek_v3 ernie4_5_moe glm4_moe gpt_oss granitemoe granitemoeshared jetmoe llama4_text minimax "
        "mixtral olmoe phimoe qwen2_moe qwen3_moe qwen3_next switch_transformers"
    ).split(),
    "multimodal": (
        "aya_vision gemma3 gemma3n gemma4 idefics2 idefics3 internvl llama4 llava llava_next llava_onevision mistral3 mllama "
        "paligemma phi4_multimodal pixtral qwen2_5_omni qwen2_5_vl qwen2_vl qwen3_vl qwen3_vl_moe smolvlm"
    ).split(),
}

HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "tokenizer.model", "LICENSE*", "NOTICE*"]
# Subfolders hold other formats, but for the numbered ones, the modules of sentence-embedding models; consolidated.safetensors
# holds the same weights once more.
HUB_IGNORED = ["[!0-9]*/*", "consolidated*"]

# Of config.json, part of the fingerprint: changing this list disowns every hypernetwork that exists.
SHAPE_FIELDS = ["model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """A pretrained language model: body (`graphdef` and `params`, stacked float32) and table `[len(vocab), D]`, as values.

    hf_config: its config.json. config: the family's. names: where its files keep the table. Loaded without its body, params are
    None, and the table is in the dtype of the files; of an architecture that is not ported, config and graphdef are None, too.
    """

    name: str
    folder: Path
    hf_config: dict
    config: Any
    graphdef: Any
    params: dict | None
    table: EmbeddingTable
    vocab: Vocabulary
    names: weights.VocabularyNames

    def __repr__(self) -> str:
        kind, body = self.hf_config.get("model_type"), "without its body" if self.params is None else "with its body"
        return f"BaseModel({self.name!r}, {kind}, {len(self.vocab):,} tokens, {body}, in {self.folder})"

    @property
    def bos_row(self) -> np.ndarray:
        """Input row `[D]` that opens a text: of bos, else of eos, else the mean of all rows; float32."""
        rows = np.asarray(self.table.input)
        row = self.vocab.roles.get("bos", self.vocab.roles.get("eos"))
        return rows.mean(0, dtype=np.float32) if row is None else rows[row].astype(np.float32)

    @functools.cached_property
    def fingerprint(self) -> str:
        """What a hypernetwork is tied to: SHA-256 (hex) of the body's shape and the values of the input and output rows."""
        digest = hashlib.sha256(json.dumps([self.hf_config.get(field) for field in SHAPE_FIELDS]).encode())
        for rows in (self.table.input, self.table.output):
            # Values, not files: the same model stored in a wider dtype or in other shards is the same model.
            if rows is None:
                digest.update(b"-")
                continue
            values = np.asarray(rows)
            for start in range(0, len(values), 4096):  # a copy of all of it may not fit
                digest.update(np.ascontiguousarray(values[start : start + 4096], np.float32).view(np.uint8).data)
        return digest.hexdigest()


def load_base_model(
    name: str | Path, *, dtype: str = "float32", param_dtype: str = "float32", mesh: jax.sharding.Mesh | None = None,
    remat: Remat = "none", revision: str | None = None, body: bool = True,
) -> BaseModel:  # fmt: skip
    """Load "pico" (in the package), a Hugging Face folder, or a name on the Hugging Face Hub (at `revision`).

    dtype: of the body's matrix products. param_dtype: of its layers' matrices; all else is float32. Both are "float32",
    "bfloat16" or "auto", what the hardware is good at. mesh: the devices to spread
    the body over, by the partition specs of its family (axes "fsdp" and "tensor"); every device gets the whole table. remat:
    what a backward pass keeps of each layer, everything ("none"), results of matrix products ("dots") or inputs ("full").
    body=False reads the table and the tokenizer alone, of any architecture (the weights of known families are checked all the
    same).
    UserError for anything that is not a model of a known family with whole weights.
    """
    dtype, param_dtype = product_dtype(dtype).name, product_dtype(param_dtype, "param_dtype").name
    folder = find_folder(name, revision)
    hf_config = read_json(folder / "config.json")
    checks.check_quantisation_file(folder, hf_config)
    try:
        family, config = read_family(hf_config, folder / "config.json")
    except Unported:
        if body:
            raise
        return _unported(str(name), folder, hf_config)
    as_stored = weights.stored_tensors(folder)
    stored = weights.canonical(as_stored, family)
    checks.check_layers(stored, family, config, folder / "config.json")
    if hasattr(family, "HEAD"):
        config = dataclasses.replace(config, head=any(name.startswith(family.HEAD) for name in stored))
    make_body = functools.partial(family.Body, config, dtype=jnp.dtype(dtype), remat=remat)
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: make_body(rngs=nnx.Rngs(0))))
    shapes = {path: leaf.shape for path, leaf in weights.flatten(nnx.to_pure_dict(abstract)).items()}
    tied = is_tied(hf_config)
    weights.check_tensors(stored, family, config, shapes, vocab_size=hf_config["vocab_size"], tied=tied)
    names = weights.names_of_family(family, as_stored)
    table, vocab = _table(folder, as_stored, names, tied=tied)
    if not body:
        return BaseModel(str(name), folder, hf_config, config, graphdef, None, table, vocab, names)
    params = weights.load_body(stored, family, config, shapes, dtype=param_dtype, mesh=mesh)
    # On the device, where every call of a jitted function finds it.
    columns = (table.input, table.output, table.bias)
    placed = (None if rows is None else weights.replicated(np.asarray(rows), mesh) for rows in columns)
    table = EmbeddingTable.of(*placed)
    return BaseModel(str(name), folder, hf_config, config, graphdef, params, table, vocab, names)


def _unported(name: str, folder: Path, hf_config: dict) -> BaseModel:
    """A model whose body is not computed here: its table, found in its files, and its tokenizer."""
    from zett.lms.unported import check_quantised, find_names

    stored = weights.stored_tensors(folder)
    method = checks.quantised(hf_config, folder / "config.json")
    if method is not None:
        check_quantised(method, stored, folder)
    names = find_names(hf_config, stored, folder)
    if method is not None and not names.output and hf_config["model_type"] in FAMILIES and not is_tied(hf_config):
        raise UserError(
            f"{folder} is quantised with {method}, and its output rows are not found; give the model it was made from"
        )
    table, vocab = _table(folder, stored, names, tied=not names.output)
    return BaseModel(name, folder, hf_config, None, None, None, table, vocab, names)


def _table(folder: Path, stored, names: weights.VocabularyNames, *, tied: bool) -> tuple[EmbeddingTable, Vocabulary]:
    """The table in the dtype of the files, mapped from them, and the vocabulary that it belongs to."""

    def read(copies: tuple[str, ...], *, alike: bool = True):
        if not copies:
            return None
        rows = weights.read_tensor(stored, copies[0])
        for other in copies[1:] if alike else ():
            if not weights.same(stored, copies[0], other):
                raise UserError(f"{folder}: {copies[0]} and {other} should be the same, but differ")
        return rows

    # Untied, the model computes with one of the biases, and the other is whatever it was.
    rows, output, bias = read(names.input), read(names.output), read(names.bias, alike=tied)
    if tied and output is not None and not weights.same(stored, names.input[0], names.output[0]):
        raise UserError(
            f"{folder / 'config.json'} says tie_word_embeddings, but {names.output[0]} differs from {names.input[0]} in "
            f"{stored[names.output[0]].file.name}; if the output rows are meant, set tie_word_embeddings to false"
        )
    vocab = load_tokenizer(folder, rows=len(rows))
    size = len(vocab)
    if len(rows) < size:
        raise UserError(f"{folder}: the tokenizer has {size} ids, the embedding table only {len(rows)} rows; they do not match")
    # Rows beyond the tokenizer are padding that was never trained: no token has them, and methods must not learn from them.
    output = None if tied or output is None else output[:size]
    return EmbeddingTable.of(rows[:size], output, None if bias is None else bias[:size]), vocab


def is_causal(base: BaseModel) -> bool:
    """Whether the base's tokens see only what comes before them, so that texts have probabilities; else it is an encoder."""
    return getattr(base.config, "causal", True)


def check_causal(base: BaseModel) -> None:
    """UserError for an encoder."""
    if not is_causal(base):
        kind = base.hf_config["model_type"]
        raise UserError(f"{base.name} is a bidirectional encoder ({kind}); this needs a causal language model")


class Unported(UserError):
    """A model that is whole, but of an architecture, or with a setting of one, that is not computed here."""


def is_tied(hf_config: dict) -> bool:
    """Whether the output rows are the input rows, by the family's default if the config does not say."""
    return bool(hf_config.get("tie_word_embeddings", hf_config.get("model_type") in TIED))


def read_family(hf_config: dict, where: Path):
    """The family's module and the config of a config.json at `where`. Unported if it is not computed here, else UserError."""
    kind = hf_config.get("model_type")
    checks.check_config(hf_config, where, ported=isinstance(kind, str) and kind in FAMILIES)
    method = checks.quantised(hf_config, where)
    if method is not None:
        raise Unported(
            f"{where}: the weights are quantised with {method}, which is not computed here; give the model that they were made "
            "from (a transfer that measures nothing takes this one, too)"
        )
    reason = next((reason for reason, kinds in REFUSED.items() if kind in kinds), None)
    if reason:
        raise Unported(f"{where}: model_type is {kind!r}, {reason}, which is not computed here")
    if kind not in FAMILIES:
        raise Unported(f"{where}: model_type is {kind!r}; supported: {', '.join(sorted(FAMILIES))}")
    family = family_of(hf_config)
    try:
        config = family.Config.from_hf(hf_config)
        hf_config["vocab_size"] + 0
        checks.check_heads(config, where)
    except UserError:
        raise
    except KeyError as error:
        raise UserError(f"{where} has no field {error}; a model of type {kind!r} needs it") from error
    except TypeError as error:
        raise UserError(f"{where}: {error}") from error
    except ValueError as error:
        raise Unported(f"{where}: {error}") from error
    return family, config


@functools.cache
def body_shapes(family, config) -> dict[str, tuple]:
    """Shapes of a body's parameters by dotted path, layers stacked; nothing is allocated."""
    abstract = nnx.split(nnx.eval_shape(lambda: family.Body(config, rngs=nnx.Rngs(0))))[1]
    return {path: leaf.shape for path, leaf in weights.flatten(nnx.to_pure_dict(abstract)).items()}


def family_of(hf_config: dict):
    """The module of a ported family."""
    return importlib.import_module(FAMILIES[hf_config["model_type"]])


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
        checks.check_adapter(folder)
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} is not a model folder: it has no config.json")
        return folder
    if folder.exists():
        raise UserError(f"{folder} is a file; give the folder of the model")
    if not hub.is_name(str(name)):
        raise UserError(f"there is no folder {folder} with a base model")
    folder = hub.download(str(name), HUB_FILES, ignored=HUB_IGNORED, revision=revision)
    checks.check_adapter(folder)
    return folder


def save_base_model(folder: str | Path, config, body_params: dict, table, tokenizer, *, dtype: str, record: dict) -> None:
    """Write a Hugging Face folder: weights in `dtype`, config, tokenizer (a `tokenizers.Tokenizer`), `record` as training.json.

    A model folder that is there already is replaced, once the new one is complete.
    """
    from zett import folders
    from zett.vocab.train import END_OF_TEXT, PAD, save_tokenizer

    folder = Path(folder)
    family = family_of(config.to_hf())
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
    folders.check_output(folder, overwrite=True)
    with folders.new_folder(folder) as temporary:
        weights.write_tensors(temporary / weights.WEIGHTS_FILE, tensors, {"format": "pt"})
        write_json(temporary / "config.json", hf_config)
        write_json(temporary / "generation_config.json", ids)
        save_tokenizer(tokenizer, temporary)
        write_json(temporary / "training.json", record)
