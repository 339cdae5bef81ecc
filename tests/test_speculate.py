"""Speculative decoding writes what the big model alone writes, whatever the draft says; and counts what is kept."""

import dataclasses

import numpy as np
import pytest
import tiny
from lms import parity

from zett import load_base_model
from zett.errors import UserError
from zett.evaluate.tasks.drafts import drafted
from zett.generate import generate_ids
from zett.speculate import speculate, verified

START = [7, 11, 23, 8, 30]


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    base = load_base_model(tiny.base_folder(tmp_path_factory.mktemp("big") / "model", dtype="float32"))
    return without_ends(base)


def without_ends(base):
    return dataclasses.replace(base, vocab=dataclasses.replace(base.vocab, ends=()))


def noisy(base, scale, seed=0):
    """A draft that agrees now and then: the model itself with other rows."""
    rng, table = np.random.default_rng(seed), base.table
    moved = [
        np.asarray(rows) + scale * rng.standard_normal(rows.shape).astype(np.float32) for rows in (table.input, table.output)
    ]
    return dataclasses.replace(base, table=dataclasses.replace(table, input=moved[0], output=moved[1]))


@pytest.mark.parametrize("draft_tokens", [1, 4])
def test_it_writes_what_the_model_writes(big, draft_tokens):
    alone = list(generate_ids(big, START, max_tokens=20))
    kept = []
    for scale in (0.0, 0.2, 3.0):
        draft = noisy(big, scale)
        found = speculate(big, draft, START, max_tokens=20, draft_tokens=draft_tokens)
        assert list(found.ids) == alone
        best = [next(generate_ids(draft, [*START, *alone[:i]], max_tokens=1)) for i in range(20)]
        agreed = np.asarray([token == own for token, own in zip(best, alone)])
        # What is counted along the big model's text is what drafting does.
        counted = drafted(agreed[None], np.asarray([20]), draft_tokens)
        assert (found.drafts, found.drafted, found.accepted) == (counted.drafts, counted.drafted, counted.accepted)
        kept.append(found.accepted / found.drafted)
    assert kept[0] == 1.0 and kept[0] > kept[1] > kept[-1]


def test_what_is_kept_has_the_models_distribution():
    """Whatever the draft's is: of two drafted tokens and the one after them, in many draws."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.dirichlet(np.ones(5), 3), rng.dirichlet(np.ones(5), 2)
    counts, number = np.zeros((3, 5)), 20_000
    for _ in range(number):
        ahead = [int(rng.choice(5, p=chances)) for chances in theirs]
        agreed, token = verified(ahead, theirs, ours, rng)
        for place, one in enumerate([*ahead[:agreed], token]):
            counts[place, one] += 1
    totals = counts.sum(1, keepdims=True)
    assert totals[0] == number and (totals[1:] < number).all() and (totals > 1000).all()
    deviations = (counts - totals * ours) / np.sqrt(totals * ours * (1 - ours))
    assert np.abs(deviations).max() < 4


def test_sampled_tokens_have_the_models_chances(big, tmp_path):
    """Those that Transformers computes, of pairs of tokens in many texts; and the draft's own would be far off."""
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(big.folder, dtype=torch.float32).eval()
    with torch.no_grad():
        first = (model(torch.tensor([START])).logits[0, -1].double() / 0.7).softmax(-1).numpy()
        best = int(first.argmax())
        second = (model(torch.tensor([[*START, best]])).logits[0, -1].double() / 0.7).softmax(-1).numpy()
    draft, settings = noisy(big, 0.3), dict(max_tokens=2, draft_tokens=2, temperature=0.7)
    pairs = [speculate(big, draft, START, seed=seed, **settings).ids for seed in range(120)]
    assert pairs[0] == speculate(big, draft, START, seed=0, **settings).ids
    for token in np.argsort(-first)[:3]:
        n = sum(pair[0] == token for pair in pairs)
        assert abs(n - 120 * first[token]) < 4 * np.sqrt(120 * first[token] * (1 - first[token]))
    after = [pair[1] for pair in pairs if pair[0] == best]
    token = int(second.argmax())
    n, expected = sum(one == token for one in after), len(after) * second[token]
    assert len(after) > 20 and abs(n - expected) < 4 * np.sqrt(expected * (1 - second[token]))


def test_a_draft_like_the_model_is_always_kept(big):
    found = speculate(big, big, START, max_tokens=20, temperature=1.0, seed=3)
    assert found.accepted == found.drafted > 10
    with pytest.raises(UserError, match="temperature is -1; it has to be a number, at least 0"):
        speculate(big, big, START, temperature=-1)


def test_drafts_of_another_shape(big, tmp_path):
    """With fewer positions than the text gets: then the model goes on alone."""
    other = load_base_model(tiny.base_folder(tmp_path / "short", config=SHORT, dtype="float32", seed=4))
    alone = list(generate_ids(big, START, max_tokens=40))
    found = speculate(big, without_ends(other), START, max_tokens=40, draft_tokens=3)
    assert list(found.ids) == alone and 0 < found.drafted <= 3 * (SHORT.max_positions - len(START))


SHORT = dataclasses.replace(tiny.CONFIG, max_positions=16, num_layers=1)


def test_ends_end_a_text(big):
    alone = list(generate_ids(big, START, max_tokens=30))
    end = next(i for i in range(4, 30) if alone[i] not in alone[:i])
    ending = dataclasses.replace(big, vocab=dataclasses.replace(big.vocab, ends=(alone[end],)))
    for draft in (ending, noisy(ending, 0.3)):
        assert list(speculate(ending, draft, START, max_tokens=30).ids) == alone[: end + 1]


def test_what_makes_no_sense_is_refused(big, tmp_path):
    other = load_base_model(tiny.base_folder(tmp_path / "model", own=tiny.tokenizer(size=290)))
    with pytest.raises(
        UserError, match=r"model cannot draft for .*model: \d+ ids differ, the first is \d+, .*; transfer it with"
    ):
        speculate(big, other, START)
    with pytest.raises(UserError, match="without its body"):
        speculate(big, load_base_model(big.folder, body=False), START)
    for name in ("max_tokens", "draft_tokens"):
        with pytest.raises(UserError, match=f"{name} is 0; it has to be a whole number, at least 1"):
            speculate(big, big, START, **{name: 0})
    with pytest.raises(UserError, match="the prompt has 0 tokens"):
        speculate(big, big, [])
    phi = load_base_model(parity.base_folder("phi3-longrope", tmp_path / "phi"))
    with pytest.raises(UserError, match="reads its text anew when it is 12 tokens long; write less"):
        speculate(phi, phi, START, max_tokens=20)
