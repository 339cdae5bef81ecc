"""Vocabularies that several tests share: of each kind one made here, and those beside the checkout where there are any."""

import argparse
import ast
import functools
import json
import random
import textwrap
from pathlib import Path

import pytest

from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.load import vocabulary_of
from zett.vocab.train import KINDS, train_tokenizer

SHARED = Path(__file__).parents[2] / "shared" / "data" / "tokenizers"
FOLDERS = sorted(p.name for p in SHARED.iterdir() if (p / "tokenizer.json").exists()) if SHARED.is_dir() else []
OTHERS = FOLDERS or [pytest.param("others", marks=pytest.mark.skip(reason=f"no tokenizers in {SHARED}"))]
DIGIT_MERGES = [(a, b) for a in map(bytes, zip(b"123456789")) for b in map(bytes, zip(b"123456789"))]  # of two digits
NO_FALLBACK = "sentencepiece-bpe without bytes"  # unknown characters become <unk>

TEXTS = [Path(module.__file__).read_text() for module in (argparse, ast, json, random, textwrap)]
TEXTS.append("Straße naïve Ünïcödé हिन्दी में लिखा हुआ 東京タワー привет мир 🙂 " * 20)

ODD = [
    " ", "  two  spaces  ", "    four\n        eight\n\n\n\ttabs\t\t\n", "\r\n\r\n", "def f(x):\n    return x  # done\n",
    "x = {'a': [1, 22, 333, 4444]}; y != z", "Straße, naïve, 東京タワー, हिन्दी में, العربية, 🙂👩‍👩‍👧", "e\u0301 n\u0303 \u200b",
    "\x00\x01\x7f\u2028\xa0\ufeff\ufffd", "12345678901234567890 3.14e-10", "a" * 100, "tHe CaT",
    "\U000e0041\U0010ffff\U00020000",
]  # fmt: skip


@functools.cache
def vocabulary(name: str, size: int = 1000) -> Vocabulary:
    """A trained vocabulary by its kind, one of those made below, or one of the folders."""
    if name in FOLDERS:
        return load_tokenizer(SHARED / name)
    return vocabulary_of(MADE[name]() if name in MADE else _trained(name, size))


def _trained(name: str, size: int):
    import tokenizers

    if name in KINDS:
        return tokenizers.Tokenizer.from_str(_spec(name, size))
    assert name == NO_FALLBACK
    spec = json.loads(train_tokenizer("sentencepiece-bpe", size, TEXTS[:-1]).to_str())
    spec["model"]["byte_fallback"] = False
    spec["model"]["vocab"] = {t: i for t, i in spec["model"]["vocab"].items() if not t.startswith("<0x")}  # leaves a hole
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


@functools.cache
def _spec(name: str, size: int) -> str:
    return train_tokenizer(name, size, TEXTS).to_str()


def byte_tokenizer(tokens: list[bytes], merges=()):
    """A byte-level BPE tokenizer of exactly these tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from zett.vocab.bytes import to_alphabet

    pairs = [(to_alphabet(a), to_alphabet(b)) for a, b in merges]
    tokenizer = Tokenizer(models.BPE({to_alphabet(t): i for i, t in enumerate(tokens)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizer


def shared(name: str) -> Vocabulary:
    """One of the folders; skips a test where it is absent."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not on this machine")
    return vocabulary(name)


def bytes_and(tokens, merges, pattern=None):
    """A byte-level BPE of all bytes and these tokens; `pattern` cuts texts before the model does."""
    from tokenizers import Regex, pre_tokenizers

    made = byte_tokenizer(list(dict.fromkeys([bytes([b]) for b in range(256)] + tokens)), merges)
    parts = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return made


# ------------------------------------------------------------------------- tokenizers built like those that models come with

_CL100K = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN = _CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _split(regex: str, behavior: str = "isolated", **options):
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Split(Regex(regex), behavior, **options)


def _byte_level_bpe(*before, normalizer=None, model=None, prefix=False, use_regex=False):
    """A byte-level BPE with these pre-tokenisers before the bytes. model: other entries of the model."""
    from tokenizers import Tokenizer, pre_tokenizers

    spec = json.loads(_trained("bpe", 1000).to_str())
    spec["model"] |= model or {}
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    steps = [*before, pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    return tokenizer


def _neox():
    from tokenizers import AddedToken

    tokenizer = _byte_level_bpe(use_regex=True)
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in range(24, 1, -1)])
    return tokenizer


def _starcoder():
    from tokenizers import pre_tokenizers

    return _byte_level_bpe(pre_tokenizers.Digits(individual_digits=True), use_regex=True)


def _llama3():
    """With tokens that no merges make, and entries kept free."""
    spec = json.loads(_trained("bpe", 1000).to_str())
    vocab = spec["model"]["vocab"]
    for token in ("unreachable", "Ġunreachable", "Ġdef", "Ãł", "Ġń"):
        vocab.setdefault(token, len(vocab))
    tokenizer = _byte_level_bpe(_split(_CL100K), model={"vocab": vocab, "ignore_merges": True})
    tokenizer.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    tokenizer.add_tokens([f"<|reserved_special_token_{i}|>" for i in range(3)])
    return tokenizer


def _superword():
    """Tokens that span spaces."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [_split(r"[^\n]+|\n+"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, initial_alphabet=alphabet, max_token_length=32, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _with(name: str, normalizer=None, pre_tokenizer=None, added=(), special=()):
    """A trained tokenizer with another normaliser and pre-tokeniser."""
    tokenizer = _trained(name, 1000)
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.add_tokens(list(added))
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def _llama2():
    from tokenizers import normalizers

    return _with("sentencepiece-bpe", normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]))


def _mistral():
    from tokenizers import pre_tokenizers

    return _with("sentencepiece-bpe", None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False))


def _gemma():
    from tokenizers import AddedToken, normalizers, pre_tokenizers

    added = [
        "<unused0>",
        "<unused1>",
        "[multimodal]",
        *("\n" * n for n in range(31, 0, -1)),
        *("▁" * n for n in range(31, 1, -1)),
    ]
    return _with(
        "sentencepiece-bpe",
        normalizers.Replace(" ", "▁"),
        pre_tokenizers.Split(" ", "merged_with_previous"),
        [AddedToken(token, normalized=False) for token in added],
        ["<start_of_turn>", "<end_of_turn>"],
    )


def _xlmr():
    from tokenizers import Regex, normalizers, pre_tokenizers

    return _without_bytes(
        _with(
            "unigram",
            normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]),
            pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]),
            special=["<mask>"],
        )
    )


def _t5():
    from tokenizers import pre_tokenizers

    return _without_bytes(_with("unigram", None, pre_tokenizers.Metaspace(), special=[f"<extra_id_{i}>" for i in range(3)]))


def _albert():
    from tokenizers import normalizers, pre_tokenizers

    steps = [
        normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(),
        normalizers.Lowercase(),
    ]  # fmt: skip
    return _without_bytes(_with("unigram", normalizers.Sequence(steps), pre_tokenizers.Metaspace()))


def _without_bytes(tokenizer):
    import tokenizers

    spec = json.loads(tokenizer.to_str())
    spec["model"]["byte_fallback"] = False
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


def _byte_level_unigram():
    """Of characters of GPT-2's alphabet; the library's trainer makes such ones too."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = json.loads(_trained("bpe", 1000).to_str())["model"]["vocab"]
    tokenizer = Tokenizer(models.Unigram([(token, -8.0 + len(token) - i / 2000) for token, i in vocab.items()]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _uncased():
    from tokenizers import normalizers

    tokenizer = _trained("wordpiece", 1000)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.add_tokens(["[unused0]", "Added Word"])
    return tokenizer


def _suffixed(normalizer, pre_tokenizer, alphabet=(), unknown="<unk>", **options):
    from tokenizers import Tokenizer, models, trainers

    known = dict(unk_token=unknown) if unknown else {}
    tokenizer = Tokenizer(models.BPE(**known, **options))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    special = ["<|startoftext|>", *filter(None, [unknown]), *alphabet]
    tokenizer.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=1200, special_tokens=special, show_progress=False, limit_alphabet=300, **options)
    )
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = spec["added_tokens"][: -len(alphabet)] if alphabet else spec["added_tokens"]
    return Tokenizer.from_str(json.dumps(spec))


def _gpt1():
    from tokenizers import normalizers, pre_tokenizers

    return _suffixed(normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), end_of_word_suffix="</w>")


def _clip():
    from tokenizers import Regex, normalizers, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _suffixed(
        normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]),
        pre_tokenizers.Sequence([_split(_CLIP, "removed", invert=True), byte_level]),
        [*alphabet, *(char + "</w>" for char in alphabet)],
        end_of_word_suffix="</w>",
    )


def _continuing_bpe():
    from tokenizers import pre_tokenizers

    return _suffixed(None, pre_tokenizers.Whitespace(), continuing_subword_prefix="##")


def _characters(unknown: str | None):
    from tokenizers import Tokenizer, models

    letters = sorted(set("".join(TEXTS)))
    vocab = {char: i + 5 for i, char in enumerate(letters)} | ({unknown: 0} if unknown else {})  # holes
    return Tokenizer(models.BPE(vocab, [], **({"unk_token": unknown} if unknown else {})))


def _words_of_characters():
    from tokenizers import Tokenizer, models

    vocab = {char: i for i, char in enumerate(["?", *sorted(set("".join(TEXTS)))])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="?"))
    tokenizer.pre_tokenizer = _split(r"[\s\S]")
    return tokenizer


def _words():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocab = {word: i for i, word in enumerate(sorted({"<unk>", *" ".join(TEXTS).lower().split()}))}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def _some_bytes():
    """Byte-level with the bytes of English only, and nothing for the others."""
    from tokenizers import pre_tokenizers

    tokenizer = byte_tokenizer([bytes([b]) for b in range(32, 127)] + [b"th", b"the"], [(b"t", b"h"), (b"th", b"e")])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer


def _added(name: str):
    """Added tokens of all sorts."""
    from tokenizers import AddedToken

    tokenizer = _trained(name, 1000)
    tokenizer.add_tokens(
        [
            AddedToken("naïve"),
            AddedToken("two words", normalized=False),
            AddedToken("<left>", lstrip=True),
            AddedToken("<right>", rstrip=True, normalized=False),
            AddedToken("word", single_word=True),
            AddedToken("Ünïcödé", normalized=True, lstrip=True, rstrip=True),
        ]
    )
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<sep>", normalized=True)])
    return tokenizer


def _nfc():
    from tokenizers import normalizers

    return _byte_level_bpe(_split(_QWEN), normalizer=normalizers.NFC())


MADE = {
    "like gpt2": lambda: _byte_level_bpe(use_regex=True),
    "like roberta, prefix space": lambda: _byte_level_bpe(use_regex=True, prefix=True),
    "like llama3": _llama3,
    "like qwen": _nfc,
    "like starcoder": _starcoder,
    "like neox": _neox,
    "like tekken": lambda: _byte_level_bpe(_split(_TEKKEN)),
    "like superword": _superword,
    "like llama2": _llama2,
    "like mistral": _mistral,
    "like gemma": _gemma,
    "like xlm-r": _xlmr,
    "like t5": _t5,
    "like albert": _albert,
    "byte-level unigram": _byte_level_unigram,
    "wordpiece, uncased": _uncased,
    "like gpt1": _gpt1,
    "like clip": _clip,
    "continuing bpe": _continuing_bpe,
    "bytes": lambda: byte_tokenizer([bytes([b]) for b in range(256)]),
    "characters": lambda: _characters("�"),
    "characters, no unknown": lambda: _characters(None),
    "characters as words": _words_of_characters,
    "words": _words,
    "some bytes": _some_bytes,
    "added tokens": lambda: _added("bpe"),
    "added tokens, sentencepiece": lambda: _added("sentencepiece-bpe"),
    "added tokens, wordpiece": lambda: _added("wordpiece"),
}
