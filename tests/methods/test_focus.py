"""FOCUS: against its formula in float64, against deepfocus, and vectors that do not help."""

import dataclasses
import logging
import re
import types

import numpy as np
import pytest
import tiny
from methods.test_similarity import plain_sparsemax
from methods.vector_files import write_text

from zett.errors import UserError
from zett.lms import load_base_model
from zett.lms.base import BaseModel
from zett.methods import make_method
from zett.methods.token_vectors import spellings, train_vectors
from zett.table import EmbeddingTable
from zett.vocab import Vocabulary, load_tokenizer


@pytest.fixture(scope="module")
def base(base_folder) -> BaseModel:
    base = load_base_model(base_folder, body=False)
    rows = [np.asarray(x, np.float32) for x in (base.table.input, base.table.output)]
    return dataclasses.replace(base, table=EmbeddingTable.of(*rows, rows[1][:, 0]))


@pytest.fixture(scope="module")
def target(target_folder) -> Vocabulary:
    return load_tokenizer(target_folder)


@pytest.fixture(scope="module")
def vectors(target) -> np.ndarray:
    """Of all tokens but some."""
    made = np.random.default_rng(0).standard_normal((len(target), 12))
    made[np.random.default_rng(1).random(len(target)) < 0.2] = 0
    return made


def saved(folder, target: Vocabulary, vectors: np.ndarray):
    named = {name: row for name, row in zip(spellings(target), vectors) if name and row.any()}
    return write_text(folder / "tokens.vec", named)


def test_rows_are_those_of_the_formula(base, target, vectors, tmp_path):
    out = make_method(f"focus:{saved(tmp_path, target, vectors)}")(base, target)
    text = [i for i, token in enumerate(target.tokens) if token]
    shared = [i for i in text if target.tokens[i] in base.vocab.id_of and vectors[i].any()]
    source = [base.vocab.id_of[target.tokens[i]] for i in shared]
    new = [i for i in text if target.tokens[i] not in base.vocab.id_of]
    fvt = make_method("fvt")(base, target)
    anchors = vectors[shared] / np.linalg.norm(vectors[shared], axis=1, keepdims=True)
    assert any(vectors[i].any() for i in new) and not all(vectors[i].any() for i in new)
    for i in new:
        for found, ours, means in zip(_sides(out), _sides(base.table), _sides(fvt)):
            expected = means[i]
            if vectors[i].any():
                weights = plain_sparsemax(anchors @ vectors[i] / np.linalg.norm(vectors[i]))
                expected = weights @ ours.astype(np.float64)[source]
            np.testing.assert_allclose(found[i], expected, atol=1e-4)
    for i in text:
        if target.tokens[i] in base.vocab.id_of:
            np.testing.assert_array_equal(out.input[i], base.table.input[base.vocab.id_of[target.tokens[i]]])


def _sides(table: EmbeddingTable) -> list[np.ndarray]:
    return [np.asarray(table.input), np.asarray(table.output), np.asarray(table.bias)[:, None]]


def test_against_deepfocus(base, target, vectors, tmp_path):
    """The rows that the authors' package makes of the same vectors, where it is installed."""
    focus = pytest.importorskip("deepfocus.focus", reason="deepfocus is not installed", exc_type=ImportError)
    torch = pytest.importorskip("torch")
    out = make_method(f"focus:{saved(tmp_path, target, vectors)}")(base, target)

    def token(i: int):
        own = base.vocab.id_of.get(target.tokens[i])
        row = None if own is None else torch.from_numpy(np.array(base.table.input[own]))
        aux = vectors[i].astype(np.float32)
        return types.SimpleNamespace(target=types.SimpleNamespace(id=i), auxiliary_embedding=aux, source_embedding=row)

    known = [token(i) for i, t in enumerate(target.tokens) if t and vectors[i].any()]
    shared, new = ({str(t.target.id): t for t in known if (t.source_embedding is None) == is_new} for is_new in (False, True))
    made = focus.focus_additional_token_initialization(shared, new, torch.zeros(out.input.shape), device="cpu").numpy()
    ids = [t.target.id for t in new.values()]
    assert len(ids) > 30
    np.testing.assert_allclose(np.asarray(out.input)[ids], made[ids], atol=1e-4)


def test_words_without_their_spaces(base, target, tmp_path):
    words = {token.decode("utf-8", "replace").strip() for token in target.tokens} - {""}
    rng = np.random.default_rng(0)
    file = write_text(tmp_path / "words.vec", {word: rng.standard_normal(8) for word in sorted(words) if " " not in word})
    out = make_method(f"focus:{file}")(base, target)
    assert not np.allclose(out.input, make_method("fvt")(base, target).input)


def test_vectors_trained_on_text(base, target, corpus, tmp_path, caplog):
    pytest.importorskip("gensim", reason="gensim is not installed", exc_type=ImportError)
    settings = {"text_bytes": 50_000, "size": 16, "epochs": 2, "least": 5}
    found = train_vectors(str(corpus), target, **settings, seed=0)
    np.testing.assert_array_equal(found, train_vectors(str(corpus), target, **settings, seed=0))
    assert found.shape == (len(target), 16) and 0.1 < found.any(1).mean() < 1
    (tmp_path / "train.txt").write_text("".join(tiny.TEXT) * 20)
    (tmp_path / "valid.txt").write_text("x")
    with caplog.at_level(logging.WARNING, "zett"):
        make_method(f"focus:text={tmp_path},least=80,size=8,epochs=1")(base, target)
    assert re.search(r"has vectors for \d+ of the \d+ new tokens; the rest get FVT's rows", caplog.text)
    with pytest.raises(UserError, match=r"the text .* has vectors for 0 of the \d+ new tokens"):
        make_method(f"focus:text={corpus},least=1000000")(base, target)


def refused(message: str, base: BaseModel, target: Vocabulary, spec: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make_method(spec)(base, target)
    assert "\n" not in str(error.value)


def test_help_that_does_not_help(base, target, vectors, tmp_path, monkeypatch):
    refused("method focus needs vectors=FILE or text=TEXT, and none is; give one", base, target, "focus")
    refused("and both are given; give one", base, target, "focus:a,text=python")
    refused("method focus: size is 0; it has to be at least 1", base, target, "focus:a,size=0")
    refused("there is no file .*nowhere with word vectors", base, target, f"focus:{tmp_path / 'nowhere'}")
    other = write_text(tmp_path / "other.vec", {"zzz": np.ones(3)})
    refused(r"other.vec has vectors for 0 of the \d+ new tokens; at least half need one", base, target, f"focus:{other}")
    few = np.where(np.asarray([t in base.vocab.id_of for t in target.tokens])[:, None], 0, vectors)
    few[[target.id_of[b"a"], target.id_of[b"e"]]] = 1
    file = saved(tmp_path, target, few)
    refused("the target tokenizer share 2 tokens that have a vector; at least 32 are needed", base, target, f"focus:{file}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refused("method focus: training vectors on text takes a package: pip install gensim", base, target, "focus:text=python")
