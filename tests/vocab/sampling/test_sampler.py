"""Drawn tokenizers: the same for the same (seed, step), of the sizes asked for, with right surface forms, and encoding as the
tokenizers library does."""

import concurrent.futures
import dataclasses
import hashlib
import json
import multiprocessing

import numpy as np
import pytest
from samplers import CONFIG, HINDI, STRANGE, content, digests, make, random_strings
from vocabularies import ODD, TEXTS, vocabulary

from zett.config import from_dict
from zett.errors import UserError
from zett.vocab.forms import token_features
from zett.vocab.priors import rank_prior, unigram_prior
from zett.vocab.regexes import SENTENCES, STYLES, SUPERWORDS
from zett.vocab.sampling.counts import REQUIRED
from zett.vocab.sampling.pools import thin_unigram
from zett.vocab.sampling.sampler import KINDS, Sampler
from zett.vocab.sampling.texts import random_texts
from zett.vocab.train import train_tokenizer

DRAWN = set(KINDS) - {"near"}


@pytest.fixture(scope="module")
def sampler(text):
    return make(text)


@pytest.fixture(scope="module")
def draws(sampler):
    """Some, among which is each kind."""
    draws = [sampler.draw(step) for step in range(20)]
    assert {d.kind for d in draws} == DRAWN and {d.lowercase for d in draws if d.kind == "wordpiece"} == {True, False}
    return draws


def test_a_draw_depends_on_seed_and_step_alone(text, draws, monkeypatch, tmp_path):
    """In any order, in another process with the cache, and with a cache of its own."""
    again = make(text)
    for step in (7, 3, 11, 3, 0):
        assert content(again.draw(step)) == content(draws[step])
    monkeypatch.setenv("ZETT_CACHE", str(tmp_path))
    fresh = make(text)
    assert [content(fresh.draw(step)) for step in range(20)] == list(map(content, draws))
    assert not list(tmp_path.rglob(".*"))


SUBSTRINGS = {"bpe": 0.0, "unigram": 0.0, "wordpiece": 0.0, "superword": 0.0}


@pytest.mark.parametrize("changes", [{}, SUBSTRINGS | {"queue": 8, "queue_step": 3}])
def test_draws_are_the_same_however_many_processes_make_them(text, folder, changes):
    steps = 6
    alone = digests(folder, changes, range(steps))
    with concurrent.futures.ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        parts = [pool.submit(digests, folder, changes, range(first, steps, 3)) for first in range(3)]
        assert [parts[step % 3].result()[step // 3] for step in range(steps)] == alone
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        sampler = make(text, **changes)
        together = pool.map(lambda step: hashlib.sha256(repr(content(sampler.draw(step))).encode()).hexdigest(), range(steps))
        assert list(together) == alone


def test_steps_and_seeds_differ(text, draws):
    assert len({content(d)[1] for d in draws}) >= len(draws) - 2  # the pools hold little text here, and stop at one size
    other = make(text, seed=1)
    assert all(content(other.draw(step))[1] != content(draws[step])[1] for step in range(4))


def test_draws_encode_as_the_library_does(draws):
    texts = [*ODD, *STRANGE, *(text[:3000] for text in TEXTS), *random_strings(300)]
    for draw in draws:
        ids, lengths = draw.encode(texts, 4000)
        expected = [encoding.ids for encoding in draw.tokenizer.encode_batch(texts, add_special_tokens=False)]
        assert [row[:n].tolist() for row, n in zip(ids, lengths)] == expected, draw.kind
        for limit in (1, 5):
            cut, lengths = draw.encode(texts, limit)
            assert cut.shape == (len(texts), limit) and lengths.tolist() == [min(len(row), limit) for row in expected]
            np.testing.assert_array_equal(cut, ids[:, :limit])


def test_draws_are_lossless(draws):
    for draw in draws:
        for text in [*ODD, *STRANGE, TEXTS[0][:2000]]:
            [ids], [n] = draw.encode([text], 4000)
            # SentencePiece's mark for a space is one, and the library writes a sigma at a word's end like any other.
            expected = text.replace("Σ", "\u03c3").lower() if draw.lowercase else text
            assert b"".join(draw.tokens[i] for i in ids[:n]) == expected.encode(), draw.kind


def test_sizes_and_bytes(draws):
    for draw in draws:
        assert CONFIG.min_size <= len(draw.tokens) <= CONFIG.max_size
        assert len(draw.tokens) == draw.tokenizer.get_vocab_size() == len(draw.forms)
        assert {bytes([b]) for b in range(256)} <= set(draw.tokens)
        texts = [t for t in draw.tokens if t]
        assert len(texts) == len(set(texts))
    assert len({len(d.tokens) for d in draws}) > 6


def test_sizes_may_be_fixed(text):
    fixed = make(text, sizes="fixed", max_size=900)
    for step in range(12):
        draw = fixed.draw(step)
        assert len(draw.tokens) == 900 == draw.tokenizer.get_vocab_size()


def test_small_vocabularies(text):
    """Not below what has to be in them."""
    draws = [make(text, min_size=10, max_size=270).draw(step) for step in range(18)]
    assert {d.kind for d in draws} == DRAWN
    for draw in draws:
        assert len(draw.tokens) < 600
        [ids], [n] = draw.encode([TEXTS[0][:500].lower()], 500)
        assert b"".join(draw.tokens[i] for i in ids[:n]) == TEXTS[0][:500].lower().encode()


def test_forms_are_what_a_direct_decomposition_gives(draws):
    source = vocabulary("bpe")
    for draw in draws:
        pieces, lengths = source.decompose(list(draw.tokens)).padded(6)
        np.testing.assert_array_equal(draw.forms.pieces, pieces)
        np.testing.assert_array_equal(draw.forms.lengths, lengths)
        assert draw.forms.same.tolist() == [source.id_of.get(t, -1) if t else -1 for t in draw.tokens]
        if draw.kind in ("bpe", "wordpiece", "superword"):
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
        texts = list(random_texts(text, CONFIG.pool_bytes, rng))
        directly.append(train_tokenizer("bpe", len(draw.tokens), texts, word_regex=STYLES[number]))
    models = [json.loads(t.to_str())["model"] for t in directly]
    mine = json.loads(draw.tokenizer.to_str())["model"]
    [which] = [i for i, model in enumerate(models) if (model["vocab"], model["merges"]) == (mine["vocab"], mine["merges"])]
    for odd in ODD:
        assert draw.tokenizer.encode(odd).ids == directly[which].encode(odd).ids


def test_tokens_of_several_words_are_drawn_where_asked_for(text, draws):
    several = {d.kind: sum(b" " in t.strip() for t in d.tokens) for d in draws}
    assert several.pop("superword") > 5 and not any(several.values())
    members = make(text, pool=4, **SUBSTRINGS | {"substring": 0.0, "superword": 1.0}).pools.members["superword"]
    assert [m.style for m in members] == [SUPERWORDS, SENTENCES] * 2
    plain = make(text, superword=0.0)
    assert {plain.draw(step).kind for step in range(12)} == DRAWN - {"superword"}


def test_draws_of_one_member_differ_in_more_than_size(sampler):
    rng = np.random.default_rng(0)
    [member, *_] = sampler.pools.members["unigram"]
    for draw in (lambda: thin_unigram(member, 700, rng), lambda: sampler.substrings.draw(rng, 700, 0, None)):
        first, second = (draw().tokens for _ in range(2))
        assert len(first) == len(second) == 700 and set(first) != set(second)


def test_words_keep_their_combining_marks(sampler, draws):
    drawn = [d for d in draws if d.kind == "substring"]
    for draw in drawn:
        words = draw.tokenizer.pre_tokenizer.pre_tokenize_str(HINDI)
        assert len(words) == len(HINDI.split())
    # Whole words are among the candidates, although most of their letters carry marks.
    assert {"लिखा".encode(), " में".encode()} <= set(sampler.substrings.candidates.tokens)


def test_candidates_are_whole_characters(sampler):
    tokens = list(sampler.substrings.candidates.tokens)
    assert tuple(tokens[: len(REQUIRED)]) == REQUIRED
    assert len(tokens) == len(set(tokens)) == len({*tokens, *REQUIRED})
    for token in tokens[256:]:
        assert token.decode() and len(token) <= max(CONFIG.max_bytes, 17)


# ------------------------------------------------------------------------------------------- sources, queue, what is kept


def devanagari(draw) -> float:
    """Share of the tokens beside the required ones that are in that script."""
    texts = [t for t in draw.tokens if t not in REQUIRED]
    return sum("\u0900" <= t.decode(errors="ignore")[-1:] <= "\u097f" for t in texts) / len(texts)


def two(text, other, **changes) -> Sampler:
    config = dataclasses.replace(CONFIG, **SUBSTRINGS, sizes="fixed", max_size=700, texts=("a", "b"))
    return Sampler(dataclasses.replace(config, **changes), [text, other], vocabulary("bpe"), 6, 0)


@pytest.mark.parametrize("queue", [0, 32])
def test_sources_are_mixed_by_weight(text, other, queue):
    means = []
    for weights in ((30.0, 1.0), (1.0, 1.0), (1.0, 30.0)):
        sampler = two(text, other, text_weights=weights, queue=queue, queue_step=32)
        means.append(np.mean([devanagari(sampler.draw(step)) for step in range(8)]))
    assert means[0] < means[1] - 0.02 < means[2] - 0.04


@pytest.mark.parametrize("queue", [0, 16])
def test_one_source_a_step(text, other, queue):
    sampler = two(text, other, bpe=1.0, substring=1.0, one_text=True, text_weights=(3.0, 1.0), queue=queue)
    draws = [sampler.draw(step) for step in range(40)]
    assert 4 <= sum(draw.text_number == 1 for draw in draws) <= 18
    for draw in draws:
        latin = sum(t.isalpha() and t.isascii() for t in draw.tokens)
        assert (latin == 52) == (draw.text_number == 1), draw.kind


def test_pools_of_weighted_sources_are_mixtures(text, other):
    sampler = two(text, other, wordpiece=1.0, substring=0.0, text_weights=(1.0, 1.0), pool=1)
    shares = [devanagari(sampler.draw(step)) for step in range(8)]
    assert len(sampler.pools.members["wordpiece"]) == 2 and all(0 < share < 1 for share in shares)


def test_nothing_is_made_twice(text, monkeypatch):
    """What is known of the text does not depend on how it is drawn from; decompositions depend on the base model alone."""
    make(text)

    def never(*args, **kwargs):
        raise AssertionError("made again")

    monkeypatch.setattr("zett.vocab.sampling.pools.train_tokenizer", never)
    monkeypatch.setattr("zett.vocab.sampling.substrings.count_inventory", never)
    make(text, min_size=700, noise_std=1.0, substring=0.9, rows=10, sizes="fixed")
    monkeypatch.setattr("zett.vocab.decompose.Decomposer.__call__", never)
    make(text)
    monkeypatch.undo()


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"text_weights": (1.0,), "texts": ("a", "b")},
            r"config\.sampler\.text_weights is \(1\.0,\).*each of the 2 texts",
        ),
        ({"text_weights": (1.0, 0.0), "texts": ("a", "b")}, r"text_weights is \(1\.0, 0\.0\)"),
        ({"queue": -1}, r"config\.sampler\.queue is -1"),
        ({"wordpiece": -0.1}, r"config\.sampler\.wordpiece is -0\.1"),
        ({"lowercase": 1.5}, r"config\.sampler\.lowercase is 1\.5"),
        ({"bpe": 0, "unigram": 0, "substring": 0}, "at least one kind"),
        ({"sizes": "normal"}, "log-uniform"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        from_dict({"sampler": changes})
