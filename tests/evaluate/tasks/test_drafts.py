"""Drafts: agreement with a big model along its own text, by a plain computation."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny
from evaluate.lines import LINES

from zett import load_base_model, load_tokenizer
from zett.errors import UserError
from zett.evaluate.tasks import make_task
from zett.evaluate.tasks.drafts import drafted, expected_length
from zett.generate import generate_ids
from zett.lms.body import Body
from zett.methods import make_method

TEXTS = ["".join(LINES), "short", "".join(LINES[2:]), "def f(x):\n    return x + 1\n" * 3]
PROMPT, TOKENS = 12, 20


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    base = load_base_model(tiny.base_folder(tmp_path_factory.mktemp("big") / "model", dtype="float32"))
    return dataclasses.replace(base, vocab=dataclasses.replace(base.vocab, ends=()))


@pytest.fixture(scope="module")
def small(tmp_path_factory, big):
    """A narrower model of one layer, whose rows for the big one's tokens FVT made."""
    config = dataclasses.replace(tiny.CONFIG, num_layers=1)
    own = tiny.tokenizer(size=350)
    base = load_base_model(tiny.base_folder(tmp_path_factory.mktemp("small") / "model", config=config, own=own, tied=True))
    return base.with_vocabulary(make_method("fvt")(base, big.vocab), big.vocab)


@pytest.fixture(scope="module")
def task():
    return make_task("drafts", batch_size=2, prompt=PROMPT, tokens=TOKENS, temperature=0.7, seed=3)


@pytest.fixture(scope="module")
def items(task, big):
    return task.items(big, TEXTS)


def logits(model, ids):
    h = Body(model.graphdef, model.params)(model.table.embed(np.asarray(ids)[None]))
    return np.asarray(model.table.unembed(h))[0, PROMPT - 1 : -1]


def test_what_the_big_model_writes(big, items):
    assert items.texts == (TEXTS[0], TEXTS[2], TEXTS[3]) and items.weights.tolist() == [TOKENS] * 3
    for text, greedy in zip(items.texts, items.greedy.ids.tolist()):
        start = big.vocab.tokenizer.encode(text, add_special_tokens=False).ids[:PROMPT]
        assert greedy == [*start, *generate_ids(big, start, max_tokens=TOKENS)]
    assert (items.sampled.ids[:, :PROMPT] == items.greedy.ids[:, :PROMPT]).all()
    assert (items.sampled.ids != items.greedy.ids).any()


def test_agreement_is_that_of_the_distributions(big, small, task, items):
    found = task.agreement(small, items)
    for n in range(len(items)):
        greedy, sampled = items.greedy.ids[n], items.sampled.ids[n]
        np.testing.assert_array_equal(found.agreed[n], logits(small, greedy).argmax(-1) == greedy[PROMPT:])
        p, q = (np.asarray(jax.nn.softmax(logits(model, sampled) / 0.7)) for model in (big, small))
        np.testing.assert_allclose(found.overlap[n], np.minimum(p, q).sum(-1), rtol=1e-4)
    assert 0 < found.overlap.min() and found.overlap.max() < 1
    np.testing.assert_array_equal(task.score(small, items), found.agreed.sum(1))


def test_the_chance_is_how_often_a_drawn_token_is_kept(big, small, task, items):
    """Speculative sampling as it is done, many times."""
    p, q = (
        np.asarray(jax.nn.softmax(logits(model, items.sampled.ids[0]) / 0.7))[4].astype(np.float64) for model in (big, small)
    )
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(q), 20000, p=q / q.sum())
    kept = rng.random(20000) < p[drawn] / q[drawn]
    assert kept.mean() == pytest.approx(task.agreement(small, items).overlap[0, 4], abs=0.015)


def test_the_big_model_drafts_for_itself(big, task, items):
    found = task.agreement(big, items)
    assert found.agreed.all() and items.mean(task.score(big, items)) == 1.0
    np.testing.assert_allclose(found.overlap, 1, atol=1e-5)


def test_nothing_counts_after_the_end_of_a_text(big, items, task):
    first = items.greedy.new_ids[0]
    at = next(i for i in range(3, TOKENS) if first[i] not in first[:i])
    ending = dataclasses.replace(big, vocab=dataclasses.replace(big.vocab, ends=(int(first[at]),)))
    ended = task.items(ending, TEXTS)
    assert ended.greedy.lengths[0] == at + 1 == ended.weights[0]
    found = task.agreement(ending, ended)
    assert found.agreed[0].tolist() == [True] * (at + 1) + [False] * (TOKENS - at - 1)
    assert (found.overlap[~ended.sampled.counts] == 0).all()


def test_drafts_are_counted():
    yes, no = True, False
    agreed = np.asarray([[yes, yes, no, yes, yes, yes, no, yes], [yes] * 8])
    made = drafted(agreed, np.asarray([8, 5]), 3)
    # yes yes no | yes yes yes + no | yes: the last token is the big model's own, and nothing is drafted for it.
    assert (made.drafts, made.drafted, made.accepted) == (3, 3 + 3 + 0 + 3, 2 + 3 + 0 + 3)
    assert expected_length(0.5, 3) == 0.5 + 0.25 + 0.125 and expected_length(1.0, 4) == 4


def test_what_cannot_be_measured_is_refused(big, task, items, tmp_path):
    other = load_base_model(tiny.base_folder(tmp_path / "model", own=tiny.tokenizer(size=290)))
    with pytest.raises(UserError, match=r"model cannot draft for .*model: \d+ ids differ"):
        task.score(other, items)
    with pytest.raises(UserError, match="no text has 12 tokens to begin with; give longer texts"):
        task.items(big, ["short"])
    with pytest.raises(UserError, match="has 64 positions, too few for 12 tokens and 60 more; write less"):
        make_task("drafts", prompt=12, tokens=60).items(big, TEXTS)
    assert load_tokenizer(big.folder).ends  # those of the fixture were taken away
