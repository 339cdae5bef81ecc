"""Rows of single tokens: those of a whole table, whatever they are asked for with, kept within bounds."""

import dataclasses
import json

import numpy as np
import pytest
import tokenizers as tk
from hypernet.golden import make_published as golden
from hypernet.networks import CONFIG, UNTIED, base_of, table_for, trained_for
from hypernet.published_folders import base_with, stored, tokens_of, vocabulary_with
from vocabularies import vocabulary

from zett.errors import UserError
from zett.hypernet.embed import Embedder
from zett.hypernet.network import predict_rows
from zett.hypernet.release import load_hypernet
from zett.table import EmbeddingTable
from zett.vocab.load import vocabulary_of

pytestmark = pytest.mark.xdist_group("hypernet")
TOL = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def base():
    return base_of(table_for(vocabulary("bpe", 400)), vocabulary("bpe", 400))


def same(found: EmbeddingTable, table: EmbeddingTable, ids) -> None:
    for mine, theirs in ((found.input, table.input), (found.output, table.output), (found.bias, table.bias)):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            np.testing.assert_allclose(mine, np.asarray(theirs)[ids], **TOL)


@pytest.mark.parametrize(
    ("setting", "kind"), [("plain", "unigram"), ("untied", "bpe"), ("distance", "bpe"), ("bias", "unigram")]
)
def test_rows_are_those_of_the_whole_table(setting, kind):
    """Of tokens that stand in the vocabulary around them, whichever number of them is asked for."""
    source, target = vocabulary("bpe", 400), vocabulary(kind, 600)
    table = table_for(source, tied=setting in ("untied", "bias"))
    if setting == "bias":
        table = EmbeddingTable.of(table.input, None, np.random.default_rng(2).normal(size=len(source)).astype(np.float32))
    config = {
        "distance": dataclasses.replace(CONFIG, distance=True), "untied": UNTIED, "bias": dataclasses.replace(CONFIG, bias=True)
    }.get(setting, CONFIG)  # fmt: skip
    base = base_of(table, source)
    hypernet = trained_for(base, config)
    expected = hypernet(base, target)
    ids = np.asarray([i for token, i in target.id_of.items()])
    embedder = Embedder(hypernet, base, around=target, kept=0)
    for some in (ids[:1], ids[3:10], ids):  # one, a batch, and more than are read at once
        same(embedder([target.tokens[i] for i in some]), expected, some)


def test_a_new_token_is_read_as_the_next_one(base):
    """As in the table of a tokenizer with one more merge."""
    hypernet, old = trained_for(base), vocabulary("bpe", 400)
    spec = old.tokenizer.to_str()
    tokenizer = tk.Tokenizer.from_str(spec)
    state = json.loads(spec)
    pair = next((a, b) for a in sorted(state["model"]["vocab"]) for b in ("ing", "e") if a + b not in state["model"]["vocab"])
    state["model"]["vocab"]["".join(pair)] = tokenizer.get_vocab_size()
    state["model"]["merges"].append(list(pair))
    grown = vocabulary_of(tk.Tokenizer.from_str(json.dumps(state)))
    assert len(grown) == len(old) + 1 and grown.tokens[-1] not in old.id_of
    expected = hypernet(base, grown)
    same(hypernet.embed([grown.tokens[-1]], base), expected, [-1])


def test_texts_bytes_and_repetitions(base):
    hypernet = trained_for(base)
    found = hypernet.embed([" return", b" return", "zzz", b"\xff\x00", "zzz", " return"], base)
    alone = [hypernet.embed([token], base) for token in (" return", "zzz", b"\xff\x00")]  # as they are kept
    for i, k in enumerate((0, 0, 1, 2, 1, 0)):
        np.testing.assert_array_equal(found.input[i], alone[k].input[0])
        np.testing.assert_array_equal(found.output[i], alone[k].output[0])
    assert (np.abs(found.input[0] - found.input[2]) > 0).any()
    assert hypernet.embed([], base).input.shape == (0, 12)
    with pytest.raises(UserError, match="a token is empty"):
        hypernet.embed(["a", ""], base)


def test_what_is_kept_is_bounded_and_the_last(base):
    embedder = Embedder(trained_for(base), base, kept=3)
    first = embedder(["aa", "bb", "cc"])
    embedder(["aa"])
    embedder(["dd"])
    assert list(embedder._rows) == [b"cc", b"aa", b"dd"] and "3 rows kept" in repr(embedder)
    many = embedder([f"x{i}" for i in range(9)] + ["aa"])
    assert len(embedder._rows) == 3 and b"aa" in embedder._rows
    np.testing.assert_array_equal(many.input[-1], first.input[0])


def test_few_programs_are_compiled(base):
    """Eight numbers of tokens make a handful of shapes."""
    embedder = Embedder(trained_for(base), base, kept=0)
    before, tokens = predict_rows._cache_size(), [f"{a}{b}q" for a in "abcdefgh" for b in "stuvwxyz"]
    for number in range(1, 9):
        embedder(tokens[:number])
    assert predict_rows._cache_size() - before <= 6


@pytest.mark.parametrize("case", golden.CASES)
def test_published_ones(case, folder):
    """They read no features, so that it makes no difference what is around; some know languages."""
    hypernet, given = load_hypernet(folder(case)), stored(case)
    bias = np.zeros(len(given["source_embeddings"]), np.float32) if hypernet.config.bias else None
    language = int(given["lang_index"].reshape(-1)[0]) if hypernet.config.languages else None
    base = base_with(given, hypernet, bias)
    tokens = [token for token in tokens_of(given["surface_forms"]) if token]
    found = hypernet.embed(tokens, base, language=language)
    whole = hypernet(base, vocabulary_with(tokens), **({} if language is None else {"language": language}))
    same(found, whole, np.arange(len(tokens)))
    if language is not None:
        with pytest.raises(UserError, match="needs a language"):
            hypernet.embed(tokens, base)


def test_another_base_is_refused(base):
    other = base_of(EmbeddingTable.of(base.table.input, base.table.input), base.vocab)
    with pytest.raises(UserError, match="was trained for the base model 'tiny'"):
        trained_for(base).embed(["a"], other)
