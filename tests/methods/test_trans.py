"""Trans-tokenization: word alignment and rows against plain formulas in float64."""

import collections
import math

import numpy as np
import pytest
import tiny
from encoders import BERT, own_tokenizer

from zett.errors import UserError
from zett.lms import load_base_model
from zett.lms.base import BaseModel
from zett.methods import make_method
from zett.methods.trans import token_counts, words_in_tokens
from zett.methods.word_alignment import NONE, STEPS, TENSION, estimate, numbered
from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.load import vocabulary_of

WORDS = "the folder holds a model of tokens rows text bytes names kinds values".split()
TRANSLATION = {word: word[::-1] + "q" for word in WORDS} | {"the": "def tokenizer", "model": "returns"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> BaseModel:
    return load_base_model(tiny.base_folder(tmp_path_factory.mktemp("base") / "model", dtype="float32"), body=False)


@pytest.fixture(scope="module")
def target(target_folder) -> Vocabulary:
    return load_tokenizer(target_folder)


@pytest.fixture(scope="module")
def lines() -> list[tuple[str, str]]:
    """Translated word by word, two words swapped in each second line."""
    rng, made = np.random.default_rng(0), []
    for i in range(300):
        words = rng.choice(WORDS, rng.integers(2, 9)).tolist()
        there = [TRANSLATION[word] for word in words]
        if i % 2:
            there[0], there[1] = there[1], there[0]
        made.append((" ".join(words), " ".join(there)))
    return made


@pytest.fixture(scope="module")
def parallel(lines, tmp_path_factory):
    file = tmp_path_factory.mktemp("parallel") / "text.tsv"
    file.write_text("".join(f"{a}\t{b}\n" for a, b in lines), encoding="utf-8")
    return file


def plain_estimate(lines: list[tuple[list[str], list[str]]]) -> dict[tuple[str, str], float]:
    """Expectation maximisation with dictionaries, word by word."""
    size = len({word for _, there in lines for word in there})
    table, none = collections.defaultdict(lambda: 1 / size), collections.defaultdict(lambda: 1 / size)
    for _ in range(STEPS):
        counts, nothing = collections.Counter(), collections.Counter()
        for ours, theirs in lines:
            for j, word in enumerate(theirs, 1):
                prior = [math.exp(-TENSION * abs(i / len(ours) - j / len(theirs))) for i in range(1, len(ours) + 1)]
                parts = [(1 - NONE) * p / sum(prior) * table[a, word] for p, a in zip(prior, ours)]
                total = sum(parts) + NONE * none[word]
                for part, a in zip(parts, ours):
                    counts[a, word] += part / total
                nothing[word] += NONE * none[word] / total
        totals = collections.Counter()
        for (a, _), count in counts.items():
            totals[a] += count
        table = {pair: count / totals[pair[0]] for pair, count in counts.items()}
        none = {word: count / sum(nothing.values()) for word, count in nothing.items()}
    return counts


def test_the_estimate_is_expectation_maximisation(lines):
    split = [(a.split(), b.split()) for a, b in lines[:60]] + [([], ["x"]), (["the"], [])]
    (ours, our_words), (theirs, their_words) = (numbered([line[side] for line in split]) for side in (0, 1))
    pairs, counts = estimate(ours, theirs)
    found = {(our_words[a], their_words[b]): count for (a, b), count in zip(pairs, counts)}
    expected = plain_estimate(split[:60])
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[pair] for pair in expected], list(expected.values()), atol=1e-4)


def test_it_finds_the_translations(lines):
    sides = [numbered([line[side].split() for line in lines]) for side in (0, 1)]
    pairs, counts = estimate(sides[0][0], sides[1][0])
    for number, word in enumerate(sides[1][1]):
        some = pairs[:, 1] == number
        best = sides[0][1][pairs[some, 0][counts[some].argmax()]]
        assert word in TRANSLATION[best].split()


def test_words_are_cut_where_spaces_are(target):
    text = "  def  tokenizer(folder)\n x é"
    words = words_in_tokens(text, target)
    assert len(words) == 4
    spelled = [b"".join(target.tokens[i] for i in word).strip() for word in words]
    assert spelled == [b"def", b"tokenizer(folder)", b"x", "é".encode()]
    unknown = vocabulary_of(own_tokenizer(BERT, lower=True))  # a WordPiece, for which Chinese signs are [UNK]
    [word] = words_in_tokens("def(日", unknown)
    assert b"".join(unknown.tokens[i] for i in word).strip() == b"def("
    assert words_in_tokens("", target) == [] and words_in_tokens(" \n", target) == []


def test_counts_of_words_become_counts_of_tokens():
    sums = token_counts([(1,), (2, 3), ()], [(7,), (8, 9, 9), (7,)], np.asarray([4.0, 6.0, 100.0]))
    assert sums[7] == {1: 4}
    # All pairs: 3 / 2 each. In place, 2 2 2 3 3 3 beside 8 8 9 9 9 9: a token's 3 spread over its places.
    assert sums[8] == pytest.approx({2: 1.5 + 3, 3: 1.5})
    assert sums[9] == pytest.approx({2: 2 * 1.5 + 1.5, 3: 2 * 1.5 + 4.5})
    assert sum(sums[8].values()) == pytest.approx(6) and sum(sums[9].values()) == pytest.approx(12)


@pytest.mark.parametrize("given", [True, False])
def test_rows_are_those_of_the_formula(given, base, target, lines, parallel, tmp_path):
    settings = {"parallel": str(parallel), "least": 3}
    sides = [numbered([words_in_tokens(line[side], v) for line in lines]) for side, v in ((0, base.vocab), (1, target))]
    (ours, our_words), (theirs, their_words) = sides
    if given:
        (tmp_path / "links").write_text("".join(f"{len(ours.line(i)) - 1}-0 0-1\n" for i in range(len(lines))))
        settings["alignment"] = str(tmp_path / "links")
        pairs = collections.Counter()
        for i in range(len(lines)):
            pairs[our_words[ours.line(i)[-1]], their_words[theirs.line(i)[0]]] += 1
            pairs[our_words[ours.line(i)[0]], their_words[theirs.line(i)[1]]] += 1
    else:
        found, counts = estimate(ours, theirs)
        pairs = {(our_words[a], their_words[b]): count for (a, b), count in zip(found, counts)}
    often = {pair: count for pair, count in pairs.items() if count >= 3}
    sums = token_counts([a for a, _ in often], [b for _, b in often], np.asarray(list(often.values())))
    out, fvt = make_method("trans", **settings)(base, target), make_method("fvt")(base, target)
    new = [i for i, token in enumerate(target.tokens) if token and token not in base.vocab.id_of]
    assert len([i for i in new if i in sums]) > 5
    for found, rows, means in [(out.input, base.table.input, fvt.input), (out.output, base.table.output, fvt.output)]:
        for i in new:
            expected = means[i]
            if i in sums:
                expected = sum(n * np.asarray(rows[a], np.float64) for a, n in sums[i].items()) / sum(sums[i].values())
            np.testing.assert_allclose(found[i], expected, atol=1e-4)


def test_text_that_is_not_parallel(base, target, lines, parallel, tmp_path):
    def refused(message: str, **settings) -> None:
        with pytest.raises(UserError, match=message) as error:
            make_method("trans", **settings)(base, target)
        assert "\n" not in str(error.value)

    refused("method trans needs parallel text, two columns with a tab between them: trans:parallel=FILE")
    refused("nowhere cannot be read", parallel=str(tmp_path / "nowhere"))
    refused("least is 0; it has to be at least 1", parallel=str(parallel), least=0)
    refused(
        r"none of the \d+ new tokens is in a word of .* that has a translation 9999 times", parallel=str(parallel), least=9999
    )
    for name, content, message in [
        ("one", "a\tb\nno tab here\n", "one, line 2: 1 column; it has to have a source text, a tab and its translation"),
        ("three", "a\tb\tc\n", "three, line 1: 3 columns; it has to have a source text"),
        ("empty", "", "empty holds no lines"),
    ]:
        (tmp_path / name).write_text(content)
        refused(message, parallel=str(tmp_path / name))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\t")
    refused("binary cannot be read", parallel=str(tmp_path / "binary"))
    for name, content, message in [
        ("short", "0-0\n", "short has 1 lines, the parallel text 300"),
        ("long", "0-0\n" * 301, "long has more lines, the parallel text 300"),
        (
            "far",
            "0-0 0-99\n",
            r"line 1: '0-99' is not I-J, the places of two words from 0; the line has \d+ and \d+ words",
        ),
        ("words", "a b\n", "words, line 1: 'a' is not I-J"),
    ]:
        (tmp_path / name).write_text(content)
        refused(message, parallel=str(parallel), alignment=str(tmp_path / name))
