"""Drawn tokenizers: the same for the same (seed, step), lossless, of the sizes asked for, and with right surface forms."""

import collections
import dataclasses
import json

import numpy as np
import pytest
import regex
from vocabularies import ODD, TEXTS, vocabulary

from zett.config import SamplerConfig
from zett.data.text import Documents, open_text
from zett.errors import UserError
from zett.vocab import sample
from zett.vocab.build import WORD_REGEX, train_tokenizer
from zett.vocab.decompose import Decomposer
from zett.vocab.sample import BYTES, SPACES, Sampler, count_substrings
from zett.vocab.vocabulary import pad_pieces, rank_prior, token_features, unigram_prior

CONFIG = SamplerConfig(
    min_size=600, max_size=1200, pool=2, pool_bytes=60_000, inventory=3000, inventory_bytes=200_000, shards=4
)  # fmt: skip
HINDI = "हिन्दी में लिखा हुआ है और किताबें विद्यार्थियों को पढ़नी चाहिए"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZETT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Documents:
    folder = tmp_path_factory.mktemp("text")
    for i, content in enumerate([*TEXTS, HINDI * 30]):
        (folder / f"{i}.txt").write_text(content)
        (folder / f"{i}b.txt").write_text(content[::-1][:2000])
    return open_text(str(folder))


def make(text, *, seed=0, **changes) -> Sampler:
    return Sampler(dataclasses.replace(CONFIG, **changes), [text], vocabulary("bpe"), 6, seed)


@pytest.fixture(scope="module")
def sampler(text):
    return make(text)


@pytest.fixture(scope="module")
def draws(sampler):
    """Twelve of them, among which is each kind."""
    draws = [sampler.draw(step) for step in range(12)]
    assert {d.kind for d in draws} == {"bpe", "unigram", "substring"}
    return draws


def content(draw):
    arrays = [getattr(draw.forms, f.name).tobytes() for f in dataclasses.fields(draw.forms)]
    return draw.kind, draw.tokenizer.to_str(), list(draw.tokens), arrays


def test_a_draw_depends_on_seed_and_step_alone(text, draws, monkeypatch, tmp_path):
    """In any order, in another process with the cache, and with a cache of its own."""
    again = make(text)
    for step in (7, 3, 11, 3, 0):
        assert content(again.draw(step)) == content(draws[step])
    monkeypatch.setenv("ZETT_CACHE", str(tmp_path))
    fresh = make(text)
    assert [content(fresh.draw(step)) for step in range(12)] == list(map(content, draws))
    assert not list(tmp_path.rglob("*.tmp*"))


def test_steps_and_seeds_differ(text, draws):
    assert len({content(d)[1] for d in draws}) == len(draws)
    other = make(text, seed=1)
    assert all(content(other.draw(step))[1] != content(draws[step])[1] for step in range(4))


def test_draws_are_lossless(draws):
    for draw in draws:
        for text in [*ODD, "".join(ODD), HINDI, TEXTS[0][:2000], "<|endoftext|><|pad|><unk>"]:
            ids = draw.tokenizer.encode(text, add_special_tokens=False).ids
            assert b"".join(draw.tokens[i] for i in ids) == text.encode(), draw.kind


def test_sizes_and_bytes(draws):
    for draw in draws:
        assert CONFIG.min_size <= len(draw.tokens) <= CONFIG.max_size
        assert len(draw.tokens) == draw.tokenizer.get_vocab_size() == len(draw.forms)
        assert {bytes([b]) for b in range(256)} <= set(draw.tokens)
        texts = [t for t in draw.tokens if t]
        assert len(texts) == len(set(texts))
    assert len({len(d.tokens) for d in draws}) > 6


def test_small_vocabularies(text):
    """Not below what has to be in them."""
    draws = [make(text, min_size=10, max_size=270).draw(step) for step in range(12)]
    assert {d.kind for d in draws} == {"bpe", "unigram", "substring"}
    for draw in draws:
        assert len(draw.tokens) < 600
        ids = draw.tokenizer.encode(TEXTS[0][:500]).ids
        assert b"".join(draw.tokens[i] for i in ids) == TEXTS[0][:500].encode()


def test_forms_are_what_a_direct_decomposition_gives(draws):
    source = vocabulary("bpe")
    decompose = Decomposer(source)
    for draw in draws:
        pieces, lengths = pad_pieces(decompose(draw.tokens), 6)
        np.testing.assert_array_equal(draw.forms.pieces, pieces)
        np.testing.assert_array_equal(draw.forms.lengths, lengths)
        assert draw.forms.same.tolist() == [source.id_of.get(t, -1) if t else -1 for t in draw.tokens]
        if draw.kind == "bpe":
            prior = rank_prior(draw.tokens)
        else:
            entries = json.loads(draw.tokenizer.to_str())["model"]["vocab"]
            prior = unigram_prior(np.asarray([score for _, score in entries]), draw.tokens)
        np.testing.assert_allclose(draw.forms.features, token_features(draw.tokens, prior), atol=1e-5)


def test_a_bpe_draw_is_the_smaller_tokenizer_of_the_same_training(text, sampler, draws):
    draw = next(d for d in draws if d.kind == "bpe")
    directly = []
    for number in range(CONFIG.pool):
        rng = np.random.default_rng([0, number, 2])
        texts = list(sample._random_texts(text, CONFIG.pool_bytes, rng))
        directly.append(train_tokenizer("bpe", len(draw.tokens), texts, word_regex=sample._WORD_REGEXES[number]))
    models = [json.loads(t.to_str())["model"] for t in directly]
    mine = json.loads(draw.tokenizer.to_str())["model"]
    [which] = [i for i, model in enumerate(models) if (model["vocab"], model["merges"]) == (mine["vocab"], mine["merges"])]
    for odd in ODD:
        assert draw.tokenizer.encode(odd).ids == directly[which].encode(odd).ids


def test_draws_of_one_member_differ_in_more_than_size(sampler):
    rng = np.random.default_rng(0)
    [member, *_] = sampler._pools["unigram"]
    for draw in (lambda: sampler._thin_unigram(member, 700, rng), lambda: sampler._draw_substrings(rng, 700)):
        first, second = (draw().tokens for _ in range(2))
        assert len(first) == len(second) == 700 and set(first) != set(second)


def test_words_keep_their_combining_marks(sampler, draws):
    drawn = [d for d in draws if d.kind == "substring"]
    for draw in drawn:
        words = draw.tokenizer.pre_tokenizer.pre_tokenize_str(HINDI)
        assert len(words) == len(HINDI.split())
    # Whole words are among the candidates, although most of their letters carry marks.
    assert {"लिखा".encode(), " में".encode()} <= set(sampler._inventory.known.tokens)


def test_candidates_are_whole_characters(sampler):
    tokens = sampler._inventory.known.tokens
    assert tuple(tokens[: len(BYTES) + len(SPACES)]) == (*BYTES, *SPACES)
    assert len(tokens) == len(set(tokens)) and len(set(BYTES + SPACES)) == len(BYTES) + len(SPACES)
    for token in tokens[256:]:
        assert token.decode() and len(token) <= max(CONFIG.max_bytes, 17)


def test_substrings_are_counted_right(tmp_path):
    (tmp_path / "train.txt").write_text("\n\n".join(["naïve the", "the cat", "the\tcat", "naïve"] * 3))
    (tmp_path / "valid.txt").write_text("x")
    config = dataclasses.replace(CONFIG, shards=1, max_bytes=4)
    documents = open_text(str(tmp_path))
    tokens, counts = count_substrings([documents], config, 0)
    expected = collections.Counter()
    words = collections.Counter(regex.findall(WORD_REGEX, documents[0]))
    for word, n in words.items():
        for start in range(len(word) * (n > 1)):
            for end in range(start + 1, len(word) + 1):
                if 2 <= len(word[start:end].encode()) <= 4:
                    expected[word[start:end].encode()] += n
    total = sum(expected.values())
    found = dict(zip(tokens, counts[:, 0]))
    assert {t for t in found if found[t]} == set(expected) and expected[b"\n\n"] > 5
    for token, n in expected.items():
        assert found[token] == pytest.approx(n / total)
    score = [found[t] * len(t) for t in tokens[len(BYTES) + len(SPACES) :]]
    assert score == sorted(score, reverse=True)


def test_an_empty_text_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("once upon")
    with pytest.raises(UserError, match="too short to draw tokenizers"):
        make(open_text(str(tmp_path)), bpe=0.0, unigram=0.0)
