"""Masked bits per byte: the same words are hidden from every tokenizer, and what they cost is what Transformers says."""

import dataclasses

import numpy as np
import pytest
import tokenizers as tk
from encoders import KINDS, bases_in, torch_nats
from tiny import TEXT

from zett.data.masked import frame_of
from zett.errors import UserError
from zett.evaluate.evaluate import evaluate
from zett.evaluate.report import table
from zett.evaluate.results import load
from zett.evaluate.saving import save
from zett.evaluate.tasks.masked_bits_per_byte import MaskedBitsPerByte, hidden_tokens, hidden_words, token_spans
from zett.vocab.load import vocabulary_of


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return bases_in(tmp_path_factory.mktemp("encoders"))


def test_hidden_words_are_words():
    def words(text):
        return [text[a:b] for a, b in hidden_words(text, np.random.default_rng(0))]

    text = "Naïve हिन्दी word_one 日本語です, 'a' " * 40
    assert len(words(text)) == 60  # 15 % of ten words, forty times
    assert set(words(text)) == {"Naïve", "हिन्दी", "word_one", "日本", "語で", "す", ",", "'", "a"}
    assert words("one") == ["one"] and words(" \n") == []


def test_the_same_words_are_hidden_from_every_tokenizer(bases):
    windows = [line * 3 for line in TEXT if line.strip()]
    tokenizers = [base.vocab.tokenizer for base in bases.values()]
    unigram = tk.Tokenizer(tk.models.Unigram([("▁", -3.0), *((chr(c), -4.0) for c in range(33, 123)), ("▁the", -2.0)], 0))
    unigram.pre_tokenizer = tk.pre_tokenizers.Metaspace()
    task, base = MaskedBitsPerByte(), bases["bert"]
    items = task.items(base, windows)
    for tokenizer in [*tokenizers, unigram]:
        hidden = hidden_tokens(items, vocabulary_of(tokenizer))
        for row, text in enumerate(windows):
            spans = hidden_words(text, np.random.default_rng([0, row]))
            assert items.weights[row] == sum(len(text[a:b].encode()) for a, b in spans)
            for i, (a, b) in enumerate(tokenizer.encode(text, add_special_tokens=False).offsets):
                touches = any(set(range(a, b)) & set(range(*span)) for span in spans)
                assert hidden[row, i] == touches
    for other in bases.values():  # what counts is the same whichever model's tokenizer it is
        np.testing.assert_array_equal(task.items(other, windows).weights, items.weights)
    share = items.weights.sum() / sum(len(w.strip().encode()) for w in windows)
    assert 0.1 < share < 0.2
    # Of the same text elsewhere among the texts, other words.
    longest = max(windows, key=len)
    assert len({tuple(map(tuple, hidden_words(longest, np.random.default_rng([0, row])))) for row in range(9)}) > 1


def test_bytes_of_unknown_characters_have_the_characters_places():
    entries = [("<unk>", 0.0), *((f"<0x{b:02X}>", -9.0) for b in range(256)), ("a", -1.0)]
    tokenizer = tk.Tokenizer(tk.models.Unigram(entries, 0, byte_fallback=True))
    spans = token_spans("añ日a", tokenizer)
    assert [tuple(span) for span in spans] == [(0, 1), (1, 2), (1, 2), (2, 3), (2, 3), (2, 3), (3, 4)]


@pytest.mark.parametrize("kind", KINDS)
def test_nats_are_those_of_transformers(kind, bases):
    pytest.importorskip("torch")
    base = bases[kind]
    windows = [line for line in TEXT if 20 < len(line) < 60][:5]
    task, frame = MaskedBitsPerByte(batch_size=2), frame_of(base)
    items = task.items(base, windows)
    padded = dataclasses.replace(base, table=base.table.pad(512))
    scores = [task.score(model, items) for model in (base, padded)]
    np.testing.assert_allclose(*scores, rtol=1e-6)
    texts, labels = [], []
    for window, hidden in zip(windows, hidden_tokens(items, base.vocab)):
        ids = base.vocab.tokenizer.encode(window).ids  # with what the tokenizer puts around it
        masked = np.r_[False, hidden[: len(ids) - 2], False]
        texts.append(np.where(masked, frame.mask, ids).tolist())
        labels.append(np.where(masked, ids, -100).tolist())
    np.testing.assert_allclose(scores[0].sum() * np.log(2), torch_nats(base.folder, texts, labels), rtol=1e-5)


def test_evaluation(bases, tmp_path):
    base = bases["xlm-roberta"]
    windows = [line for line in TEXT if 20 < len(line) < 60]
    result = evaluate(base, {"own": base.vocab, "other": bases["bert"].vocab}, methods=["fvt"], windows=windows, progress=False)
    own, other = result.targets
    assert own.scores["fvt"].ratio == 1 and own.relative_length == 1 and other.scores["fvt"].ratio != 1
    task = MaskedBitsPerByte()
    items = task.items(base, windows)
    np.testing.assert_allclose(result.original["bits_per_byte"], items.mean(task.score(base, items)), rtol=1e-6)
    assert "masked bits per byte with its own tokenizer" in table(result)
    assert load(save(result, tmp_path)[0]).targets[1].scores == other.scores
    with pytest.raises(UserError, match=r"takes \d+ tokens of this tokenizer, and .* has positions for 62; .* \(--window\)"):
        evaluate(base, {"own": base.vocab}, windows=["a text " * 40], progress=False)
