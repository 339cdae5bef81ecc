"""Candidates of draws: the frequent substrings of words."""

import collections
import dataclasses

import numpy as np
import pytest
import regex
from samplers import CONFIG, make

from zett.data.sources import open_text
from zett.errors import UserError
from zett.vocab.regexes import WORD_REGEX
from zett.vocab.sampling.counts import REQUIRED, count_inventory
from zett.vocab.sampling.packed import PackedTokens


def test_substrings_are_counted_right(tmp_path):
    (tmp_path / "train.txt").write_text("\n\n".join(["naïve the", "the cat", "the\tcat", "naïve"] * 3))
    (tmp_path / "valid.txt").write_text("x")
    config = dataclasses.replace(CONFIG, shards=1, max_bytes=4)
    documents = open_text(str(tmp_path))
    made = count_inventory([documents], config, 0)
    tokens, counts = list(PackedTokens(made["data"], made["starts"])), made["counts"]
    expected = collections.Counter()
    words = collections.Counter(regex.findall(WORD_REGEX, documents[0]))
    for word, n in words.items():
        for start in range(len(word) * (n > 1)):
            for end in range(start + 1, len(word) + 1):
                if 2 <= len(word[start:end].encode()) <= 4:
                    expected[word[start:end].encode()] += n
    total = sum(expected.values())
    found = dict(zip(tokens, counts[0]))
    assert {t for t in found if found[t]} == set(expected) and expected[b"\n\n"] > 5
    for token, n in expected.items():
        assert found[token] == pytest.approx(n / total)
    score = [found[t] * len(t) for t in tokens[len(REQUIRED) :]]
    assert (np.diff(score) < 1e-7).all()


def test_an_empty_text_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("once upon")
    with pytest.raises(UserError, match="too short to draw tokenizers"):
        make(open_text(str(tmp_path)), bpe=0.0, unigram=0.0)
