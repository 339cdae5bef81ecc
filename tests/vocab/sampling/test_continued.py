"""Tokenizers that go on from the merges of another one."""

import dataclasses
import json

import numpy as np
import pytest
from samplers import CONFIG, content, make
from vocabularies import ODD, TEXTS, vocabulary

from zett.errors import UserError
from zett.vocab import load_tokenizer
from zett.vocab.bytes import BYTE_TO_CHAR
from zett.vocab.continued import continued_bpe, own_merges
from zett.vocab.regexes import WORD_REGEX
from zett.vocab.sampling.sampler import Sampler
from zett.vocab.train import train_tokenizer

NEAR = {"bpe": 0.0, "unigram": 0.0, "substring": 0.0, "wordpiece": 0.0, "superword": 0.0, "near": 1.0}


def merges_of(tokenizer):
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]


def test_on_the_same_text_it_is_the_same_training():
    whole = train_tokenizer("bpe", 700, TEXTS)
    merges = merges_of(whole)
    for first in (0, 1, 200, len(merges)):
        again = continued_bpe(merges[:first], 700, TEXTS, WORD_REGEX)
        assert merges_of(again) == merges and again.get_vocab() == whole.get_vocab()
        assert [again.encode(text).ids for text in ODD] == [whole.encode(text).ids for text in ODD]


def test_on_another_text_it_keeps_what_it_had():
    merges, other = own_merges(vocabulary("bpe"))[:150], ["ein ganz anderer Text auf Deutsch, und noch einer\n" * 50]
    tokenizer = continued_bpe(merges, 450, other, WORD_REGEX)
    found = merges_of(tokenizer)
    assert found[:150] == merges and len(found) > 150 and tokenizer.get_vocab_size() <= 450
    assert "Ġanderer" in tokenizer.get_vocab() and "Ġanderer" not in vocabulary("bpe").tokenizer.get_vocab()
    ids = tokenizer.get_vocab()
    assert all(max(ids[a], ids[b]) < ids[a + b] for a, b in found)
    assert [ids[a + b] for a, b in found] == list(range(258, 258 + len(found)))


def test_draws(text):
    sampler = make(text, **NEAR)
    source = set(filter(None, vocabulary("bpe").tokens))
    shares = []
    for step in range(6):
        draw = sampler.draw(step)
        assert draw.kind == "near" and CONFIG.min_size * 0.5 < len(draw.tokens) <= CONFIG.max_size
        texts = [t for t in ODD if t]
        ids, lengths = draw.encode(texts, 400)
        for row, number, expected in zip(ids, lengths, draw.tokenizer.encode_batch(texts, add_special_tokens=False)):
            assert row[:number].tolist() == expected.ids[:400]
        shares.append(np.mean([token in source for token in draw.tokens if token]))
        assert (draw.forms.same >= 0).sum() == sum(token in source for token in draw.tokens if token)
    plain = make(text, **(NEAR | {"near": 0.0, "bpe": 1.0}))
    assert np.mean(shares) > np.mean([(plain.draw(step).forms.same >= 0).mean() for step in range(6)])
    again = make(text, **NEAR)
    assert content(again.draw(4)) == content(sampler.draw(4))


def test_without_it_draws_are_as_before(text):
    """Its share of 0 takes part in no choice."""
    sampler = make(text)
    assert sampler._config.near == 0.0 and "near" not in {sampler.draw(step).kind for step in range(12)}


def test_a_source_that_lacks_a_byte(tmp_path):
    """As SmolLM2's: no text has it, and its merges are there."""
    spec = json.loads(vocabulary("bpe").tokenizer.to_str())
    del spec["model"]["vocab"][BYTE_TO_CHAR[0xF4]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    vocab = load_tokenizer(tmp_path)
    assert vocab.format is not None and not vocab.format.complete
    assert own_merges(vocab) == own_merges(vocabulary("bpe"))


def test_a_source_without_merges_of_bytes(text):
    for kind in ("unigram", "sentencepiece-bpe"):
        with pytest.raises(UserError, match=r"config\.sampler\.near is above 0, but .* has no merges"):
            Sampler(dataclasses.replace(CONFIG, **NEAR), [text], vocabulary(kind), 6, 0)
