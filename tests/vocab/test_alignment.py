"""Shared boundaries of two tokenizations: every reported pair is a boundary of both, and none is missed."""

import itertools
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vocabularies import ODD, TEXTS, vocabulary

from zett.vocab.alignment import SPECIAL, Spelling, Teacher
from zett.vocab.pairing import pair_special

TEXT = st.lists(st.text(max_size=6) | st.sampled_from([*ODD, " the", "    ", "self.x", "naïve"]), max_size=6).map("".join)
PAIRS = [
    ("bpe", "unigram"), ("unigram", "bpe"), ("like llama2", "bpe"), ("bpe", "like llama2"), ("sentencepiece-bpe", "wordpiece"),
    ("wordpiece, uncased", "like gpt2"), ("like gpt2", "wordpiece, uncased"), ("like t5", "like xlm-r"), ("bytes", "bpe"),
    ("like clip", "bytes"), ("characters, no unknown", "like roberta, prefix space"), ("bpe", "bpe"),
]  # fmt: skip


def symbols_of(vocab, ids, partners) -> list[list[int]]:
    """What each token of a text spells, in symbols."""
    spelled = {i: [SPECIAL + j] for i, j in partners.items() if not vocab.tokens[i]}
    return [spelled.get(i, list(vocab.tokens[i])) for i in ids]


def joined(tokens: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(tokens))


def is_white(symbol: int) -> bool:
    return symbol == 32 or 9 <= symbol <= 13


def reference(ours: list[list[int]], theirs: list[list[int]]) -> list[tuple[int, int]]:
    """Pairs of numbers of tokens before each shared boundary, from all places where the walk comes by."""
    x, y = joined(ours), joined(theirs)
    before = [{sum(map(len, side[:n])): n for n in range(len(side) + 1)} for side in (ours, theirs)]  # the last n of each place
    path, i, j = [(0, 0)], 0, 0
    while True:
        if i < len(x) and j < len(y) and x[i] == y[j]:
            i, j = i + 1, j + 1
        elif i < len(x) and is_white(x[i]):
            i += 1
        elif j < len(y) and is_white(y[j]):
            j += 1
        else:
            break
        path.append((i, j))
    shared = [(i, j) for i, j in path if i in before[0] and j in before[1]]
    last = [p for p, after in zip(shared, [*shared[1:], (None, None)]) if p[0] != after[0] and p[1] != after[1]]
    return [(before[0][i], before[1][j]) for i, j in last]


@pytest.mark.parametrize(("student", "teacher"), PAIRS)
def test_all_shared_boundaries_and_no_others(student, teacher):
    ours, theirs = vocabulary(student), vocabulary(teacher)
    reader, spelling = Teacher(theirs), Teacher(theirs).student(ours)
    partners, special = pair_special(ours, theirs), list(ours.special.values())
    own = {i: i for i, token in enumerate(theirs.tokens) if not token}

    @given(st.lists(TEXT, min_size=1, max_size=3), st.integers(0, 40), st.integers(0, 3))
    @example(["".join(ODD), "naïve 東京"], 11, 1)
    @settings(max_examples=40, deadline=None)
    def check(texts, cut, dropped):
        """Several texts with special tokens between them, cut anywhere, within a character, too."""
        parts = [ours.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        ids = [i for n, part in enumerate(parts) for i in (*([special[n % len(special)]] if n and special else []), *part)]
        ids = ids[dropped : len(ids) - cut] or ids[:1] or [1]
        found = reader.align(np.asarray([ids, ids[::-1]]), np.asarray([len(ids), 0]), spelling)
        assert found.counts[1] == 1 and found.places[1, 0].tolist() == [0, 0]  # a text of no tokens has its beginning
        read = found.ids[0, : found.lengths[0]].tolist()
        a, b = symbols_of(ours, ids, partners), symbols_of(theirs, read, own)
        pairs = [tuple(p) for p in found.places[0, : found.counts[0]].tolist()]
        flat = joined(a)
        broken = next((n for n, s in enumerate(flat[:3]) if not 0x80 <= s < 0xC0), min(3, len(flat)))
        for m, n in pairs:  # what is before a pair is the same in both, but for white space and half a character
            left, right = ([s for s in joined(side) if not is_white(s)] for side in (a[:m], b[:n]))
            assert left[broken:] == right
        if not broken:
            assert pairs == reference(a, b)
        if not broken and flat == joined(b):  # the same bytes: every place where both have a boundary
            both = [np.cumsum([0, *map(len, side)]).tolist() for side in (a, b)]
            assert sorted({both[0][m] for m, _ in pairs}) == sorted(set(both[0]) & set(both[1]))

    check()


def test_the_same_tokenizer_shares_all_boundaries():
    vocab = vocabulary("bpe")
    teacher = Teacher(vocab)
    ids = [vocab.tokenizer.encode(text).ids[:200] for text in TEXTS[:3]]
    found = teacher.align(np.asarray(ids), np.asarray([200, 150, 1]), teacher.student(vocab))
    for row, length in enumerate((200, 150, 1)):
        assert found.ids[row, :length].tolist() == ids[row][:length]
        assert found.places[row, : found.counts[row]].tolist() == [[n, n] for n in range(length + 1)]


def test_special_tokens_are_boundaries_of_both():
    """Partners stand for each other, before and after; one without a partner spells nothing."""
    spelling = Spelling.of([b"ab", b"", b"c", b""], {1: 7})
    assert spelling.symbols.tolist() == [97, 98, SPECIAL + 7, 99] and spelling.starts.tolist() == [0, 2, 3, 4, 4]
    ours, theirs = vocabulary("unigram"), vocabulary("bpe")
    end, partner = ours.roles["eos"], pair_special(ours, theirs)[ours.roles["eos"]]
    ids = [*ours.tokenizer.encode("the end").ids, end, *ours.tokenizer.encode("self").ids]
    found = Teacher(theirs).align(np.asarray([ids]), np.asarray([len(ids)]), Teacher(theirs).student(ours))
    at, there = ids.index(end), found.ids[0].tolist().index(partner)
    pairs = found.places[0, : found.counts[0]].tolist()
    assert [at, there] in pairs and [at + 1, there + 1] in pairs and [len(ids), found.lengths[0]] in pairs


def test_which_boundaries_are_in_words():
    vocab = vocabulary("bytes")
    ids = np.asarray([list(b"a_1 (x)\xc3\xa9.")])
    found = Teacher(vocab).align(ids, np.asarray([ids.shape[1]]), Teacher(vocab).student(vocab))
    assert np.flatnonzero(found.inner[0, : found.counts[0]]).tolist() == [1, 2, 8]


def test_it_is_faster_than_encoding():
    """In processor time, of this thread."""
    ours, theirs = vocabulary("unigram"), vocabulary("bpe")
    teacher, spelling = Teacher(theirs), Teacher(theirs).student(ours)
    texts = [TEXTS[0][start : start + 1500] for start in range(0, 30_000, 1500)]
    encoded = [ours.tokenizer.encode(text).ids for text in texts]
    lengths = np.asarray([len(ids) for ids in encoded])
    ids = np.asarray([[*ids, *[0] * (lengths.max() - len(ids))] for ids in encoded])
    teacher.align(ids, lengths, spelling)  # compiles

    def seconds(f) -> float:
        taken = []
        for _ in range(3):
            clock = time.thread_time()
            f()
            taken.append(time.thread_time() - clock)
        return min(taken)

    whole = seconds(lambda: teacher.align(ids, lengths, spelling))
    encoding = seconds(lambda: [theirs.tokenizer.encode_batch_fast([text], add_special_tokens=False) for text in texts])
    assert whole < 3 * encoding
