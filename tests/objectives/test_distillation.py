"""Learning from the original model: 0 with its own tokenizer and table, and otherwise what plain float64 gives."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from objectives.settings import body_of, setting_of

from zett.config import LossConfig
from zett.errors import UserError
from zett.hypernet.scaling import source_rows
from zett.lms.bert import BertConfig
from zett.objectives import OBJECTIVES, WeightedSum
from zett.objectives.distillation import Distillation, check_taught, chunk_distance
from zett.objectives.setting import Encoded
from zett.objectives.teaching import TaughtTexts
from zett.vocab.alignment import Teacher
from zett.vocab.load import vocabulary_of

TEXTS = ["The old cat sat on a mat, and two dogs ran.", "def f1(x):\n    return x + 12\n", "Birds sang", "naïve trees"]
LENGTH = 24
ALL = {"token": 1.0, "hidden": 0.5, "chunk": 0.25}


@pytest.fixture(scope="module")
def target():
    return vocabulary_of(tiny.tokenizer("unigram", 330))


def encoded(vocab, teacher: Teacher, texts=TEXTS, length: int = LENGTH) -> Encoded:
    rows = [vocab.tokenizer.encode(text, add_special_tokens=False).ids[:length] for text in texts]
    ids = np.zeros((len(rows), length), np.int32)
    for row, some in zip(ids, rows):
        row[: len(some)] = some
    lengths = np.asarray([len(row) for row in rows])
    return Encoded(
        ids, lengths, vocab.byte_lengths[ids], spelled=ids, spelling=functools.partial(teacher.student, vocab)
    )  # fmt: skip


def objective_for(base, weights, **changes) -> Distillation:
    loss = LossConfig(**{name: changes.pop(name) for name in list(changes) if name in vars(LossConfig())})
    return Distillation(setting_of(base, source_rows=source_rows(base.table), loss=loss, **changes), weights)


def table_for(base, vocab, seed=3):
    rng = np.random.default_rng(seed)
    rows = [rng.normal(size=(len(vocab), base.table.input.shape[1])).astype(np.float32) for _ in range(2)]
    return dataclasses.replace(base.table, input=rows[0], output=rows[1], num_valid=np.int32(len(vocab)))


@pytest.mark.parametrize(
    "settings", [{}, {"hidden_layers": (0, 1, -1)}, {"chunk_distance": "cross-entropy", "chunk_ends": "all"}]
)
def test_the_teacher_itself_has_nothing_to_learn(base, settings):
    objective = objective_for(base, {"hidden": 1.0, "chunk": 1.0}, **settings)
    texts = encoded(base.vocab, objective.teacher)
    batch = objective.batch(texts, [])
    assert (
        batch["place_weights"].sum(1).tolist() == np.minimum(texts.lengths, LENGTH - 1).tolist()
        or (batch["place_weights"].sum(1) == texts.lengths).all()
    )
    assert batch["chunk_weights"].sum() > 20

    def loss(rows):
        table = dataclasses.replace(base.table, input=rows[0], output=rows[1])
        return objective(table, body_of(base), objective.frozen(), batch)

    rows = (base.table.input, base.table.output)
    (value, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(rows)
    assert abs(float(value)) < 1e-6 and abs(float(metrics["hidden"])) < 1e-9 and abs(float(metrics["chunk"])) < 1e-6
    assert max(np.abs(g).max() for g in gradient) < 1e-3
    moved = (rows[0] + 0.3 * np.random.default_rng(0).normal(size=rows[0].shape).astype(np.float32), rows[1])
    assert float(loss(moved)[0]) > 0.01


# ------------------------------------------------------------------------------------------------- against plain float64


def body64(base, rows, ids):
    """States of one text, opened by the base's own row."""
    x = np.concatenate([base.bos_row[None], rows[ids[:-1]]])[None]
    return np.asarray(body_of(base)(jnp.asarray(x, jnp.float32)), np.float64)[0]


def logs64(h, rows, ids):
    logits = h @ np.asarray(rows, np.float64).T
    return (
        logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(-1, keepdims=True)
    )[np.arange(len(ids)), ids]


def test_both_are_what_plain_float64_gives(base, target):
    objective = objective_for(base, {"hidden": 1.0, "chunk": 1.0})
    texts, table = encoded(target, objective.teacher), table_for(base, target)
    _, metrics = objective(table, body_of(base), objective.frozen(), objective.batch(texts, []))
    ours, theirs, apart = [], [], []
    for row, length in zip(texts.ids, texts.lengths):
        ids = row[:length]
        text = b"".join(target.tokens[i] for i in ids)
        read = base.vocab.tokenizer.encode(text.decode("utf-8", "ignore"), add_special_tokens=False).ids
        padded = np.pad(read, (0, max(0, LENGTH - len(read))))[:LENGTH]  # what comes after changes nothing before it
        h, g = body64(base, table.input, row), body64(base, np.asarray(base.table.input), padded)
        ends = [np.cumsum([0, *(len(v.tokens[i]) for i in some)]).tolist() for v, some in ((target, ids), (base.vocab, read))]
        shared = [(ends[0].index(e), ends[1].index(e)) for e in ends[0] if e in ends[1]]
        shared = [(a, b) for a, b in shared if a < length and b < LENGTH]
        ours += [h[a] for a, _ in shared]
        theirs += [g[b] for _, b in shared]
        word = [c.isalnum() or c == "_" for c in text.decode("latin-1")]  # bytes beyond ASCII count as letters
        word = [w or byte >= 128 for w, byte in zip(word, text)]
        free = [(a, b) for a, b in shared if not (0 < ends[0][a] < len(text) and word[ends[0][a] - 1] and word[ends[0][a]])]
        mine, its = logs64(h, table.output, row), logs64(g, base.table.output, padded)
        apart += [mine[a:c].sum() - its[b:d].sum() for (a, b), (c, d) in itertools.pairwise(free)]
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    hidden = np.square(ours - theirs).sum() / np.square(theirs - theirs.mean(0)).sum()
    assert len(ours) > 30 and len(apart) > 15
    assert float(metrics["hidden"]) == pytest.approx(hidden, rel=1e-4)
    assert float(metrics["chunk"]) == pytest.approx(np.square(apart).mean(), rel=1e-4)


@pytest.mark.parametrize(
    "settings", [{"hidden_layers": (1, -1)}, {"chunk_distance": "cross-entropy", "chunk_temperature": 20.0}]
)
def test_the_gradient_is_that_of_finite_differences(base, target, settings):
    objective = objective_for(base, ALL, **settings)
    table, frozen = table_for(base, target), objective.frozen()
    batch = objective.batch(encoded(target, objective.teacher), [])

    @jax.jit
    def loss(input, output):
        return objective(dataclasses.replace(table, input=input, output=output), body_of(base), frozen, batch)[0]

    gradient = jax.grad(loss, (0, 1))(table.input, table.output)
    rng = np.random.default_rng(0)
    for side in (0, 1):
        rows = [table.input, table.output]
        direction = rng.normal(size=rows[side].shape).astype(np.float32)
        step = 3e-3
        values = []
        for sign in (1, -1):
            moved = list(rows)
            moved[side] = rows[side] + sign * step * direction
            values.append(float(loss(*moved)))
        slope = (values[0] - values[1]) / (2 * step)
        assert float((gradient[side] * direction).sum()) == pytest.approx(slope, rel=0.02, abs=2e-3)


@pytest.mark.parametrize("trains_body", [False, True])
def test_microbatches_change_nothing(base, target, trains_body):
    found = []
    teacher = base if trains_body else None  # a body that is trained is not the teacher's
    for number in (1, 2):
        objective = objective_for(base, ALL, microbatches=number, trains_body=trains_body, teacher=teacher)
        table, frozen = table_for(base, target), objective.frozen()
        assert ("teacher_body" in frozen) == trains_body
        batch = objective.batch(encoded(target, objective.teacher), [])
        assert batch.keys() == objective.specs.keys()

        def loss(rows, params, objective=objective, batch=batch, frozen=frozen, table=table):
            made = dataclasses.replace(table, input=rows[0], output=rows[1])
            return objective(made, dataclasses.replace(body_of(base), params=params), frozen, batch)

        arguments = (0, 1) if trains_body else 0
        found.append(
            jax.jit(jax.value_and_grad(loss, arguments, has_aux=True))((table.input, table.output), base.params)
        )  # fmt: skip
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5), *found)


def test_the_next_token_is_the_same_beside_them(base, target):
    """One pass of the body serves all; the sum is by weights."""
    table, values = table_for(base, target), {}
    source = source_rows(base.table)
    for weights in ({"token": 1.0}, {"token": 2.0, "hidden": 0.5, "chunk": 0.1}, {"token": 1.0, "hidden": 1.0}):
        loss = LossConfig(lexical=0.0, **weights)
        both = WeightedSum.of(OBJECTIVES, loss, setting_of(base, source_rows=source, loss=loss))
        assert len(both.terms) == 1
        texts = encoded(target, Teacher(base.vocab))
        values[tuple(weights)] = total, metrics = both(table, body_of(base), both.frozen(), both.batch(texts, []))
        added = sum(weight * float(metrics[{"token": "lm"}.get(name, name)]) for name, weight in weights.items())
        assert float(total) == pytest.approx(added, rel=1e-5)
    lm = [(float(m["lm"]), float(m["bits_per_byte"])) for _, m in values.values()]
    assert lm[1] == pytest.approx(lm[0], rel=1e-5) and lm[2] == pytest.approx(lm[0], rel=1e-5)


# ------------------------------------------------------------------------------------------------------------ the batches


def test_chunks_end_with_words(target, base):
    texts = encoded(target, Teacher(base.vocab))
    taught = TaughtTexts(Teacher(base.vocab), texts)
    words, every = taught.chunks("words"), taught.chunks("all")
    assert 0 < words["chunk_weights"].sum() < every["chunk_weights"].sum()
    for row, (ids, teacher_ids) in enumerate(zip(texts.ids, taught.ids)):
        for number in np.flatnonzero(words["chunk_weights"][row]):
            own = b"".join(target.tokens[i] for i in ids[words["chunk_of"][row] == number])
            its = b"".join(base.vocab.tokens[i] for i in teacher_ids[words["teacher_chunk_of"][row] == number])
            assert own == its and own


def test_chunks_with_unknown_tokens_are_left_out(base):
    """Their probability is of something that the teacher does not see."""
    import tokenizers

    spec = tokenizers.Tokenizer(tokenizers.models.BPE({"<unk>": 0, "a": 1, "b": 2, " ": 3}, [], unk_token="<unk>"))
    vocab, teacher = vocabulary_of(spec), Teacher(base.vocab)
    texts = encoded(vocab, teacher, ["a b aéa b aa b"], 20)
    assert 0 in texts.ids[0][: texts.lengths[0]]
    found = TaughtTexts(teacher, texts).chunks("words")
    at = found["chunk_of"][0, texts.ids[0].tolist().index(0)]
    assert found["chunk_weights"][0, at] == 0 and found["chunk_weights"][0].sum() > 2


# -------------------------------------------------------------------------------------------------------------- distances


def test_the_distance_of_chunks():
    """The cross-entropy is the plain one, and goes to its limit, which near equality is half the square over -ln p."""
    a, b = np.asarray([0.5, 3.0, 20.0]), np.asarray([0.7, 2.5, 26.0])
    for t in (1.0, 5.0):
        p, q = np.exp(-a / t), np.exp(-b / t)
        plain = t * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
        np.testing.assert_allclose(chunk_distance(b, a, "cross-entropy", t), plain, rtol=2e-4, atol=1e-8)
    np.testing.assert_allclose(chunk_distance(b, a, "cross-entropy", 1000.0), a * np.log(a / b) - a + b, rtol=0.03)
    near = chunk_distance(a * 1.02, a, "cross-entropy", 1000.0)
    np.testing.assert_allclose(near, np.square(0.02 * a) / (2 * a), rtol=0.06)
    np.testing.assert_allclose(chunk_distance(b, a, "squared", 1.0), np.square(a - b), rtol=1e-6)
    certain = jax.grad(lambda x: chunk_distance(x, jnp.float32(0.0), "cross-entropy", 100.0))(jnp.float32(0.0))
    assert np.isfinite(certain)


def test_mistakes(base):
    for layers, message in (((), "is empty"), ((9,), r"has 9; .* with 2 layers has -3 to 2")):
        with pytest.raises(UserError, match=rf"config\.loss\.hidden_layers {message}"):
            objective_for(base, {"hidden": 1.0}, hidden_layers=layers, hidden=1.0)
    with pytest.raises(UserError, match=r"config\.loss\.chunk: what causal models predict is compared, and it is an encoder"):
        check_taught(LossConfig(chunk=1.0), "it", BertConfig())
    wider = dataclasses.replace(base, config=dataclasses.replace(base.config, hidden_size=2 * base.config.hidden_size))
    with pytest.raises(UserError, match=r"config\.loss\.hidden compares states of one width"):
        objective_for(base, {"hidden": 1.0}, hidden=1.0, teacher=wider)
