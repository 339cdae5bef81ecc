"""WECHSEL and OFA: against their formulas in float64, against wechsel, and help that does not help."""

import dataclasses

import numpy as np
import pytest
from methods.vector_files import write_binary, write_text

from zett.errors import UserError
from zett.lms import load_base_model
from zett.lms.base import BaseModel
from zett.methods import make_method
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary, load_tokenizer

RNG = np.random.default_rng(0)
ENGLISH = [f"{a}{b}" for a in "the dump load import path from tests value number hold".split() for b in ("", "s", "ing", "er")]
GERMAN = [word[::-1] for word in ENGLISH] + ["import", "tokenizer", "folder", "family", "return", "several", "config", "hidden"]
ROTATION = np.linalg.qr(RNG.standard_normal((8, 8)))[0]
SOURCE = {word: RNG.standard_normal(8) for word in ENGLISH}
TARGET = {word: RNG.standard_normal(8) for word in GERMAN} | {word[::-1]: row @ ROTATION for word, row in SOURCE.items()}


@pytest.fixture(scope="module")
def base(base_folder) -> BaseModel:
    base = load_base_model(base_folder, body=False)
    rows = [np.asarray(x, np.float32) for x in (base.table.input, base.table.output)]
    return dataclasses.replace(base, table=EmbeddingTable.of(*rows, rows[1][:, 0]))


@pytest.fixture(scope="module")
def target(target_folder) -> Vocabulary:
    return load_tokenizer(target_folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory, target) -> dict[str, str]:
    """Vectors of two languages, and a dictionary. The target's words are also its tokens, so that most have a vector."""
    folder = tmp_path_factory.mktemp("vectors")
    words = {token.decode("utf-8", "replace").strip(): None for token in target.tokens} | TARGET
    made = {word: TARGET.get(word, np.random.default_rng(len(word)).standard_normal(8)) for word in words if word.isalpha()}
    (folder / "dictionary").write_text("".join(f"{word}\t{word[::-1]}\n" for word in ENGLISH))
    return {
        "vectors": str(write_text(folder / "target.vec", made)),
        "source_vectors": str(write_binary(folder / "source.bin", SOURCE)),
        "dictionary": str(folder / "dictionary"),
    }


def parsed(file: str) -> dict[str, np.ndarray]:
    lines = [line.split(" ") for line in open(file, encoding="utf-8").read().splitlines()[1:]]
    return {word: np.asarray(list(map(float, values))) for word, *values in lines}


def plain_means(vectors: dict[str, np.ndarray], vocab: Vocabulary, weight) -> np.ndarray:
    """A token's vector: the mean over the words, and forms of a word, that have it."""
    rows = np.zeros((len(vocab), 8))
    for i in range(len(vocab)):
        found = []
        for rank, (word, row) in enumerate(vectors.items()):
            for form in (word, " " + word):
                if i in vocab.tokenizer.encode(form, add_special_tokens=False).ids:
                    found.append((weight(rank), row))
        if found:
            rows[i] = sum(w * row for w, row in found) / sum(w for w, _ in found)
    return rows


def plain_similarities(source: np.ndarray, vector: np.ndarray) -> np.ndarray:
    similar = source @ vector / np.maximum(np.linalg.norm(source, axis=1), 1e-12) / np.linalg.norm(vector)
    return np.where(source.any(1), similar, -np.inf)


def plain_rows(source: np.ndarray, vectors: np.ndarray, rows: np.ndarray, ids) -> np.ndarray:
    """By the ten source tokens with the largest cosine."""
    out = []
    for i in ids:
        similar = plain_similarities(source, vectors[i])
        best = np.argsort(-similar)[:10]
        weights = np.exp(similar[best] / 0.1)
        out.append(weights @ rows[best] / weights.sum())
    return np.asarray(out)


def new_and_known(base, target, vectors, source) -> list[int]:
    """Without tokens whose tenth and eleventh neighbour are equally near, as tokens are that are in the same words."""
    ids = [i for i, t in enumerate(target.tokens) if t and t not in base.vocab.id_of and vectors[i].any()]
    ordered = {i: np.sort(plain_similarities(source, vectors[i]))[::-1] for i in ids}
    ids = [i for i in ids if ordered[i][9] - ordered[i][10] > 1e-5]
    assert len(ids) > 20
    return ids


def by_rank(rank: int) -> float:
    return 1 / (rank + 1)


def test_wechsel_is_its_formula(base, target, files):
    out = make_method("wechsel", **files)(base, target)
    vectors = plain_means(parsed(files["vectors"]), target, by_rank)
    source = plain_means(SOURCE, base.vocab, by_rank) @ ROTATION  # which the dictionary gives exactly
    ids = new_and_known(base, target, vectors, source)
    for found, rows in [(out.input, base.table.input), (out.output, base.table.output), (out.bias, base.table.bias)]:
        rows = np.asarray(rows, np.float64).reshape(len(base.vocab), -1)
        expected = plain_rows(source, vectors, rows, ids)
        np.testing.assert_allclose(np.asarray(found)[ids].reshape(expected.shape), expected, atol=1e-4)
    shared = [i for i, t in enumerate(target.tokens) if t in base.vocab.id_of]
    np.testing.assert_array_equal(out.input[shared], base.table.input[[base.vocab.id_of[target.tokens[i]] for i in shared]])


@pytest.mark.parametrize("dimension", [5, None])
def test_ofa_is_its_formula(dimension, base, target, files):
    out = make_method("ofa", vectors=files["vectors"], dimension=dimension)(base, target)
    words = parsed(files["vectors"])
    vectors, source = (plain_means(words, vocab, lambda rank: 1) for vocab in (target, base.vocab))
    ids = new_and_known(base, target, vectors, source)
    for found, rows in [(out.input, base.table.input), (out.output, base.table.output)]:
        left, values, right = np.linalg.svd(np.asarray(rows, np.float64), full_matrices=False)
        coordinates, primitives = left[:, :dimension], values[:dimension, None] * right[:dimension]
        expected = plain_rows(source, vectors, coordinates, ids) @ primitives
        np.testing.assert_allclose(np.asarray(found)[ids], expected, atol=1e-4)


def test_against_wechsel(base, target, files, monkeypatch):
    """The rows that the authors' package makes of the same vectors, where it is installed."""
    wechsel = pytest.importorskip("wechsel", reason="wechsel is not installed", exc_type=ImportError)
    from gensim.models import Word2Vec

    def model(vectors):
        made = Word2Vec(vector_size=8, min_count=1)
        made.build_vocab([[word] for word in vectors])
        made.wv.index_to_key = list(vectors)
        made.wv.key_to_index = {word: i for i, word in enumerate(vectors)}
        made.wv.vectors = np.stack(list(vectors.values())).astype(np.float32)
        made.wv.expandos["count"] = 1 / np.arange(1, len(vectors) + 1)
        return made

    their = wechsel.WECHSEL(model(SOURCE), model(parsed(files["vectors"])), bilingual_dictionary=files["dictionary"])
    sides = [Fast(vocab) for vocab in (base.vocab, target)]
    rows = np.asarray(base.table.input, np.float64)
    made, info = their.apply(*sides, rows, use_subword_info=False)
    out = make_method("wechsel", **files)(base, target)
    vectors = plain_means(parsed(files["vectors"]), target, by_rank)
    new = new_and_known(base, target, vectors, plain_means(SOURCE, base.vocab, by_rank) @ ROTATION)
    assert not {target.tokenizer.id_to_token(i) for i in new} & set(info.not_found)
    np.testing.assert_allclose(np.asarray(out.input)[new], made[new], atol=1e-4)


class Fast:
    """A tokenizer as far as wechsel asks it, without Transformers."""

    def __init__(self, vocab: Vocabulary):
        self.tokenizer, self.vocab, self.special_tokens_map = vocab.tokenizer, vocab.tokenizer.get_vocab(), {}

    def __len__(self):
        return len(self.vocab)

    def get_vocab(self):
        return self.vocab

    def encode(self, text, add_special_tokens):
        return self.tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def convert_ids_to_tokens(self, ids):
        return self.tokenizer.id_to_token(int(ids)) if np.ndim(ids) == 0 else [self.tokenizer.id_to_token(int(i)) for i in ids]


def test_help_that_does_not_help(base, target, files, tmp_path):
    def refused(message: str, name: str, **settings) -> None:
        with pytest.raises(UserError, match=message) as error:
            make_method(name, **settings)(base, target)
        assert "\n" not in str(error.value)

    refused("method wechsel needs word vectors: ", "wechsel")
    refused("method ofa needs word vectors of both languages", "ofa")
    refused("dictionary is given, but source_vectors", "wechsel", **{k: files[k] for k in ("vectors", "dictionary")})
    refused("temperature is 0.0; it has to be greater than 0", "wechsel", vectors="x", temperature=0.0)
    refused("dimension is 0; it has to be at least 1", "ofa", vectors="x", dimension=0)
    wide = str(write_text(tmp_path / "wide.vec", {"a": np.ones(9)}))
    for name in ("wechsel", "ofa"):
        message = f"method {name}: the vectors .*wide.vec have 9 numbers, those of .*target.vec 8; they have to have as many"
        refused(message, name, vectors=files["vectors"], source_vectors=wide)
        one = str(write_text(tmp_path / "one.vec", {"ß": np.ones(9)}))
        refused(f"method {name}: .*one.vec has vectors for .* new tokens; at least half need one", name, vectors=one)
    (tmp_path / "three").write_text("a\tb\nc\td\te\n")
    (tmp_path / "few").write_text("the eht\n\nzzz yyy\n")
    for name, message in [
        ("three", "three, line 2: 3 columns; it has to have a word and its translation"),
        ("few", "few has 1 pairs of words that are in .*; at least 10 are needed"),
        ("nowhere", "the dictionary .*nowhere cannot be read"),
    ]:
        refused(message, "wechsel", **files | {"dictionary": str(tmp_path / name)})
