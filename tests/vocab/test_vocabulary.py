"""Token bytes spell the text, special tokens stand for nothing and find their partners, features are what they say."""

import json
import re
import sys

import numpy as np
import pytest
import tokenizers
import transformers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vocabularies import NO_FALLBACK, ODD, OTHERS, SHARED, TEXTS, byte_tokenizer, vocabulary

from zett.errors import UserError
from zett.vocab import load_tokenizer, surface_forms
from zett.vocab.bytes import BYTE_TO_CHAR, CHAR_TO_BYTE, RESERVED_TOKEN, to_alphabet
from zett.vocab.forms import token_features
from zett.vocab.load import MAX_FILE_BYTES, vocabulary_of
from zett.vocab.pairing import pair_special
from zett.vocab.priors import rank_prior
from zett.vocab.train import END_OF_TEXT, KINDS, PAD, save_tokenizer
from zett.vocab.vocabulary import Vocabulary, _extensions

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


# --------------------------------------------------------------------------------------------------------------- errors


def characters(vocab: dict[str, int], added: dict[str, int] | None = None) -> str:
    """A tokenizer.json that the library itself would not write."""
    spec = json.loads(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
    spec["model"]["vocab"] = vocab
    sides = dict(lstrip=False, rstrip=False, single_word=False, normalized=False, special=True)
    spec["added_tokens"] = [dict(id=i, content=content, **sides) for content, i in (added or {}).items()]
    return json.dumps(spec)


@pytest.mark.parametrize(
    "content, message",
    [
        (characters({}), "the vocabulary is empty"),
        (characters({}, {"<s>": 0}), "the vocabulary is empty"),
        (characters({"a": 0, "b": 1, "c": 1}), "two tokens have the id 1: 'b' and 'c'"),
        # The library numbers an added token by the number of tokens, which here has been given away.
        (characters({"a": 0, "b": 2}, {"<s>": 3}), "two tokens have the id 2: '<s>' and 'b'"),
        (characters({"a": 0, "b": 2**32 - 1}), "token 'b' has the id 4294967295; ids up to 16777215 are supported"),
    ],
)
def test_what_cannot_be_read_is_named(content, message, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        with pytest.raises(UserError) as raised:
            load_tokenizer(path)
        assert str(tmp_path / "tokenizer.json") in str(raised.value) and message in str(raised.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {}}', '{"version": "1.0", "model": {"type": "BPE"}}', "\udcff"])
def test_a_corrupt_file_is_named(content, tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer: ."):
        load_tokenizer(tmp_path)


def test_a_part_that_makes_the_library_panic_is_named(tmp_path):
    spec = json.loads(characters({"a": 0})) | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match=r"tokenizer\.json is not a tokenizer: .*charsmap"):
        load_tokenizer(tmp_path)


def test_a_file_of_any_size_is_named(tmp_path):
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 2**20)  # a hole, which takes no room on the disk
    with pytest.raises(UserError, match=r"tokenizer\.json has 257 MiB; tokenizers of up to 256 MiB are read"):
        load_tokenizer(tmp_path)


def test_a_million_tokens(tmp_path):
    """Ids in the order of the file backwards, as no order is promised."""
    size = 1_000_000
    vocab = {f"x{i:x}": size - 1 - i for i in range(size)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    spec = json.loads(characters({"a": 0}))
    spec |= {"pre_tokenizer": byte_level, "model": spec["model"] | {"vocab": vocab}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    vocab = load_tokenizer(tmp_path)
    assert len(vocab) == size and vocab.tokens[0] == b"xf423f" and vocab.tokens[-1] == b"x0"
    assert vocab.id_of[b"x7f"] == size - 1 - 0x7F and "characters outside the vocabulary" in vocab.losses


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


def test_settings_of_a_training_are_off(tmp_path):
    """Truncation, padding and BPE dropout would make a part of the text, more than the text, or something else each time."""
    tokenizer = vocabulary("bpe").tokenizer
    spec = json.loads(tokenizer.to_str())
    spec["model"]["dropout"] = 0.5
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(spec))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=100)
    save_tokenizer(tokenizer, tmp_path)
    expected = vocabulary("bpe").tokenizer.encode("def f(x): return self.value").ids
    loaded = load_tokenizer(tmp_path).tokenizer
    assert all(loaded.encode("def f(x): return self.value").ids == expected for _ in range(5))


# ------------------------------------------------------------------------------------- formats that need a word of their own


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


# ------------------------------------------------------------------------------------------------------- slow tokenizers


def slow(folder, config: dict | None, **files: str):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_slow_tokenizers_are_converted(tmp_path):
    fast = vocabulary("like gpt2")
    model = json.loads(fast.tokenizer.to_str())["model"]
    merges = "\n".join(["#version: 0.2", *map(" ".join, model["merges"])])
    files = dict(vocab__json=json.dumps(model["vocab"]), merges__txt=merges)
    read = load_tokenizer(slow(tmp_path / "gpt2", {"tokenizer_class": "GPT2Tokenizer"}, **files))
    assert read.tokens[2 : len(fast)] == fast.tokens[2:] and read.kind == fast.kind  # "<|pad|>" is special in one of them
    assert read.roles["eos"] == read.special["<|endoftext|>"]
    with pytest.raises(UserError, match="nothing that says which class of tokenizer"):
        load_tokenizer(slow(tmp_path / "bare", None, **files))

    fast = vocabulary("wordpiece, uncased")
    vocab = fast.tokenizer.get_vocab(with_added_tokens=False)
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    read = load_tokenizer(slow(tmp_path / "bert", config, vocab__txt="\n".join(sorted(vocab, key=vocab.get))))
    assert read.kind == "WordPiece" and "letter case" in read.losses
    assert all(read.tokens[i] == fast.tokens[i] for token, i in vocab.items() if token not in fast.special)


def test_byt5(tmp_path):
    read = load_tokenizer(slow(tmp_path, {"tokenizer_class": "ByT5Tokenizer"}))
    assert read.roles == {"pad": 0, "eos": 1, "unk": 2} and read.losses == () and len(read) == 3 + 256 + 125
    reference = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*ODD, "a</s>b", "<extra_id_3> x"]:
        ids = read.tokenizer.encode(text, add_special_tokens=False).ids
        assert ids == reference.encode(text, add_special_tokens=False)
        assert b"".join(read.tokens[i] for i in ids) == read.normalise(text)


def test_what_cannot_be_converted_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="Transformers has no fast form of CanineTokenizer"):
        load_tokenizer(slow(tmp_path / "canine", {"tokenizer_class": "CanineTokenizer"}))
    # Nobody is asked whether code may be run, and none is.
    config = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    with pytest.raises(UserError, match="custom code"):
        load_tokenizer(slow(tmp_path / "remote", config, own__py="raise SystemExit"))
    llama = slow(tmp_path / "llama", {"tokenizer_class": "LlamaTokenizer"}, tokenizer__model="no model")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match=r"reading tokenizer\.model takes a package: pip install sentencepiece"):
        load_tokenizer(llama)


def test_sentencepiece_models_are_converted(tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "text").write_text("\n".join(TEXTS))
    for cls, kind, file in (("LlamaTokenizer", "bpe", "tokenizer.model"), ("T5Tokenizer", "unigram", "spiece.model")):
        options = dict(
            input=str(tmp_path / "text"), model_type=kind, vocab_size=1000, byte_fallback=kind == "bpe", minloglevel=2
        )
        folder = slow(tmp_path / cls, {"tokenizer_class": cls})
        sentencepiece.SentencePieceTrainer.train(model_prefix=str(folder / "x"), **options)
        (folder / "x.model").rename(folder / file)
        reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / file))
        vocab = load_tokenizer(folder)
        for text in ("The house is big", "return self.x", "naïve"):
            assert vocab.tokenizer.encode(text, add_special_tokens=False).ids == reference.encode(text)
            assert spelled(vocab, text) == vocab.normalise(text) == b" " + text.encode()


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
        (dict(bos="<s>", eos="</s>"), dict(eos="<s>", bos="</s>"), {0: 0, 1: 1}),  # the text says more than the role
        (dict(cls="[CLS]", sep="[SEP]", mask="[MASK]"), dict(bos="<s>", eos="</s>"), {0: 0, 1: 1}),
        (dict(bos="<s>", pad="<pad>"), dict(cls="[CLS]", sep="[SEP]"), {0: 0}),
        (dict(pad="<pad>", unk="<unk>"), dict(eos="</s>"), {0: 0}),
        (dict(bos="<e>", eos="<e>", pad="<e>"), dict(pad="<pad>", bos="<s>", eos="</s>"), {0: 2}),  # what ends a text does
        (dict(eos="</s>", pad="<pad>"), dict(bos="<s>"), {}),  # what begins a text neither ends nor pads one
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
