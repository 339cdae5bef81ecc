"""Vocabularies that several tests share: of each kind one trained here, and those beside the checkout where there are any."""

import argparse
import ast
import functools
import json
import random
import textwrap
from pathlib import Path

import pytest

from zett.vocab import Vocabulary, load_tokenizer
from zett.vocab.build import KINDS, train_tokenizer
from zett.vocab.vocabulary import vocabulary_of

SHARED = Path(__file__).parents[2] / "shared" / "data" / "tokenizers"
FOLDERS = sorted(p.name for p in SHARED.iterdir() if (p / "tokenizer.json").exists()) if SHARED.is_dir() else []
OTHERS = FOLDERS or [pytest.param("others", marks=pytest.mark.skip(reason=f"no tokenizers in {SHARED}"))]
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
    """A trained vocabulary by its kind, or one of the folders."""
    if name in FOLDERS:
        return load_tokenizer(SHARED / name)
    return vocabulary_of(_trained(name, size))


def _trained(name: str, size: int):
    import tokenizers

    if name in KINDS:
        return train_tokenizer(name, size, TEXTS)
    assert name == NO_FALLBACK
    spec = json.loads(train_tokenizer("sentencepiece-bpe", size, TEXTS[:-1]).to_str())
    spec["model"]["byte_fallback"] = False
    spec["model"]["vocab"] = {t: i for t, i in spec["model"]["vocab"].items() if not t.startswith("<0x")}  # leaves a hole
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


def byte_tokenizer(tokens: list[bytes], merges=()):
    """A byte-level BPE tokenizer of exactly these tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    from zett.vocab.bytes import to_alphabet

    pairs = [(to_alphabet(a), to_alphabet(b)) for a, b in merges]
    tokenizer = Tokenizer(models.BPE({to_alphabet(t): i for i, t in enumerate(tokens)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return tokenizer
