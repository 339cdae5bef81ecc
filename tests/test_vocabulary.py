"""Token bytes spell the text, special tokens stand for nothing and find their partners, features are what they say."""

import json
import re

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vocabularies import NO_FALLBACK, ODD, OTHERS, SHARED, byte_tokenizer, vocabulary

from zett.errors import UserError
from zett.vocab import load_tokenizer, surface_forms
from zett.vocab.build import END_OF_TEXT, KINDS, PAD, save_tokenizer
from zett.vocab.bytes import BYTE_TO_CHAR, CHAR_TO_BYTE, to_alphabet
from zett.vocab.vocabulary import Vocabulary, _extensions, pad_pieces, pair_special, rank_prior, token_features, vocabulary_of

# These put a space before a text; the others leave it as it is.
PREFIXED = {"mistral-v1", "unigram-16k-multi"}
LOSSY = {
    "wordpiece": ("spaces", "characters outside the vocabulary"),
    "wordpiece-16k-multi": ("control characters", "spaces", "characters outside the vocabulary"),
    "bert-base-uncased": ("letter case", "control characters", "spaces", "characters outside the vocabulary"),
    "wmt-ende-unigram-32k": ("compatibility forms (SentencePiece charsmap)", "characters outside the vocabulary"),
    NO_FALLBACK: ("characters outside the vocabulary",),
}
TEXT = st.lists(st.text(max_size=8) | st.sampled_from([*ODD, "    ", "\n\n", " the", "self.x"]), max_size=6).map("".join)


@pytest.fixture(scope="module", params=[*KINDS, NO_FALLBACK, *OTHERS])
def named(request):
    return request.param, vocabulary(request.param)


def spelled(vocab: Vocabulary, text: str) -> bytes:
    ids = vocab.tokenizer.encode(text, add_special_tokens=False).ids
    return b"".join(vocab.tokens[i] for i in ids)


# ---------------------------------------------------------------------------------------------------------- token bytes


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
    # Nothing else is empty but what is never used, and every byte string's id leads back to it.
    for token, i in vocab.tokenizer.get_vocab().items():
        twin = bytes.fromhex(token[3:5]) if re.fullmatch("<0x..>", token) else None
        assert vocab.tokens[i] or i in vocab.special.values() or vocab.id_of[twin] != i
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


# --------------------------------------------------------------------------------------------------------------- errors


def wordlevel():
    return tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))


def suffixed():
    return tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "a</w>": 1}, [], end_of_word_suffix="</w>"))


def foreign_characters():
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "日": 1}, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    return tokenizer


@pytest.mark.parametrize(
    "make, message",
    [
        (wordlevel, "tokenizer model 'WordLevel' is not supported; supported: BPE, Unigram, WordPiece"),
        (suffixed, "word suffix '</w>' is not supported"),
        (lambda: tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, [])), "neither byte-level nor SentencePiece-like"),
        (foreign_characters, "token '日' has '日', which is not in the byte-level alphabet"),
        (lambda: byte_tokenizer([]), "the vocabulary is empty"),
    ],
)
def test_what_cannot_be_read_is_named(make, message, tmp_path):
    make().save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        with pytest.raises(UserError) as raised:
            load_tokenizer(path)
        assert str(tmp_path / "tokenizer.json") in str(raised.value) and message in str(raised.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {}}', '{"version": "1.0", "model": {"type": "BPE"}}', "\udcff"])
def test_a_corrupt_file_is_named(content, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer: ."):
        load_tokenizer(tmp_path)


def test_a_missing_or_wrong_path_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("no tokenizer")
    for path, message in [
        (tmp_path, "holds no tokenizer"),
        (tmp_path / "nowhere", "no such tokenizer folder"),
        ("./nowhere", "no such tokenizer folder: ./nowhere"),
        (tmp_path / "notes.txt", "notes.txt is not a tokenizer"),
    ]:
        with pytest.raises(UserError, match=message):
            load_tokenizer(path)


@pytest.mark.parametrize("content", ["{", "[]"])
def test_corrupt_roles_are_named(content, tmp_path):
    save_tokenizer(vocabulary("bpe").tokenizer, tmp_path)
    (tmp_path / "special_tokens_map.json").write_text(content)
    with pytest.raises(UserError, match=r"special_tokens_map\.json is not"):
        load_tokenizer(tmp_path)


def test_saved_and_loaded(tmp_path):
    for kind in KINDS:
        save_tokenizer(vocabulary(kind).tokenizer, tmp_path / kind)
        loaded, made = load_tokenizer(tmp_path / kind), vocabulary(kind)
        assert (loaded.tokens, loaded.special, loaded.roles, loaded.kind) == (made.tokens, made.special, made.roles, made.kind)
        assert loaded.folder == tmp_path / kind


# ------------------------------------------------------------------------------------------------------- special tokens


def specials(**roles: str) -> Vocabulary:
    """A vocabulary of special tokens only, by role."""
    special = {text: i for i, text in enumerate(dict.fromkeys(roles.values()))}
    ids = {role: special[text] for role, text in roles.items()}
    return Vocabulary((b"",) * len(special), special, ids, np.zeros(len(special), np.float32), "", (), None)


@pytest.mark.parametrize(
    "target, source, pairs",
    [
        (dict(bos="<s>", eos="</s>"), dict(bos="<|x|>", eos="<|x|>"), {0: 0, 1: 0}),
        (dict(bos="<s>", eos="</s>"), dict(eos="<s>", bos="</s>"), {0: 1, 1: 0}),  # the role says more than the text
        (dict(cls="[CLS]", sep="[SEP]", mask="[MASK]"), dict(bos="<s>", eos="</s>"), {0: 0, 1: 1}),
        (dict(bos="<s>", pad="<pad>"), dict(cls="[CLS]", sep="[SEP]"), {0: 0}),
        (dict(pad="<pad>", unk="<unk>"), dict(eos="</s>"), {0: 0}),
        (dict(bos="<e>", eos="<e>", pad="<e>"), dict(pad="<pad>", bos="<s>", eos="</s>"), {0: 1}),  # the first role decides
        (dict(bos="<s>"), {}, {}),
    ],
)
def test_special_tokens_find_their_partners(target, source, pairs):
    assert pair_special(specials(**target), specials(**source)) == pairs


def test_special_tokens_in_surface_forms(named):
    """One piece, the partner; and none without a partner."""
    _, target = named
    source = vocabulary("bpe")
    forms = surface_forms(target, source)
    pairs = pair_special(target, source)
    assert pairs[target.roles["eos" if "eos" in target.roles else "sep"]] == source.special[END_OF_TEXT]
    for i in target.special.values():
        assert forms.lengths[i] == (i in pairs) and forms.same[i] == pairs.get(i, -1)
        assert i not in pairs or forms.pieces[i, 0] == pairs[i]


def test_same_bytes_are_the_same_token(named):
    _, target = named
    source = vocabulary("bpe")
    forms = surface_forms(target, source)
    for i, token in enumerate(target.tokens):
        if token:
            assert forms.same[i] == (source.tokens.index(token) if token in source.id_of else -1)


# ------------------------------------------------------------------------------------------------------------- features


@given(st.lists(st.binary(max_size=5).map(lambda b: bytes(x % 3 for x in b)), max_size=30))
@example([b"", b"", b"a"])
@example([b"\xff", b"\xff\xff", b"\xff"])
@settings(max_examples=200, deadline=None)
def test_extensions(tokens):
    longer = [sum(o != t and o.startswith(t) for o in set(tokens)) if t else 0 for t in tokens]
    assert _extensions(tokens).tolist() == longer


def test_token_features():
    tokens = [b"", b"a", b"ab", b"abc", b"bc", b"c", b"", b"ab"]
    prior = rank_prior(tokens)
    assert (np.diff(prior[[1, 2, 3, 4, 5, 7]]) < 0).all()
    expected = [
        [(p + 9) / 2, np.log(6) - 8.5, np.log1p(before) - 1, np.log1p(after) - 1, np.log1p(len(t)) - 1.5]
        for t, p, before, after in zip(tokens, prior, [0, 2, 1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 2, 0, 0])
    ]
    np.testing.assert_allclose(token_features(tokens, prior), expected, atol=1e-6)


def test_pad_pieces():
    pieces, lengths = pad_pieces([[5], [], [1, 2, 3, 4], [6, 7]], 3)
    assert pieces.tolist() == [[5, 0, 0], [0, 0, 0], [1, 2, 3], [6, 7, 0]] and lengths.tolist() == [1, 0, 3, 2]
