"""Merging in a batch: the same bytes in fewer tokens, by plain counting."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import ODD, vocabulary

from zett.dynamic.merging import TokenBatch, merge, read_texts
from zett.errors import UserError

KINDS = ["bpe", "unigram", "wordpiece", "sentencepiece-bpe"]
TEXTS = ["def foo(bar):\n    return foobar\n", "the foo of the bar is the foobar of the foo", "aaaaaaa aaaa", "", *ODD]


def spelled(merged, row):
    return b"".join(merged.token_bytes(row))


def original(batch, row):
    return b"".join(batch.vocab.tokens[i] for i in batch.ids[row, : batch.lengths[row]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("across", [False, True])
def test_bytes_stay_and_ids_are_those_of_the_tokenizer(kind, across):
    vocab = vocabulary(kind)
    batch = read_texts(vocab, TEXTS, across=across)
    for row, text in enumerate(TEXTS):
        assert batch.ids[row, : batch.lengths[row]].tolist() == vocab.tokenizer.encode(text, add_special_tokens=False).ids
    nothing = merge(batch, 0)
    np.testing.assert_array_equal(nothing.ids, batch.ids)
    assert nothing.tokens == () and nothing.reduction == 0 and (nothing.lengths == batch.lengths).all()
    merged = merge(batch, 60)
    assert 0 < merged.reduction < 1 and len(merged.tokens) <= merged.merges <= 60
    for row in range(len(TEXTS)):
        assert spelled(merged, row) == original(batch, row)
        # Each token stands where it says.
        begins = [*merged.begins[row, : merged.lengths[row]].tolist(), int(batch.lengths[row])]
        parts = [batch.ids[row, a:b].tolist() for a, b in itertools.pairwise(begins)]
        assert [b"".join(vocab.tokens[i] for i in part) for part in parts] == merged.token_bytes(row)
        assert all(len(part) <= 8 for part in parts)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(97, 100), max_size=14), min_size=1, max_size=5), st.integers(0, 12), st.integers(1, 3),
    st.integers(1, 5), st.data(),
)  # fmt: skip
def test_as_a_plain_loop_merges(rows, number, least, most, data):
    """Lists of lists, one merge after another."""
    vocab = vocabulary("bpe", 400)
    ids = {letter: vocab.id_of[bytes([letter])] for letter in range(97, 101)}
    words = [data.draw(st.lists(st.integers(-1, 1), min_size=len(row), max_size=len(row))) for row in rows]
    width = max(map(len, rows), default=0) or 1
    batch = TokenBatch(
        vocab,
        np.asarray([[ids[x] for x in row] + [0] * (width - len(row)) for row in rows], np.int32),
        np.asarray([len(row) for row in rows], np.int32),
        np.asarray([word + [-1] * (width - len(word)) for word in words], np.int32),
    )
    merged = merge(batch, number, least=least, most_pieces=most)
    expected, done = _plain(vocab, batch, number, least, most)
    assert [merged.token_bytes(row) for row in range(len(rows))] == expected and merged.merges == done


def _plain(vocab, batch, number, least, most):
    numbers = {}  # of new tokens, in the order that they are made
    texts = [
        [(vocab.tokens[i], 1, word) for i, word in zip(batch.ids[r, :n], batch.words[r, :n])]
        for r, n in enumerate(batch.lengths)
    ]

    def key(token):
        return vocab.id_of.get(token, len(vocab) + numbers.get(token, 0))

    for done in range(number):
        pairs = collections.Counter(
            (a[0], b[0]) for text in texts for a, b in itertools.pairwise(text) if a[2] == b[2] >= 0 and a[1] + b[1] <= most
        )
        if not pairs or max(pairs.values()) < least:
            return [[token for token, _, _ in text] for text in texts], done
        pair = min(pairs, key=lambda p: (-pairs[p], key(p[0]), key(p[1])))
        for r, text in enumerate(texts):
            new, i = [], 0
            while i < len(text):
                a, b = text[i], text[i + 1] if i + 1 < len(text) else None
                if b and (a[0], b[0]) == pair and a[2] == b[2] >= 0 and a[1] + b[1] <= most:
                    new.append((a[0] + b[0], a[1] + b[1], a[2]))
                    i += 2
                else:
                    new.append(a)
                    i += 1
            texts[r] = new
        if b"".join(pair) not in vocab.id_of:
            numbers.setdefault(b"".join(pair), len(numbers))
    return [[token for token, _, _ in text] for text in texts], number


@pytest.mark.parametrize("kind", KINDS)
def test_words_stay_apart_unless_asked(kind):
    vocab = vocabulary(kind)
    texts = ["photosynthesis of chloroplasts photosynthesis of chloroplasts"] * 3
    within, across = (merge(read_texts(vocab, texts, across=wide), reduction=0.99, most_pieces=99) for wide in (False, True))
    for token in within.token_bytes(0):
        assert len(token.split()) <= 1
    assert any(len(token.split()) > 1 for token in across.token_bytes(0))
    assert within.token_bytes(0)[0].strip() == b"photosynthesis" and across.reduction > within.reduction


def test_special_tokens_are_not_merged():
    vocab = vocabulary("bpe")
    name, special = next(iter(vocab.special.items()))
    batch = read_texts(vocab, [f"the foo{name}{name}foo the" * 4] * 3, before=(special,), after=(special,), across=True)
    merged = merge(batch, reduction=0.9, most_pieces=99)
    assert (merged.ids[merged.ids == special].size, merged.reduction > 0) == ((batch.ids == special).sum(), True)
    assert merged.ids[0, 0] == special == merged.ids[0, merged.lengths[0] - 1]


def test_it_stops_at_the_reduction():
    batch = read_texts(vocabulary("bpe"), TEXTS * 2, across=True)
    whole = merge(batch, reduction=0.2)
    assert whole.reduction >= 0.2 > merge(batch, whole.merges - 1).reduction
    assert merge(batch, 1, reduction=0.2).merges == 1 < whole.merges


def test_what_makes_no_sense_is_refused():
    batch = read_texts(vocabulary("bpe"), ["a"])
    for words, settings_ in {
        "nothing says how much": {}, "number is -1": {"number": -1}, "number is True": {"number": True},
        r"reduction is 1\.0": {"reduction": 1.0}, "least is 0": {"number": 1, "least": 0},
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=words):
            merge(batch, **settings_)
