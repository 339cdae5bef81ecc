"""Token bytes spell the text, and special tokens stand for nothing."""

import json
import re

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vocab.written import characters
from vocabularies import NO_FALLBACK, ODD, SHARED, byte_tokenizer, vocabulary

from zett.vocab import surface_forms
from zett.vocab.bytes import BYTE_TO_CHAR, CHAR_TO_BYTE, RESERVED_TOKEN, to_alphabet
from zett.vocab.load import vocabulary_of
from zett.vocab.train import END_OF_TEXT, PAD
from zett.vocab.vocabulary import Vocabulary

# These put a space before a text; the others leave it as it is.
PREFIXED = {"mistral-v1", "unigram-16k-multi"}
LOSSY = {
    "wordpiece": ("spaces", "characters outside the vocabulary"),
    "wordpiece-16k-multi": ("control characters", "spaces", "characters outside the vocabulary"),
    "bert-base-uncased": ("letter case", "accents", "control characters", "spaces", "characters outside the vocabulary"),
    "wmt-ende-unigram-32k": (
        "composition (NFC)",
        "compatibility forms (NFKC)",
        "accents on compatibility forms",
        "runs of spaces",
        "a space at the beginning",
        "a space at the end",
        "characters outside the vocabulary",
    ),
    NO_FALLBACK: ("characters outside the vocabulary",),
}
TEXT = st.lists(st.text(max_size=8) | st.sampled_from([*ODD, "    ", "\n\n", " the", "self.x"]), max_size=6).map("".join)


def spelled(vocab: Vocabulary, text: str) -> bytes:
    ids = vocab.tokenizer.encode(text, add_special_tokens=False).ids
    return b"".join(vocab.tokens[i] for i in ids)


# ----------------------------------------------------------------------------------------------------------- token bytes


def test_token_bytes_spell_the_text(named):
    name, vocab = named
    if name in LOSSY:
        pytest.skip("lossy by design; see the next test")

    # Texts of special tokens and bytes are no text; "▁" is SentencePiece's space.
    other = re.compile("|".join(map(re.escape, vocab.special)) + "|▁|<0x..>")

    @given(TEXT)
    @example("".join(ODD))
    @settings(max_examples=60, deadline=None)
    def check(text):
        text = other.sub("", text)
        expected = " " + text if name in PREFIXED and text else text
        assert spelled(vocab, text) == expected.encode()

    check()
    assert vocab.losses == ()


def test_losses_are_declared(named):
    name, vocab = named
    if name not in LOSSY:
        pytest.skip("lossless")
    assert vocab.losses == LOSSY[name]
    text = "The house is (not) big: Haus, 12 times. return self"
    normalised = vocab.tokenizer.normalizer.normalize_str(text).replace("▁", " ") if vocab.tokenizer.normalizer else text
    unknown = vocab.roles["unk"]
    ids = vocab.tokenizer.encode(text, add_special_tokens=False).ids
    if name in ("bert-base-uncased", "wmt-ende-unigram-32k"):  # the others know few of the words
        assert unknown not in ids
    read = b"".join(vocab.tokens[i] for i in ids)
    if name == "wmt-ende-unigram-32k":
        assert read.decode() == " " + normalised
    elif unknown not in ids:
        assert "".join(read.decode().split()) == "".join(normalised.split())


def test_wordpiece_words_begin_with_a_space():
    vocab = vocabulary("wordpiece")
    for token, i in vocab.tokenizer.get_vocab().items():
        if i not in vocab.special.values():
            whole = not token.startswith("##") and token[0].isalnum()
            assert vocab.tokens[i] == (" " * whole + token.removeprefix("##")).encode()


def test_special_tokens_stand_for_nothing(named):
    _, vocab = named
    added = vocab.tokenizer.get_added_tokens_decoder()
    special = {token.content: i for i, token in added.items() if token.special}
    assert special and special.items() <= vocab.special.items()
    assert all(vocab.tokens[i] == b"" for i in vocab.special.values())
    assert len(vocab) == len(vocab.tokens) == len(vocab.log_prior) == max(vocab.tokenizer.get_vocab().values()) + 1
    if vocab.folder is not None:
        declared = json.loads((vocab.folder / "special_tokens_map.json").read_text())
        expected = {role.removesuffix("_token"): vocab.tokenizer.token_to_id(token) for role, token in declared.items()}
        assert vocab.roles == expected
    else:
        assert (
            vocab.roles["bos"] == vocab.roles["eos"] == vocab.special[END_OF_TEXT] and vocab.roles["pad"] == vocab.special[PAD]
        )
    # Nothing else is empty but what is never used, and every byte string's id leads back to it. BERT has "[unused12]".
    for token, i in vocab.tokenizer.get_vocab().items():
        twin = bytes.fromhex(token[3:5]) if re.fullmatch("<0x..>", token) else None
        assert vocab.tokens[i] or i in vocab.special.values() or token.startswith("[unused") or vocab.id_of[twin] != i
    assert all(vocab.tokens[i] == token for token, i in vocab.id_of.items())
    np.testing.assert_array_equal(vocab.byte_lengths, [len(t) for t in vocab.tokens])


def test_log_prior_is_a_distribution(named):
    _, vocab = named
    present = np.asarray([bool(t) for t in vocab.tokens])
    assert np.exp(vocab.log_prior[present].astype(float)).sum() == pytest.approx(1, abs=1e-4)
    assert np.isfinite(vocab.log_prior).all()


def test_byte_pieces_of_unigrams_are_rare():
    """SentencePiece writes the score 0 for them, which is the best of all."""
    for name in ("unigram", "unigram-16k-multi"):
        if name == "unigram" or (SHARED / name).exists():
            vocab = vocabulary(name)
            fallback = [i for t, i in vocab.tokenizer.get_vocab().items() if t.startswith("<0x")]
            others = [i for i, t in enumerate(vocab.tokens) if t and i not in set(fallback)]
            used = [i for i in fallback if vocab.tokens[i]]
            assert len(fallback) == 256 and vocab.log_prior[used].max() < vocab.log_prior[others].min()


def test_the_byte_alphabet_is_gpt2s():
    assert set(BYTE_TO_CHAR) == set(tokenizers.pre_tokenizers.ByteLevel.alphabet()) and len(CHAR_TO_BYTE) == 256
    reference = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text = "".join(map(chr, [*range(0x500), *range(0x2000, 0x2100), 0x10FFFF, *range(0xFF00, 0x10000)]))
    assert reference.pre_tokenize_str(text)[0][0] == to_alphabet(text.encode())


def test_holes_between_ids():
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 1, "b": 4}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    vocab = vocabulary_of(tokenizer)
    assert vocab.tokens == (b"", b"a", b"", b"", b"b") and vocab.roles == {} == vocab.special
    forms = surface_forms(vocab, vocabulary("bpe"))
    assert forms.lengths.tolist() == [0, 1, 0, 0, 1] and forms.same[[0, 2, 3]].tolist() == [-1] * 3


def test_added_tokens_that_are_text():
    tokenizer = byte_tokenizer([bytes([b]) for b in range(256)])
    tokenizer.add_tokens(["naïve word"])
    tokenizer.add_special_tokens(["<sep>"])
    vocab = vocabulary_of(tokenizer, {"sep": "<sep>", "cls": "not there"})
    assert vocab.tokens[256:] == ("naïve word".encode(), b"") and vocab.roles == {"sep": 257}
    assert spelled(vocab, "a naïve word<sep>!") == "a naïve word!".encode()


@pytest.mark.parametrize("name", ["sentencepiece-bpe", "unigram"])
def test_bytes_that_an_ordinary_piece_spells_are_never_used(name):
    """As twins of that piece they would take half of its probability."""
    vocab = vocabulary(name)
    ids = vocab.tokenizer.get_vocab()
    assert vocab.tokens[ids["<0x41>"]] == b"" and vocab.tokens[ids["A"]] == b"A" and vocab.id_of[b"A"] == ids["A"]
    assert vocab.tokens[ids["<0x20>"]] == b"" and vocab.tokens[ids["▁"]] == b" "
    assert vocab.tokens[ids["<0xFF>"]] == b"\xff" and vocab.tokens[ids["<0x00>"]] == b"\0"
    assert len(vocab.id_of) == sum(map(bool, vocab.tokens))
    text = "".join(map(chr, range(128)))
    assert set(map(bytes, zip(text.encode()))) <= set(vocab.id_of) and spelled(vocab, text) == text.encode()


def test_the_lowest_id_of_a_byte_string_counts():
    vocab = vocabulary("wordpiece")
    ids = vocab.tokenizer.get_vocab()
    assert vocab.tokens[ids["("]] == vocab.tokens[ids["##("]] == b"("
    assert vocab.id_of[b"("] == min(ids["("], ids["##("])


# --------------------------------------------------------------------------------- formats that need a word of their own


def test_rules_say_what_is_added():
    assert vocabulary("like mistral").rules[0] == "a space is put before a text that does not begin with one"
    assert vocabulary("like llama2").rules[0] == "a space is put before every text; the same after a special token"
    assert vocabulary("like gpt1").rules == ("a space is put after every word",)
    assert vocabulary("wordpiece").rules == ("a space is put before every word that begins with a letter or a digit",)
    words = vocabulary_of(tokenizers.Tokenizer(tokenizers.models.WordPiece({"a": 0, "##a": 1, "[UNK]": 2}, unk_token="[UNK]")))
    assert words.rules[1:] == ("a word that begins with '##' can be read as what follows",)
    assert vocabulary("bpe").rules == () and "'▁' is read as a space" in vocabulary("like gemma").rules
    assert (
        vocabulary("like mistral").normalise("a<|pad|>b") == b" ab"
        and vocabulary("like llama2").normalise("a<|pad|>b") == b" a b"
    )


def test_marks_of_words():
    vocab = vocabulary("like gpt1")
    ids = vocab.tokenizer.get_vocab()
    assert vocab.tokens[ids["self</w>"]] == b"self " and vocab.tokens[ids["s"]] == b"s" and vocab.tokens[ids["s</w>"]] == b"s "
    assert spelled(vocab, "The self.x") == b"the self . x " == vocab.normalise("The self.x")
    vocab = vocabulary("like clip")
    ids = vocab.tokenizer.get_vocab()
    assert vocab.tokens[ids["Ã"]] == b"\xc3" and vocab.tokens[ids["Ł</w>"]] == to_byte("Ł") + b" "
    vocab = vocabulary("continuing bpe")
    ids = vocab.tokenizer.get_vocab()
    assert vocab.tokens[ids["self"]] == b" self" and vocab.tokens[ids["##s"]] == b"s" and spelled(vocab, "selfs.") == b" selfs."


def to_byte(char: str) -> bytes:
    return bytes([CHAR_TO_BYTE[char]])


def test_tokens_that_merges_cannot_reach():
    vocab = vocabulary("like llama3")
    ids = vocab.tokenizer.encode("unreachable unreachable", add_special_tokens=False).ids
    assert [vocab.tokens[i] for i in ids] == [b"unreachable", b" unreachable"]
    assert vocab.tokens[vocab.tokenizer.token_to_id("<|reserved_special_token_1|>")] == b""
    assert vocab.normalise("a<|reserved_special_token_1|>b") == b"ab"


def test_reserved_tokens_stand_for_nothing():
    for token in ("<unused0>", "[unused12]", "<|reserved_special_token_3|>", "<SPECIAL_20>", "<extra_id_0>", "<|extra_7|>"):
        assert RESERVED_TOKEN.fullmatch(token)
    for token in ("[1]", "<a>", "<h1>", "[special]", "<unused>", "unused0", "<|im_start|>", "special_1"):
        assert not RESERVED_TOKEN.fullmatch(token)
    vocab = vocabulary("like gemma")
    assert vocab.tokens[vocab.tokenizer.token_to_id("<unused1>")] == b"" == vocab.normalise("<unused1>")
    assert vocab.tokens[vocab.tokenizer.token_to_id("[multimodal]")] == b"[multimodal]"


def test_added_tokens_that_the_model_makes_too():
    """Gemma's runs of spaces are added tokens besides. Those that the model lacks only come from a text that spells them."""
    vocab = vocabulary("like gemma")
    model = vocab.tokenizer.get_vocab(with_added_tokens=False)
    runs = ["▁" * n for n in range(2, 32)]
    for run in runs:
        assert vocab.tokens[vocab.tokenizer.token_to_id(run)] == (run.replace("▁", " ") if run in model else run).encode()
    assert 0 < sum(run in model for run in runs) < len(runs)


def test_characters_outside_the_alphabet_stand_for_themselves():
    """As for the library's decoder."""
    tokenizer = tokenizers.Tokenizer.from_str(characters({"a": 0, "日": 1, "Ġa": 2, " x": 3}))
    tokenizer.pre_tokenizer, tokenizer.decoder = tokenizers.pre_tokenizers.ByteLevel(), tokenizers.decoders.ByteLevel()
    vocab = vocabulary_of(tokenizer)
    assert [token.decode() for token in vocab.tokens] == ["a", "日", " a", " x"] == [tokenizer.decode([i]) for i in range(4)]
