"""Decomposition gives what the source tokenizer's own model gives, and loses no byte."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vocabularies import NO_FALLBACK, ODD, OTHERS, byte_tokenizer, vocabulary

from zett.errors import UserError
from zett.vocab import Vocabulary, surface_forms
from zett.vocab.bytes import to_alphabet
from zett.vocab.decompose import Decomposer
from zett.vocab.vocabulary import vocabulary_of

NO_SOURCES = {"wordpiece-16k-multi", "bert-base-uncased"}
TEXT = st.lists(st.text(max_size=4) | st.sampled_from([*ODD, " the", "    ", "self", "\n\n"]), max_size=3).map("".join)


@pytest.fixture(
    scope="module",
    params=["bpe", "unigram", "sentencepiece-bpe", NO_FALLBACK, *(o for o in OTHERS if str(o) not in NO_SOURCES)],
)
def source(request):
    return vocabulary(request.param)


def spelled(source: Vocabulary, ids) -> bytes:
    """The bytes of source ids; ids beyond the source's are bytes that it lacks."""
    return b"".join(source.tokens[i] if i < len(source) else bytes([i - len(source)]) for i in ids)


def model_ids(source: Vocabulary, text: str) -> list[int]:
    text = to_alphabet(text.encode()) if source.kind == "byte-level BPE" else text.replace(" ", "▁")
    return [piece.id for piece in source.tokenizer.model.tokenize(text)]


def test_pieces_are_the_models_own(source):
    decompose = Decomposer(source)
    unknown = source.roles.get("unk")

    @given(TEXT)
    @example("".join(ODD))
    @example("aü<unk>हि</s>x")  # beyond ASCII, and text that looks like special tokens
    @settings(max_examples=60, deadline=None)
    def check(text):
        text = text.replace("▁", "")
        [ids] = decompose([text.encode()])
        assert spelled(source, ids) == text.encode()
        expected = model_ids(source, text)
        if unknown not in expected and all(source.tokens[i] for i in expected):
            assert ids == expected

    check()


def test_no_byte_is_lost(source):
    """Whatever the bytes: broken UTF-8, half characters between whole ones."""
    decompose = Decomposer(source)

    @given(st.lists(st.binary(max_size=5) | TEXT.map(str.encode), max_size=4).map(b"".join))
    @example(bytes(range(256)))
    @example(" \xe9 the".encode("latin-1") + "हि".encode()[:-1] + "日".encode() + b"\xff\xfe")
    @example("\ud800 \udfff\udc80".encode("utf-8", "surrogatepass"))
    @settings(max_examples=60, deadline=None)
    def check(token):
        token = token.replace("▁".encode(), b"")
        [ids] = decompose([token])
        assert spelled(source, ids) == token
        assert all(i < len(source) or bytes([i - len(source)]) not in source.id_of for i in ids)

    check()


def test_its_own_tokens(source):
    """Nearly all tokens of a vocabulary are their own decomposition; all of them keep their bytes."""
    tokens = [t for t in source.tokens if t and "▁".encode() not in t][:5000]
    pieces = Decomposer(source)(tokens)
    assert [spelled(source, p) for p in pieces] == tokens
    whole = [p == [source.id_of[t]] for t, p in zip(tokens, pieces)]
    assert np.mean(whole) > 0.9


@pytest.mark.parametrize("word", ["returns", " argument", " the"])
def test_a_word_as_in_running_text(word):
    source = vocabulary("bpe")
    assert Decomposer(source)([word.encode()])[0] == source.tokenizer.encode(word).ids


def test_the_models_merges_decide_and_not_the_longest_match():
    source = vocabulary_of(byte_tokenizer([b"a", b"b", b"c", b"bc", b"ab"], [(b"b", b"c"), (b"a", b"b")]))
    assert Decomposer(source)([b"abc", b"ab", b"", b"cab"]) == [[0, 3], [4], [], [2, 4]]


def test_bytes_that_a_byte_level_source_lacks():
    source = vocabulary_of(byte_tokenizer([b"a", b"b", b"ab"], [(b"a", b"b")]))
    assert Decomposer(source)([b"ab", b"aXb", b"\xff", b"abab"]) == [[2], [0, 3 + ord("X"), 1], [3 + 255], [2, 2]]


def test_bytes_that_a_source_without_fallback_lacks():
    source = vocabulary(NO_FALLBACK)
    size = len(source)
    text = "return ß 語x"
    [ids] = Decomposer(source)([text.encode()])
    assert spelled(source, ids) == text.encode()
    lacking = [i - size for i in ids if i >= size]
    assert bytes(lacking) == "ß語".encode() and source.id_of[b"x"] == ids[-1]


def test_broken_utf8_with_byte_fallback():
    source = vocabulary("sentencepiece-bpe")
    ids = source.tokenizer.get_vocab()
    assert Decomposer(source)([b"\xe6\x97"]) == [[ids["<0xE6>"], ids["<0x97>"]]]
    [pieces] = Decomposer(source)([b"return\xff return"])
    assert ids["<0xFF>"] in pieces and ids["▁return"] in pieces


def test_wordpiece_is_no_source():
    with pytest.raises(UserError, match="WordPiece"):
        Decomposer(vocabulary("wordpiece"))


@pytest.mark.parametrize("target", ["bpe", "unigram", "sentencepiece-bpe", "wordpiece"])
def test_surface_forms_spell_the_tokens(target, source):
    """Through `surface_forms`, with padding and cutting."""
    target = vocabulary(target)
    forms = surface_forms(target, source, max_pieces=4)
    assert forms.pieces.shape == (len(target), 4) and forms.pieces.dtype == np.int32
    whole = Decomposer(source)(target.tokens)
    for i, token in enumerate(target.tokens):
        if token and "▁".encode() not in token:
            assert forms.pieces[i, : forms.lengths[i]].tolist() == whole[i][:4]
            assert not forms.pieces[i, forms.lengths[i] :].any()
            assert spelled(source, whole[i]) == token
