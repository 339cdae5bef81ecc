"""Hypernetworks that the authors of ZeTT published (arXiv 2405.07883), as `TrainedHypernet`s that compute the same.

Their folders hold config.json, the weights as flax_model.msgpack and as model.safetensors (PyTorch's names), and the source
tokenizer converted to byte level, whose ids beyond the base model's are those of the fallback rows. What the files do not
tell: the layers are RoBERTa's with roberta-base's settings; positions count from 0; the result is read at the first one; a
language is one more position, after the others, without a position of its own; fallback rows are not rescaled.
"""

import re
from pathlib import Path

import numpy as np

from zett.config import HypernetConfig
from zett.errors import UserError
from zett.files.tensors import INDEX_FILE, WEIGHTS_FILE, read_tensor, stored_tensors
from zett.hypernet.flax_msgpack import read_arrays
from zett.hypernet.trained import TrainedHypernet

MODEL_TYPE = "zett_hypernetwork"
MSGPACK = "flax_model.msgpack"

# Fields of which only one value is supported: that value, and the one that is meant if config.json lacks the field.
ONLY = {
    "hn_model_type": ("roberta", "roberta"),
    "hn_model_name_or_path": ("roberta-base", "roberta-base"),
    "hn_embed_using_source_embeddings": (True, False),
    "hn_embed_target_priors": (False, False),
    "hn_add_inter_token_attention": (False, False),
    "hn_concat_last_hidden_state": (False, False),
    "hn_language_adapter_bottleneck_dim": (0, 0),
}
SIZES = ("hn_hidden_size", "hn_intermediate_size", "hn_n_layers", "hn_surface_maxlen", "n_embd", "original_vocab_size")
FLAGS = {
    "hn_rescale_embeddings": False,
    "hn_single_head": False,
    "hn_predict_bias": True,
    "hn_embed_lang_id": False,
    "separate_out_embeddings": False,
}
# These matter only with inter-token attention. pad_token_id marks the end of a token, which is known by its length here.
WITHOUT_EFFECT = ("hn_inter_token_attention_bias_by_priors", "hn_inter_token_attention_bias_scaler", "hn_n_inter_token_blocks")
# Parameters that are there and never read, in the names of either format.
UNREAD = re.compile(
    r"model\.embeddings\.(word_embeddings\.embedding|position_ids|token_type_ids)|model\.encoder\.layer\.inter_token_blocks"
)


def read_published(folder: Path, content: dict) -> TrainedHypernet:
    """The hypernetwork in `folder`, whose config.json holds `content`. UserError names what is wrong or not supported."""
    where = folder / "config.json"
    config, hidden_size, tied = _config(content, where)
    found, tensors = _tensors(folder)
    params = _params(tensors, found, config, hidden_size, tied, content)
    base = {"name": str(content.get("name") or folder.name), "fingerprint": None, "vocab_size": content["original_vocab_size"]}
    return TrainedHypernet(config, params, hidden_size, tied, base, folder)


def _config(content: dict, where: Path) -> tuple[HypernetConfig, int, bool]:
    """The same as our config, width of the rows, and whether there is one kind of rows."""
    for name, (value, default) in ONLY.items():
        if content.get(name, default) != value:
            raise UserError(f"{where}: {name} is {content.get(name, default)!r}; only {value!r} is supported")
    known = {*ONLY, *SIZES, *FLAGS, *WITHOUT_EFFECT, "hn_num_attention_heads", "hn_n_extra_tokens"}
    unknown = sorted(name for name in content if name.startswith("hn_") and name not in known)
    if unknown:
        raise UserError(f"{where}: {unknown[0]} is not a field of published hypernetworks, so its meaning is not known")
    sizes = {name: _size(content, name, where) for name in SIZES}
    flags = {name: content.get(name, default) for name, default in FLAGS.items()}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise UserError(f"{where}: {name} is {value!r}; it has to be true or false")
    width, tied = sizes["hn_hidden_size"], not flags["separate_out_embeddings"]
    heads = width // 64 if content.get("hn_num_attention_heads") is None else _size(content, "hn_num_attention_heads", where)
    if not heads or width % heads:
        raise UserError(f"{where}: hn_hidden_size is {width}, which is not a multiple of hn_num_attention_heads ({heads})")
    config = HypernetConfig(
        width=width, layers=sizes["hn_n_layers"], heads=heads, feed_forward=sizes["hn_intermediate_size"],
        max_pieces=sizes["hn_surface_maxlen"], encoder="roberta", norm="post", residual="none", rescale="fitted",
        input_std=0.02, features=False, fallback_rows=max(_size(content, "hn_n_extra_tokens", where, least=0), 1),
        languages=_languages(content, where) if flags["hn_embed_lang_id"] else (),
        # Models with output rows of their own are decoders. They have no output bias, and their bias heads were never trained.
        bias=flags["hn_predict_bias"] and tied,
    )  # fmt: skip
    return config, sizes["n_embd"], tied


def _size(content: dict, name: str, where: Path, least: int = 1) -> int:
    value = content.get(name)
    if type(value) is not int or value < least:
        raise UserError(f"{where}: {name} is {value!r}; it has to be a whole number of at least {least}")
    return value


def _languages(content: dict, where: Path) -> tuple[str, ...]:
    number = _size(content, "n_langs", where)
    codes = content.get("langs") or [str(i) for i in range(number)]
    if not isinstance(codes, list) or len(codes) != number or len({str(code) for code in codes}) != number:
        raise UserError(f"{where}: langs is {codes!r:.200}; it has to list n_langs ({number}) different codes")
    return tuple(map(str, codes))


def _tensors(folder: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Where the weights are, and all of them, by the names of the Flax format without its `layers_`; kernels `[in, out]`."""
    if (folder / WEIGHTS_FILE).is_file() or (folder / INDEX_FILE).is_file():
        stored = stored_tensors(folder)
        return f"the weights in {folder}", dict(_of_torch(name, read_tensor(stored, name)) for name in stored)
    if (folder / MSGPACK).is_file():
        return str(folder / MSGPACK), dict(_of_flax(*item) for item in read_arrays(folder / MSGPACK).items())
    raise UserError(f"{folder} is not a whole hypernetwork: {WEIGHTS_FILE} or {MSGPACK} is missing")


def _of_flax(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    name = re.sub(r"\blayers_(\d+)", r"\1", name)
    return name.replace("model.embeddings.lang_embedding.", "lang_embeddings."), value


def _of_torch(name: str, value: np.ndarray) -> tuple[str, np.ndarray]:
    module, _, leaf = name.rpartition(".")
    if leaf != "weight":
        return name, value
    if module.endswith("_embeddings"):
        return f"{module}.embedding", value
    return (f"{module}.scale", value) if value.ndim == 1 else (f"{module}.kernel", value.T)


class _Reader:
    """Takes the tensors of a file as parts of our Hypernet, and notes in `faults` those that are missing or misshapen."""

    def __init__(self, tensors: dict[str, np.ndarray], config: HypernetConfig):
        self.left = {name: value for name, value in tensors.items() if not UNREAD.fullmatch(name)}
        self.faults: list[str] = []
        self.config = config

    def take(self, name: str, *shape: int) -> np.ndarray:
        value = self.left.pop(name, None)
        if value is None or value.shape != shape:
            found = "missing" if value is None else f"{list(value.shape)}, not {list(shape)}"
            self.faults.append(f"{name} is {found}")
            return np.zeros(shape, np.float32)
        return np.asarray(value, np.float32)

    def dense(self, name: str, n_in: int, n_out: int) -> dict:
        return {"kernel": self.take(f"{name}.kernel", n_in, n_out), "bias": self.take(f"{name}.bias", n_out)}

    def norm(self, name: str) -> dict:
        return {"scale": self.take(f"{name}.scale", self.config.width), "bias": self.take(f"{name}.bias", self.config.width)}

    def projector(self, name: str) -> dict:
        w, f = self.config.width, self.config.feed_forward
        up, down = self.dense(f"{name}.dense1", w, f), self.dense(f"{name}.dense2", f, w)
        return {"up": up, "down": down, "norm": self.norm(f"{name}.ln")}

    def layer(self, name: str) -> dict:
        w, f = self.config.width, self.config.feed_forward
        parts = [self.dense(f"{name}.attention.self.{part}", w, w) for part in ("query", "key", "value")]
        # Ours keeps query, key and value of a head together.
        by_head = [{key: x.reshape(*x.shape[:-1], self.config.heads, -1) for key, x in part.items()} for part in parts]
        qkv = {key: np.concatenate([part[key] for part in by_head], -1) for key in by_head[0]}
        return {
            "qkv": {"kernel": qkv["kernel"].reshape(w, 3 * w), "bias": qkv["bias"].reshape(3 * w)},
            "out": self.dense(f"{name}.attention.output.dense", w, w),
            "norm_attention": self.norm(f"{name}.attention.output.LayerNorm"),
            "up": self.dense(f"{name}.intermediate.dense", w, f),
            "down": self.dense(f"{name}.output.dense", f, w),
            "norm_mlp": self.norm(f"{name}.output.LayerNorm"),
        }

    def scale(self, columns: int, *names: str) -> dict:
        """Factors for `columns` columns, those of all `names` side by side; without names, factors that change nothing."""
        if not names:
            return {"scale": np.ones(columns, np.float32), "shift": np.zeros(columns, np.float32)}
        parts = [[self.take(f"{name}.{key}", 1, columns // len(names))[0] for name in names] for key in ("w", "b")]
        return {"scale": np.concatenate(parts[0]), "shift": np.concatenate(parts[1])}

    def heads(self, sides: int, d: int, *, single: bool) -> dict:
        """One head for each side of the rows, of d columns."""
        w = self.config.width
        if not single:
            names = ("output_projection", "output_projection_out")[:sides]
            return {
                i: {"projector": self.projector(f"{name}.0"), "dense": self.dense(f"{name}.1", w, d)}
                for i, name in enumerate(names)
            }
        # One head for both kinds of rows is two heads with the same projector.
        shared, both = self.projector("output_projection.0"), self.dense("output_projection.1", w, sides * d)
        return {
            i: {"projector": shared, "dense": {key: x[..., i * d : (i + 1) * d] for key, x in both.items()}}
            for i in range(sides)
        }

    def positions(self) -> np.ndarray:
        """Of each piece of a token. Every position is of the one token type there is."""
        table, w = "model.embeddings.position_embeddings.embedding", self.config.width
        number = self.left[table].shape[0] if table in self.left else 514
        if number < self.config.max_pieces:
            self.faults.append(f"{table} has {number} rows for hn_surface_maxlen {self.config.max_pieces}")
        rows = self.take(table, number, w)[: self.config.max_pieces]
        return rows + self.take("model.embeddings.token_type_embeddings.embedding", 1, w)


def _params(tensors: dict, where: str, c: HypernetConfig, d: int, tied: bool, content: dict) -> dict:
    """The parameters of our Hypernet. UserError names all tensors that are missing, misshapen or unknown."""
    read, sides = _Reader(tensors, c), 1 if tied else 2
    e, rescaled = sides * d, content.get("hn_rescale_embeddings")
    params: dict = {
        "piece": read.dense("input_projection.0", e, c.width),
        "projector": read.projector("input_projection.1"),
        "positions": read.positions(),
        "norm_pieces": read.norm("model.embeddings.LayerNorm"),
        "layers": {i: read.layer(f"model.encoder.layer.{i}") for i in range(c.layers)},
        "heads": read.heads(sides, d, single=bool(content.get("hn_single_head"))),
        "fallback": read.take("fallback_embeddings.embedding", c.fallback_rows, e),
        "scale_in": read.scale(e, *["in_scaler"] * bool(rescaled)),
        "scale_out": read.scale(e, *(("scaler", "out_scaler")[:sides] if rescaled else ())),
    }
    if c.languages:
        params["languages"] = read.take("lang_embeddings.embedding", len(c.languages), c.width)
    if content.get("hn_predict_bias", True):
        head = read.dense("bias_projection", c.width, 1)
        params |= {"bias": head} if c.bias else {}
    faults = read.faults + [f"{name} is not known" for name in sorted(read.left)]
    if faults:
        more = f" and {len(faults) - 12} more" if len(faults) > 12 else ""
        raise UserError(f"{where} does not fit its config.json: {'; '.join(faults[:12])}{more}")
    return params
