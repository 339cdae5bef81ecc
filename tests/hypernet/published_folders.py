"""Folders in the form of the published hypernetworks, and what they are called with."""

import json
from pathlib import Path

import numpy as np
import tokenizers as tk
from hypernet.golden import make_published as golden
from hypernet.networks import base_of
from safetensors.numpy import load_file, save_file

from zett.hypernet.published import MSGPACK
from zett.lms.base import BaseModel
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary

FORMATS = ("model.safetensors", MSGPACK)


def stored(name: str) -> dict[str, np.ndarray]:
    return load_file(golden.FOLDER / f"published-{name}.safetensors")


def weights_of(tensors: dict) -> dict[str, np.ndarray]:
    return {name.removeprefix("weights."): x for name, x in tensors.items() if name.startswith("weights.")}


def write(folder: Path, config: dict, weights: dict, file: str = "model.safetensors") -> Path:
    """With a source tokenizer of characters."""
    folder.mkdir(parents=True, exist_ok=True)
    characters_into(folder, config)
    (folder / "config.json").write_text(json.dumps(config))
    if file == MSGPACK:
        from flax.serialization import msgpack_serialize

        (folder / file).write_bytes(msgpack_serialize(golden.flax_tree(weights)))
    else:
        save_file({name: np.ascontiguousarray(x) for name, x in weights.items()}, folder / file)
    return folder


def characters(size: int):
    """A tokenizer of `size` single characters, so that every sequence of ids is the form of some token."""
    return tk.Tokenizer(tk.models.BPE({chr(0x4E00 + i): i for i in range(size)}, []))


def characters_into(folder: Path, config: dict) -> None:
    """The source tokenizer of a published hypernetwork: the base model's ids, and those of fallback rows."""
    characters(config.get("original_vocab_size", 0) + max(config.get("hn_n_extra_tokens", 0), 0)).save(
        str(folder / "tokenizer.json")
    )


def tokens_of(pieces, pad: int = 1) -> tuple[bytes, ...]:
    """Tokens that `characters` takes apart into these ids, but for padding."""
    return tuple("".join(chr(0x4E00 + i) for i in row if i != pad).encode() for row in np.asarray(pieces).tolist())


def vocabulary_with(tokens, **special: int) -> Vocabulary:
    """Of the tokens; special: ids by role."""
    texts = {f"<{role}>": i for role, i in special.items()}
    return Vocabulary(tuple(tokens), texts, special, np.zeros(len(tokens), np.float32), "BPE", (), None)


def base_with(given: dict, hypernet, bias: np.ndarray | None = None, **special: int) -> BaseModel:
    """A base model of the source rows and the tokenizer of the hypernetwork."""
    rows, d = given["source_embeddings"], hypernet.hidden_size
    table = EmbeddingTable.of(rows[:, :d], None if hypernet.tied else rows[:, d:], bias)
    return base_of(table, vocabulary_with(tokens_of(np.arange(len(rows))[:, None], pad=-1), **special))


def predict(hypernet, given: dict, **how) -> EmbeddingTable:
    """The table for given surface forms; with the bias of a masked language model where that is predicted."""
    bias = np.zeros(len(given["source_embeddings"]), np.float32) if hypernet.config.bias else None
    if hypernet.config.languages:
        how = {"language": int(given["lang_index"].reshape(-1)[0])} | how
    return hypernet(base_with(given, hypernet, bias), vocabulary_with(tokens_of(given["surface_forms"])), **how)


def compare(table: EmbeddingTable, expected: dict) -> None:
    for name, rows in (("in", table.input), ("out", table.output), ("bias", table.bias)):
        if rows is not None:
            np.testing.assert_allclose(rows, expected[f"predicted_{name}"], atol=1e-5)
