"""Tokenizers trained on the spot: deterministic, lossless where they claim to be, loadable by Transformers."""

import pytest

from zett.data.sources import open_text
from zett.errors import UserError
from zett.vocab.continued import merges_of
from zett.vocab.regexes import SENTENCES, STYLES, SUPERWORDS, WITHIN
from zett.vocab.train import END_OF_TEXT, KINDS, PAD, save_tokenizer, train_superwords, train_tokenizer

ODD = [
    "",
    " ",
    "   leading and trailing   ",
    "tabs\tand\r\nline\n\n\nbreaks\n",
    "def f(x):\n        return x  # twelve   spaces\n",
    "Straße, naïve, 東京タワー, हिन्दी में, العربية, 🙂👩‍👩‍👧",
    "combining: e\u0301 n\u0303 and zero\u200bwidth",
    "control \x00\x01\x7f and \u2028 separators\xa0",
    "12345678901234567890 3.14e-10 0xFF",
    "a" * 200,
    "<unk> <0x41> <s> [UNK]",
]


@pytest.fixture(scope="module", params=KINDS)
def trained(request, corpus):
    texts = list(open_text(str(corpus)))
    return request.param, train_tokenizer(request.param, 600, texts), texts


def test_training_is_deterministic(trained):
    kind, tokenizer, texts = trained
    assert train_tokenizer(kind, 600, iter(texts)).to_str() == tokenizer.to_str()


def test_size_and_special_tokens(trained):
    _, tokenizer, _ = trained
    assert 100 < tokenizer.get_vocab_size() <= 600
    assert [tokenizer.token_to_id(t) for t in (END_OF_TEXT, PAD)] == [0, 1]
    ids = sorted(tokenizer.get_vocab().values())
    assert ids == list(range(len(ids)))


@pytest.mark.parametrize("text", ODD)
def test_round_trip(trained, text):
    kind, tokenizer, _ = trained
    if kind == "wordpiece":
        pytest.skip("lossy by design")
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


def test_words_become_few_tokens(trained):
    _, tokenizer, _ = trained
    assert len(tokenizer.encode("the cat sat on a mat and saw two dogs").ids) <= 30  # of 37 characters


def test_special_tokens_are_single(trained):
    _, tokenizer, _ = trained
    assert tokenizer.encode(f"{END_OF_TEXT}{PAD}").ids == [0, 1]


def test_saved_folder_loads_in_transformers(trained, tmp_path):
    kind, tokenizer, _ = trained
    save_tokenizer(tokenizer, tmp_path / "tokenizer")
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    text = "The cat saw  12 dogs."
    assert loaded(text, add_special_tokens=False).input_ids == tokenizer.encode(text, add_special_tokens=False).ids
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (0, 0, 1)
    if kind != "wordpiece":
        assert loaded.decode(loaded(text).input_ids) == text


def test_unknown_kind():
    with pytest.raises((UserError, ValueError), match=r"unknown kind of tokenizer 'bpee'.*bpe, unigram"):
        train_tokenizer("bpee", 600, ["a"])


@pytest.mark.parametrize("style", [SUPERWORDS, SENTENCES])
def test_superwords_come_after_words(style, corpus):
    texts = list(open_text(str(corpus)))
    tokenizer = train_superwords(500, 700, texts, style)
    words = train_tokenizer("bpe", 500, texts, word_regex=WITHIN[style])
    merges, first = merges_of(tokenizer), merges_of(words)
    assert merges[: len(first)] == first
    several = [left + right for left, right in merges if "Ġ" in (left + right).strip("Ġ")]
    assert len(several) > 100 and not any("Ġ" in (left + right).strip("Ġ") for left, right in first)
    # Without what joins words it is the tokenizer of words, merge by merge; and with it, texts take fewer tokens.
    assert all(len(tokenizer.encode(text).ids) <= len(words.encode(text).ids) for text in texts)
    whole = train_tokenizer("bpe", 700, texts, word_regex=STYLES[style])  # the same without words first
    assert merges_of(train_superwords(258, 700, texts, style)) == merges_of(whole)
