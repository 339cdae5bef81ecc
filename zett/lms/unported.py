"""The vocabulary of a model whose architecture is not ported: which of its tensors have a row for each token.

They are found by their names and by the vocabulary's size in config.json. If it is not certain which they are, the model is
refused.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from zett.errors import UserError
from zett.files.tensors import FLOATS, Stored, listed, read_tensor, same
from zett.lms.weights import VocabularyNames

# The part of a name before ".weight" or ".bias", which says in nearly every architecture what a tensor is for.
INPUT = (
    "embed_tokens", "wte", "word_embeddings", "word_embedding", "word_embed", "embed_in", "tok_embeddings", "token_embedding",
    "token_embeddings", "tokens_embed", "embeddings", "embedding", "embed", "shared",
)  # fmt: skip
OUTPUT = ("lm_head", "output", "embed_out", "head", "decoder", "output_layer", "vocab_projector", "generator_lm_head", "proj")
PER_LAYER = "embed_tokens_per_layer"
# Model types whose positions count from the padding id, as RoBERTa's do.
PADDED_POSITIONS = (
    "camembert data2vec-text esm ibert layoutlmv3 lilt longformer luke m2m_100 markuplm mpnet nllb-moe roberta "
    "roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod"
).split()


def find_names(hf_config: dict, stored: Mapping[str, Stored], folder: Path) -> VocabularyNames:
    """The names of the vocabulary's tensors; UserError, with the candidates, if they are not certain.

    Every tensor with a dimension of the vocabulary's size has to be known, since one that was left as it is would be wrong.
    """
    where = folder / "config.json"
    owner = vocabulary_config(hf_config, where)
    size = owner["vocab_size"]
    shaped = {name: t for name, t in stored.items() if size in t.shape or f"{PER_LAYER}." in name}
    by_use: dict[str, list[str]] = {"input": [], "output": [], "bias": [], "flat": [], "per_layer": [], "unknown": []}
    for name, tensor in shaped.items():
        *path, last = name.split(".")
        module = path[-1] if path and last in ("weight", "bias") else last
        use = "unknown"
        if len(tensor.shape) == 2 and tensor.shape[0] <= size and module == PER_LAYER:
            use = "per_layer"
        elif len(tensor.shape) == 2 and tensor.shape[0] == size:
            use = "input" if module in INPUT else "output" if module in OUTPUT else "unknown"
        elif len(tensor.shape) == 1 and last == "bias" and module in (*OUTPUT, "predictions"):
            use = "bias"
        elif tensor.shape == (1, size) and last == "final_logits_bias":
            use = "flat"
        by_use[use].append(name)
    if by_use["unknown"] or not by_use["input"]:
        raise UserError(
            f"{folder}: cannot tell which tensors have a row for each of the {size} tokens; "
            f"of the right size or name: {listed(list(shaped)) or 'none'}"
        )
    if hf_config["model_type"] == "gemma3n":
        raise UserError(
            f"{where}: in a model of type 'gemma3n', ids from a vocab_offset on are those of images and sounds, which no other "
            "tokenizer has; give its language model alone, as Gemma3nForCausalLM.from_pretrained(...).save_pretrained(...) "
            "writes it"
        )
    coded = [f"{name} is {t.dtype}" for name, t in shaped.items() if t.dtype not in FLOATS]
    if coded:
        raise UserError(f"{folder}: not one of {', '.join(FLOATS)} (quantised?): {listed(coded)}")
    for use, names in by_use.items():
        names.sort(key=len)
        if any(not same(stored, names[0], name) for name in names[1:]):
            raise UserError(f"{folder}: several tensors could be the {use} rows, and they differ: {listed(names)}")
    tied = owner.get("tie_word_embeddings", hf_config.get("tie_word_embeddings"))
    if by_use["output"] and tied is not False:
        one, other = by_use["input"][0], by_use["output"][0]
        if same(stored, one, other):  # a copy of the input rows, to be changed with them
            by_use["input"] += by_use.pop("output")
        elif tied:
            raise UserError(
                f"{where} says tie_word_embeddings, but {other} differs from {one}; "
                "if the output rows are meant, set tie_word_embeddings to false"
            )
    return VocabularyNames(**{use: tuple(names) for use, names in by_use.items() if use != "unknown"})


def per_layer_rows(stored: Mapping[str, Stored], names: VocabularyNames, size: int) -> np.ndarray:
    """The rows `[size, L * P]` of a model that has some for each layer."""
    rows = read_tensor(stored, names.per_layer[0])
    return rows[:size] if len(rows) >= size else rows[with_row(np.arange(size), len(rows))]


def with_row(ids: np.ndarray, rows: int) -> np.ndarray:
    """The ids, and 0 in place of those that have no row: Gemma 3n's table for each layer ends before the other."""
    return np.where(ids < rows, ids, 0)


# Names of modules that only vocabularies have; one of them is a part of the name of each of a vocabulary's tensors.
VOCABULARY = {"embed_tokens", "wte", "word_embeddings", "embed_in", "tok_embeddings", "lm_head", "embed_out", "output_layer"}


def check_quantised(method: str, stored: Mapping[str, Stored], folder: Path) -> None:
    """UserError if the vocabulary's rows are quantised, too. Usually they are not, and the quantised rest can be copied."""
    coded = []
    for name, tensor in stored.items():
        *path, last = name.split(".")
        if VOCABULARY & set(path) and not (last in ("weight", "bias") and path[-1] in VOCABULARY and tensor.dtype in FLOATS):
            coded.append(f"{name} is {tensor.dtype}")
    if coded:
        raise UserError(
            f"{folder} is quantised with {method}, and so are the rows of its vocabulary: {listed(coded)}; give the model "
            "that it was made from"
        )


# The part of a larger model's config.json that is the language model's.
TEXT_PARTS = ("text_config", "language_config", "llm_config")


def vocabulary_config(hf_config: dict, where: Path) -> dict:
    """The part of config.json with the vocabulary's size: the whole, or the part of the language model in a larger model."""
    text = [hf_config[name] for name in TEXT_PARTS if isinstance(hf_config.get(name), dict)]
    sized = [part for part in text if isinstance(part.get("vocab_size"), int)]
    # Other parts may have a vocab_size, too: of a sound's codes, or one that means nothing.
    parts = [hf_config] if "vocab_size" in hf_config else sized or [c for c in hf_config.values() if isinstance(c, dict)]
    found = [part for part in parts if isinstance(part.get("vocab_size"), int)]
    if len(found) != 1:
        raise UserError(f"{where} has {'several numbers' if found else 'no number'} 'vocab_size'")
    return found[0]


def set_vocabulary_size(hf_config: dict, size: int, where: Path, names: VocabularyNames) -> None:
    """Change the vocabulary's size, also where the part of the language model repeats it. names: of its tensors."""
    owner = vocabulary_config(hf_config, where)
    before = owner["vocab_size"]
    for part in (owner, *(hf_config.get(name) for name in TEXT_PARTS)):
        if isinstance(part, dict) and part.get("vocab_size") == before:
            part["vocab_size"] = size
    if names.per_layer:
        owner["vocab_size_per_layer_input"] = size
