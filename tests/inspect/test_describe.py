"""Facts about one tokenizer: how it cuts digits, which tokens no text gives, and its steps in words."""

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers
from vocabularies import DIGIT_MERGES as ONES
from vocabularies import SHARED, bytes_and, shared

from zett.inspect.describe import (
    describe,
    digit_scheme,
    normaliser_words,
    pre_tokeniser_words,
    show,
    splits_marks,
    unreachable,
)
from zett.inspect.texts import texts_by_language
from zett.vocab.load import vocabulary_of

CORPORA = SHARED.parent / "corpora"


# ---------------------------------------------------------------------------------------------------------------- digits


PAIRS = [a + b for a, b in ONES]
TRIPLES = [merge for pair in PAIRS for d in map(bytes, zip(b"123456789")) for merge in ((pair, d), (d, pair))]


@pytest.mark.parametrize(
    "merges, pattern, scheme, example",
    [
        ([], None, "single digits", "1|2|3|4|5|6|7"),
        (ONES, r"\d", "single digits", "1|2|3|4|5|6|7"),
        (ONES, r"\d{1,2}", "groups of 2 from the left", "12|34|56|7"),
        (ONES + TRIPLES, r"\d{1,3}", "groups of 3 from the left", "123|456|7"),
        (ONES + TRIPLES, r"\d{1,3}(?=(?:\d{3})*\b)", "groups of 3 from the right", "1|234|567"),
        (ONES[:40], r"\d{1,3}", "groups of up to 3 from the left, cut further as learnt", "12|3|45|6|7"),
        (ONES, None, "as learnt", "12|34|56|7"),
    ],
)
def test_digit_schemes(merges, pattern, scheme, example):
    found = digit_scheme(vocabulary_of(bytes_and([a + b for a, b in merges], merges, pattern)))
    assert (found.scheme, "|".join(found.example)) == (scheme, example)


@pytest.mark.parametrize(
    "name, scheme",
    [
        ("gpt2", "as learnt"),
        ("mistral-v1", "single digits"),
        ("bbpe-32k-pydocs-en", "groups of up to 3 from the left, cut further as learnt"),
        ("bert-base-uncased", "as learnt"),
        ("byte", "single digits"),
    ],
)
def test_digit_schemes_of_known_tokenizers(name, scheme):
    assert digit_scheme(shared(name)).scheme == scheme


def test_digits_that_a_vocabulary_lacks():
    made = tokenizers.Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("▁", -1.0), ("1", -2.0)], 0, False))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    assert digit_scheme(vocabulary_of(made)).scheme == "digits are lost or unknown"


# ---------------------------------------------------------------------------------------------------------- reachability


def test_tokens_that_merges_cannot_reach():
    merges = [(b"a", b"b"), (b"ab", b"c")]
    vocab = vocabulary_of(bytes_and([b"ab", b"abc", b"bc", b"xyz", "é".encode()], merges))
    lost = unreachable(vocab)
    assert {vocab.tokens[i]: reason for i, reason in lost.items()} == dict.fromkeys([b"bc", b"xyz", "é".encode()], "model")


def test_tokens_that_the_pre_tokeniser_or_the_normaliser_keeps_from_appearing():
    merges = [(b"1", b"2"), (b"a", b"A"), (b"a", b"b")]
    made = bytes_and([b"12", b"aA", b"ab"], merges, r"\d")
    assert {vocabulary_of(made).tokens[i]: r for i, r in unreachable(vocabulary_of(made)).items()} == {b"12": "pre-tokeniser"}
    made.normalizer = normalizers.Lowercase()
    vocab = vocabulary_of(made)
    found = {vocab.tokens[i]: reason for i, reason in unreachable(vocab).items()}
    upper = {bytes([b]): "normaliser" for b in range(ord("A"), ord("Z") + 1)}
    assert found == {b"12": "pre-tokeniser", b"aA": "normaliser"} | upper


@pytest.mark.parametrize("name", ["gpt2", "mistral-v1", "wordpiece-16k-multi", "superword-bpe-16k-en", "bbpe-16k-ja"])
def test_all_tokens_of_trained_tokenizers_are_reached(name):
    assert not unreachable(shared(name))


def test_pieces_of_punctuation_inside_words_are_never_reached():
    vocab = shared("bert-base-uncased")
    lost = [vocab.tokenizer.id_to_token(i) for i in unreachable(vocab)]
    assert {"##!", "##?", "..."} <= set(lost) and all(
        not token.strip("#").isascii() or not token.strip("#").isalnum() for token in lost
    )


def test_unreachable_tokens_do_not_occur_in_text():
    """Nothing that is called unreachable comes out of a megabyte of real text."""
    vocab = shared("bert-base-uncased")
    lost = unreachable(vocab)
    assert len(lost) > 300
    file = CORPORA / "prose" / "en" / "valid.parquet"
    if not file.is_file():
        pytest.skip(f"{file} is not on this machine")
    text = texts_by_language([file])["en"]
    used = {i for encoding in vocab.tokenizer.encode_batch_fast(text) for i in encoding.ids}
    assert len(used) > 5000 and not used & lost.keys()


# ----------------------------------------------------------------------------------------------------------------- words


def test_normalisers_and_pre_tokenisers_in_words():
    made = bytes_and([], [])
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace("a", "b")])
    vocab = vocabulary_of(made)
    assert normaliser_words(vocab) == ["unifies compatible characters (NFKC)", "lower case", "replaces 'a' by 'b'"]
    assert pre_tokeniser_words(vocab) == ["not at all: tokens may span words"]
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = pre_tokeniser_words(vocabulary_of(made))
    assert words[0] == "before a space, which belongs to the word after it" and "before 't" in words
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.BertPreTokenizer(), pre_tokenizers.Digits(individual_digits=True)]
    )
    words = pre_tokeniser_words(vocabulary_of(made))
    assert words[0] == "at spaces, which are dropped" and "numbers: 1|2|3|4|5" in words and "inside don't" in words
    bert = normalizers.BertNormalizer()
    made.normalizer = bert
    assert "removes accents" in normaliser_words(vocabulary_of(made))


def test_combining_marks():
    assert splits_marks(vocabulary_of(bytes_and([], [], r"\p{L}+")))
    assert not splits_marks(vocabulary_of(bytes_and([], [], r"[\p{L}\p{M}]+")))


def test_tokens_in_print():
    assert [show(t) for t in (b" a", b"\n\t", b"\xe2\x82", "東\u200b".encode())] == ["␣a", "\\n\\t", "\\xe2\\x82", "東\\u200b"]


def test_what_surrounds_a_text():
    facts = describe(shared("bert-base-uncased"), "x")
    assert (facts["before_text"], facts["after_text"]) == (["[CLS]"], ["[SEP]"])
    assert facts["ids"] == 30522 and facts["special"] == 5 and facts["reserved"] == 994 and "letter case" in facts["losses"]
