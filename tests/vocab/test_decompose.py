"""Decomposition gives what the source tokenizer's own model gives, and loses no byte."""

import os
import re
import unicodedata

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, normalizers, pre_tokenizers
from vocabularies import FOLDERS, NO_FALLBACK, ODD, OTHERS, TEXTS, byte_tokenizer, vocabulary

from zett.vocab import Vocabulary, decompose, surface_forms
from zett.vocab.bytes import to_alphabet
from zett.vocab.decompose import Decomposer, Decomposition
from zett.vocab.load import vocabulary_of
from zett.vocab.normalise import token_normaliser
from zett.vocab.train import KINDS, train_tokenizer

TEXT = st.lists(st.text(max_size=4) | st.sampled_from([*ODD, " the", "    ", "self", "\n\n"]), max_size=3).map("".join)


@pytest.fixture(scope="module", params=[*KINDS, NO_FALLBACK, *OTHERS])
def source(request):
    return vocabulary(request.param)


def spelled(source: Vocabulary, ids) -> bytes:
    """The bytes of source ids; ids beyond the source's are bytes that it lacks."""
    return b"".join(source.tokens[i] if i < len(source) else bytes([i - len(source)]) for i in ids)


def spells(source: Vocabulary, ids, token: bytes) -> bool:
    """Whether the ids spell the token, but for the spaces that marks of words stand for."""
    if by_word(source):
        return spelled(source, ids).replace(b" ", b"") == token.replace(b" ", b"")
    return spelled(source, ids) == token


def by_word(source: Vocabulary) -> bool:
    return source.kind in ("WordPiece", "WordLevel") or bool(source.format.word_end or source.format.continuing)


# -------------------------------------------------------------------------------------- the reference: the tokenizers library


class Reference:
    """What the library's model makes of a token; the text of its unknown tokens in bytes. None where that does not spell it."""

    def __init__(self, source: Vocabulary):
        self.source, self.model, self.inside = source, source.tokenizer.model, source.tokenizer.model
        if source.kind == "WordPiece":
            # The library always begins a word; here its pieces that go on in one begin one too.
            prefix = source.format.continuing
            pieces = {p: i for p, i in source.tokenizer.get_vocab().items() if p.startswith(prefix) and p != prefix}
            pieces |= {p.removeprefix(prefix): i for p, i in pieces.items()}
            self.inside = models.WordPiece(pieces | {"[UNK]": source.roles["unk"]}, unk_token="[UNK]")

    def __call__(self, token: bytes) -> list[int] | None:
        source = self.source
        if source.format.byte_level and not by_word(source):
            ids = [piece.id for piece in self.model.tokenize(to_alphabet(token))] if token else []
        else:
            ids = []
            for run in re.split("([\udc80-\udcff])", token.decode("utf-8", "surrogateescape")):
                if "\udc80" <= run <= "\udcff":
                    byte = bytes([ord(run) - 0xDC00])
                    ids += self.pieces(self.model, to_alphabet(byte)) if source.format.byte_level else self.bytes(byte)
                elif run and by_word(source):
                    if "".join(run.removeprefix(" ").split()) != run.removeprefix(" ") or run == " ":
                        return None  # white space that is not a word's mark: see the test of it
                    ids += self.words(run)
                elif run:
                    ids += self.pieces(self.model, run.replace(" ", source.format.space or " "))
        return ids if spells(source, ids, token) else None

    def words(self, run: str) -> list[int]:
        words = [word for word, _ in self.source.tokenizer.pre_tokenizer.pre_tokenize_str(run)]
        within = run[0] != " " and unicodedata.category(run[0])[0] not in "PS"
        return [i for n, word in enumerate(words) for i in self.pieces(self.inside if within and not n else self.model, word)]

    def pieces(self, model, text: str) -> list[int]:
        """The model's. Unknown characters in bytes; unknown words and text that looks like special tokens left out, to show."""
        ids: list[int] = []
        for piece in model.tokenize(text):
            if self.source.tokens[piece.id] or re.fullmatch("<0x..>", piece.value):
                ids.append(piece.id)
            elif self.source.kind != "WordPiece" and not any(special in text for special in self.source.special):
                # Offsets count bytes.
                unknown = text.encode()[slice(*piece.offsets)]
                ids += self.bytes(unknown.replace((self.source.format.space or " ").encode(), b" "))
        return ids

    def bytes(self, text: bytes) -> list[int]:
        return [self.source.id_of.get(bytes([b]), len(self.source) + b) for b in text]


def check(source: Vocabulary, tokens: list[bytes]) -> float:
    """Every token keeps its bytes and has the library's pieces; the share for which the library has an answer."""
    expected, answered = Reference(source), 0
    if normalise := token_normaliser(source.tokenizer):
        tokens = [token if token in source.id_of else normalise(token) for token in tokens]
    for token, ids in zip(tokens, source.decompose(tokens).tolist(), strict=True):
        assert spells(source, ids, token.replace("▁".encode(), b" ") if source.format.space else token), (token, ids)
        known = expected(token)
        assert known in (None, ids), (token, known, ids)
        answered += known is not None
    return answered / len(tokens)


# ------------------------------------------------------------------------------------------------------------ vocabularies


def test_all_tokens_of_all_vocabularies(source):
    """Every pair of tokenizers at hand; all of their tokens with ZETT_TEST_EVERY=1, which takes minutes."""
    every = int(os.environ.get("ZETT_TEST_EVERY", 16))
    tokens = {token for name in (*KINDS, *FOLDERS) for token in vocabulary(name).tokens[::every]}
    share = check(source, sorted(tokens))
    assert share > (0.3 if source.losses else 0.99)


def test_any_bytes(source):
    """Broken UTF-8, half characters between whole ones, text that looks like special tokens."""
    tokens = [b"", b" ", bytes(range(256)), "aü<unk>हि</s>x[UNK]<0x0A>##ing".encode(), b"a" * 3000, "".join(ODD).encode()]
    tokens += [" \xe9 the".encode("latin-1") + "हि".encode()[:-1] + "日".encode() + b"\xff\xfe"]
    tokens += [
        "\ud800 \udfff\udc80".encode("utf-8", "surrogatepass"),
        b"\xc0\x80\xf4\x90\x80\x80\xf0\x8f\xbf\xbf\xed\xa0\x80\xc2",
    ]
    check(source, tokens)

    @given(st.lists(st.lists(st.binary(max_size=5) | TEXT.map(str.encode), max_size=4).map(b"".join), min_size=1, max_size=8))
    @settings(max_examples=40, deadline=None)
    def many(tokens):
        check(source, tokens)

    many()


def test_its_own_tokens(source):
    """Nearly all tokens of a vocabulary are their own decomposition."""
    tokens = [t for t in source.tokens if t and "▁".encode() not in t][:5000]
    whole = [p == [source.id_of[t]] for t, p in zip(tokens, source.decompose(tokens))]
    assert np.mean(whole) > 0.9


# ------------------------------------------------------------------------------------------------------- random tokenizers

ALPHABET = ["a", "b", "c", "ü", "日", "🙂", "▁"]


def random_merges(rng, symbols: list[str], vocab: dict[str, int], suffix: str = " ") -> list[tuple[str, str]]:
    """Pairs of known symbols in random order; what they make is known from then on."""
    merges = []
    for _ in range(40):
        a, b = map(str, rng.choice(symbols, 2))
        if not a.endswith(suffix):
            vocab.setdefault(a + b, len(vocab))
            symbols.append(a + b)
            merges.append((a, b))
    return [merges[i] for i in rng.permutation(len(merges))]


def random_strings(rng, alphabet: list[str], n: int = 60) -> list[bytes]:
    strings = [rng.choice(["", " "]) + "".join(rng.choice(alphabet, rng.integers(0, 12))) for _ in range(n)]
    strings = [string.encode() for string in strings]
    return [*strings, *(bytes(rng.integers(0, 256, 4, np.uint8)) + s[:3] for s in strings[:10])]


def random_source(kind: str, rng) -> Vocabulary:
    pieces = {"<unk>": 0}
    for char in ALPHABET[: rng.integers(3, len(ALPHABET) + 1)] if "byte" not in kind else to_alphabet(b" abc\xc3\xbc"):
        pieces[char] = len(pieces)
    if kind in ("sentencepiece", "unigram"):
        kept = 256 if rng.random() < 0.7 else 200
        pieces |= {f"<0x{b:02X}>": len(pieces) + i for i, b in enumerate(rng.permutation(256)[:kept])}
    chars = [p for p in pieces if len(p) == 1]
    if kind == "unigram":
        words = {"".join(rng.choice(chars, rng.integers(2, 5))) for _ in range(25)}
        # Few different scores, for many ties.
        scored = [(p, float(-rng.integers(1, 4)) if len(p) < 6 else -9.0) for p in [*pieces, *sorted(words)]]
        tokenizer = tokenizers.Tokenizer(models.Unigram(scored, 0, bool(rng.random() < 0.7)))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        return vocabulary_of(tokenizer)
    if kind == "wordpiece":
        words = [mark + "".join(rng.choice(chars, rng.integers(1, 4))) for mark in ("", "##") for _ in range(15)]
        tokenizer = tokenizers.Tokenizer(
            models.WordPiece({"[UNK]": 0} | {w: i + 1 for i, w in enumerate(dict.fromkeys(words))}, unk_token="[UNK]")
        )
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return vocabulary_of(tokenizer)
    options = dict(unk_token="<unk>", fuse_unk=bool(rng.random() < 0.5), ignore_merges=bool(rng.random() < 0.3))
    if kind.startswith("word-end"):
        suffix = "</w>"
        pieces |= {char + suffix: len(pieces) + i for i, char in enumerate(chars)}
        merges = random_merges(rng, [p for p in pieces if p != "<unk>"], pieces, suffix)
        tokenizer = tokenizers.Tokenizer(
            models.BPE(pieces, merges, **options | dict(ignore_merges=False), end_of_word_suffix=suffix)
        )
        cut: list = [pre_tokenizers.WhitespaceSplit()]
        if "bytes" in kind:  # as in CLIP
            cut.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cut)
        return vocabulary_of(tokenizer)
    merges = random_merges(rng, chars, pieces)
    for _ in range(5):  # that no merge makes
        pieces.setdefault("".join(rng.choice(chars, 3)), len(pieces))
    if kind == "byte-level":
        tokenizer = tokenizers.Tokenizer(models.BPE(pieces, merges, **options))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:
        tokenizer = tokenizers.Tokenizer(models.BPE(pieces, merges, **options, byte_fallback=bool(rng.random() < 0.7)))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    return vocabulary_of(tokenizer)


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece", "unigram", "wordpiece", "word-end", "word-end bytes"])
def test_random_tokenizers(kind):
    """Of few characters, so that merges overlap and scores tie."""
    answered = []
    for seed in range(60):
        rng = np.random.default_rng([seed, len(kind)])
        alphabet = ["a", "b", "c", "ü", "c" if "word" in kind else " ", "日", "🙂", "x"]
        answered.append(check(random_source(kind, rng), random_strings(rng, alphabet[: rng.integers(3, 9)])))
    assert np.mean(answered) > 0.2


# ---------------------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize("word", ["returns", " argument", " the"])
def test_a_word_as_in_running_text(word):
    source = vocabulary("bpe")
    assert source.decompose([word.encode()]).tolist()[0] == source.tokenizer.encode(word).ids


def normalising(kind: str, normaliser) -> Vocabulary:
    """A vocabulary trained on text that a normaliser has changed, with that normaliser."""
    tokenizer = train_tokenizer(kind, 600, [normaliser.normalize_str(text) for text in TEXTS])
    own = [] if tokenizer.normalizer is None else [tokenizer.normalizer]
    tokenizer.normalizer = normalizers.Sequence([normaliser, *own])
    return vocabulary_of(tokenizer)


@pytest.mark.parametrize(
    ("kind", "normaliser"),
    [
        ("wordpiece", normalizers.BertNormalizer()),  # lower case, no accents, spaces around Chinese characters
        ("unigram", normalizers.NFKC()),
        ("bpe", normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])),
        ("sentencepiece-bpe", normalizers.Replace("ß", "ss")),
    ],
)
def test_words_are_normalised_as_in_running_text(kind, normaliser):
    source = normalising(kind, normaliser)
    # The pre-tokeniser, which has no part in decomposition, would cut words at signs.
    words = {word for text in TEXTS for word in text.split() if word.isalpha()} | {
        "Straße",
        "ÉTÉ",
        "ﬁn",
        "Ａb",
        "e\u0301t",
        "東京タワー",
    }
    words = sorted(word for word in words if source.roles.get("unk") not in source.tokenizer.encode(word).ids)[:2000]
    changed = [word for word in words if normaliser.normalize_str(word) != word]
    assert len(words) > 300 and len(changed) > 0
    running = [source.tokenizer.encode(f"a {word} a", add_special_tokens=False).ids for word in words]
    around = source.tokenizer.encode("a a", add_special_tokens=False).ids
    assert [[around[0], *ids, around[-1]] for ids in source.decompose([f" {w}".encode() for w in words])] == running


def test_what_a_normaliser_leaves():
    """White space, broken characters, what it would drop altogether or join to the letter before; own tokens."""
    source = normalising("wordpiece", normalizers.BertNormalizer())
    normalise = token_normaliser(source.tokenizer)
    assert normalise is not None and token_normaliser(vocabulary("sentencepiece-bpe").tokenizer) is None
    kept = [b"\x00", b" \n\t ", b"\xff\xc3", "\u0301".encode(), b"", b" the"]
    assert [*map(normalise, kept)] == kept
    assert normalise(b" A\n\xffB\xc3") == b" a\n\xffb\xc3"
    assert normalise(" 東A".encode()) == " 東 a".encode()
    nfc = token_normaliser(normalising("bpe", normalizers.NFC()).tokenizer)
    assert nfc("\u0301".encode()) == "\u0301".encode() and nfc("e\u0301".encode()) == "é".encode()
    tokenizer = byte_tokenizer([b"a", b"A"])
    tokenizer.normalizer = normalizers.Lowercase()
    assert vocabulary_of(tokenizer).decompose([b"A", b"AA"]).tolist() == [[1], [0, 0]]


def test_the_models_merges_decide_and_not_the_longest_match():
    source = vocabulary_of(byte_tokenizer([b"a", b"b", b"c", b"bc", b"ab"], [(b"b", b"c"), (b"a", b"b")]))
    assert source.decompose([b"abc", b"ab", b"", b"cab"]).tolist() == [[0, 3], [4], [], [2, 4]]


def test_bytes_that_a_byte_level_source_lacks():
    source = vocabulary_of(byte_tokenizer([b"a", b"b", b"ab"], [(b"a", b"b")]))
    tokens = [b"ab", b"aXb", b"\xff", b"abab", b"abX"]
    assert source.decompose(tokens).tolist() == [[2], [0, 3 + ord("X"), 1], [3 + 255], [2, 2], [2, 3 + ord("X")]]


def test_bytes_that_a_source_without_fallback_lacks():
    source = vocabulary(NO_FALLBACK)
    size = len(source)
    [ids] = source.decompose(["return ß 語x".encode()])
    lacking = [i - size for i in ids if i >= size]
    assert bytes(lacking) == "ß語".encode() and source.id_of[b"x"] == ids[-1]


def test_broken_utf8_with_byte_fallback():
    source = vocabulary("sentencepiece-bpe")
    ids = source.tokenizer.get_vocab()
    assert source.decompose([b"\xe6\x97"]).tolist() == [[ids["<0xE6>"], ids["<0x97>"]]]
    [pieces] = source.decompose([b"return\xff return"])
    assert ids["<0xFF>"] in pieces and ids["▁return"] in pieces


def test_words_of_wordpiece():
    """A space begins a word and none goes on in one; punctuation stands alone; other white space is bytes."""
    pieces = {p: i for i, p in enumerate(["[UNK]", "the", "re", "##the", "##r", "##e", ",", "##,"])}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    source = vocabulary_of(tokenizer)
    space, newline, x = (len(source) + ord(c) for c in " \nx")
    expected = {
        b" the": ["the"], b"the": ["##the"], b" there": ["the", "##r", "##e"], b"re": ["##r", "##e"], b",": [","],
        b"the, re": ["##the", ",", "re"], b"the ": ["##the"], b"  the": [space, "the"], b" ": [space], b" thex": ["the", x],
        b" the\n re": ["the", newline, "re"], b" the  re": ["the", "re"], b"\xc3the": [len(source) + 0xC3, "##the"],
    }  # fmt: skip
    for token, ids in expected.items():
        assert source.decompose([token]).tolist() == [[pieces.get(i, i) for i in ids]], token


def test_words_with_an_end():
    """As in GPT-1: the last character of a word is written with its mark; the spaces around a word are part of the mark."""
    pieces = {p: i for i, p in enumerate(["<unk>", "a", "b", "a</w>", "b</w>", "ab</w>", "ab"])}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(pieces, [("a", "b</w>"), ("a", "b")], unk_token="<unk>", end_of_word_suffix="</w>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    source = vocabulary_of(tokenizer)
    expected = {
        b" ab": ["ab</w>"],
        b"ab ": ["ab</w>"],
        b"ab": ["ab</w>"],
        b"abab": ["ab", "ab</w>"],
        b"a b": ["a</w>", "b</w>"],
    }
    for token, ids in expected.items():
        assert source.decompose([token]).tolist() == [[pieces[i] for i in ids]], token


# ---------------------------------------------------------------------------------------------------- arrays, cache, compiling


def test_padded():
    made = Decomposition(np.asarray([5, 1, 2, 3, 4, 6, 7], np.int32), np.asarray([0, 1, 1, 5, 7]))
    pieces, lengths = made.padded(3)
    assert pieces.tolist() == [[5, 0, 0], [0, 0, 0], [1, 2, 3], [6, 7, 0]] and lengths.tolist() == [1, 0, 3, 2]
    assert pieces.dtype == lengths.dtype == np.int32 and made.lengths.tolist() == [1, 0, 4, 2]
    assert made.tolist() == list(made) == [[5], [], [1, 2, 3, 4], [6, 7]] and len(made) == 4
    empty = vocabulary("bpe").decompose([b"", b""])
    assert empty.padded(2)[0].tolist() == [[0, 0], [0, 0]] and len(vocabulary("bpe").decompose([])) == 0


@pytest.mark.parametrize("target", ["bpe", "unigram", "sentencepiece-bpe", "wordpiece"])
def test_surface_forms_spell_the_tokens(target):
    source, target = vocabulary("unigram"), vocabulary(target)
    forms = surface_forms(target, source, max_pieces=4)
    assert forms.pieces.shape == (len(target), 4) and forms.pieces.dtype == np.int32
    whole = source.decompose(target.tokens).tolist()
    for i, token in enumerate(target.tokens):
        if token:
            assert forms.pieces[i, : forms.lengths[i]].tolist() == whole[i][:4]
            assert not forms.pieces[i, forms.lengths[i] :].any()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ZETT_CACHE", str(tmp_path))
    monkeypatch.setattr(decompose, "CACHED_FROM", 10)
    return tmp_path / "decompositions"


def test_cache(cache):
    source, tokens = vocabulary("bpe"), [b"return", b"", b" argument\xff"] * 5
    plain = source.decompose(tokens)
    for _ in range(2):
        stored = source.decompose.cached(tokens)
        assert stored.tolist() == plain.tolist() and stored.ids.dtype == plain.ids.dtype
    [file] = cache.iterdir()
    # Other tokens, in one order or another or cut differently, and other sources have files of their own.
    source.decompose.cached([b"", b"return", b" argument\xff"] * 5)
    source.decompose.cached([b"retur", b"n", b" argument\xff"] * 5)
    for other in ("unigram", NO_FALLBACK):
        assert vocabulary(other).decompose.cached(tokens).tolist() == vocabulary(other).decompose(tokens).tolist()
    assert len(list(cache.iterdir())) == 5
    assert not source.decompose.cached(tokens[:9]).tolist()[9:] and len(list(cache.iterdir())) == 5
    # What is on disk is what is used.
    os.utime(file, (0, 0))
    fresh = Decomposer(source)
    assert fresh.cached(tokens).tolist() == plain.tolist() and "_prepared" not in vars(fresh) and file.stat().st_mtime == 0


def test_another_tokenizer_with_the_same_tokens(cache):
    merges = [(b"a", b"b"), (b"b", b"c")]
    for order, expected in ((merges, [3, 2]), (merges[::-1], [0, 4])):
        source = vocabulary_of(byte_tokenizer([b"a", b"b", b"c", b"ab", b"bc"], order))
        assert source.decompose.cached([b"abc"] * 10).tolist() == [expected] * 10


def test_damaged_cache_files_are_made_again(cache):
    source, tokens = vocabulary("bpe"), [b"return", b" argument\xff"] * 50
    plain = source.decompose.cached(tokens).tolist()
    [file] = cache.iterdir()
    good = file.read_bytes()
    middle = len(good) // 4
    for bad in (b"", b"text", good[:-9], good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]):
        file.write_bytes(bad)
        assert source.decompose.cached(tokens).tolist() == plain
        assert file.read_bytes() == good


def test_a_cache_that_cannot_be_written(monkeypatch, cache):
    cache.parent.joinpath("decompositions").write_text("a file where the folder would be")
    assert len(vocabulary("bpe").decompose.cached([b"return"] * 20)) == 20
