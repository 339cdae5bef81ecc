"""The next token: its nats are those of a plain softmax, and a text opens with the base's row or the trained table's."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from objectives.settings import body_of, setting_of, texts_of

from zett.objectives.next_token import NextToken


@pytest.fixture
def without_roles(base):
    """The same model with a tokenizer that has neither bos nor eos."""
    return dataclasses.replace(base, vocab=dataclasses.replace(base.vocab, roles={}))


def moved(table):
    """Other rows, as a table in training or a predicted one has them."""
    rng = np.random.default_rng(3)
    input, output = (rows + 0.3 * rng.normal(size=rows.shape).astype(np.float32) for rows in (table.input, table.output))
    return dataclasses.replace(table, input=input, output=output)


def expected_nats(base, table, first, texts):
    """By text, from a log_softmax of all logits."""
    opened = jnp.broadcast_to(first, (len(texts.ids), 1, table.input.shape[1]))
    h = body_of(base)(jnp.concatenate([opened, table.embed(texts.ids[:, :-1])], 1))
    logs = jnp.take_along_axis(jax.nn.log_softmax(table.unembed(h)), texts.ids[..., None], -1)[..., 0]
    return -np.where(texts.inside, logs, 0).sum(1)


@pytest.mark.parametrize("opening", [True, False])
def test_it_is_a_softmax_over_all_rows(base, opening):
    table, texts = moved(base.table), texts_of(base)
    objective = NextToken(setting_of(base, opening=opening))
    batch = objective.batch(texts, [])
    assert batch.keys() == objective.specs.keys() == {"targets", "weights", "bytes"}
    assert batch["weights"].sum(1).tolist() == texts.lengths.tolist()
    loss, metrics = objective(table, body_of(base), objective.frozen(), batch)
    first = base.bos_row if opening else table.input[base.vocab.roles.get("bos", base.vocab.roles["eos"])]
    nats, others = (expected_nats(base, table, row, texts).sum() for row in (first, table.input[5]))
    assert abs(nats - others) > 0.01  # the first row has its say
    assert float(loss) == float(metrics["lm"]) == pytest.approx(nats / texts.lengths.sum(), rel=1e-5)
    assert float(metrics["bits_per_byte"]) == pytest.approx(nats / math.log(2) / batch["bytes"].sum(), rel=1e-5)


def test_the_bases_row_opens_a_text_whatever_the_table(base, without_roles):
    """It is no row of the table, and gets no gradient from texts of one token."""
    texts = texts_of(base, (1, 1), width=1)
    for model in (base, without_roles):
        objective = NextToken(setting_of(model))
        np.testing.assert_array_equal(objective.frozen()["bos"], model.bos_row)

        def loss(rows, objective=objective):
            table = dataclasses.replace(base.table, input=rows)
            return objective(table, body_of(base), objective.frozen(), objective.batch(texts, []))[0]

        assert float(loss(base.table.input)) == float(loss(moved(base.table).input))
        assert not np.asarray(jax.grad(loss)(base.table.input)).any()


def test_a_trained_table_opens_a_text_with_its_own_row(base, without_roles):
    """That of bos, without one that of eos, and without either the mean of all: where the gradient goes."""
    texts, bos = texts_of(base, (1, 1), width=1), base.vocab.roles["bos"]
    eos = dataclasses.replace(base, vocab=dataclasses.replace(base.vocab, roles={"eos": bos + 1}))
    for model, rows in ((base, [bos]), (eos, [bos + 1]), (without_roles, range(len(base.vocab)))):
        objective = NextToken(setting_of(model, opening=False))
        assert objective.frozen() == {}

        def loss(input, objective=objective):
            table = dataclasses.replace(base.table, input=input)
            return objective(table, body_of(base), {}, objective.batch(texts, []))[0]

        gradient = np.asarray(jax.grad(loss)(base.table.input))
        assert np.flatnonzero(np.abs(gradient).sum(1)).tolist() == list(rows)


@pytest.mark.parametrize("trains_body", [False, True])
def test_microbatches_change_nothing(base, trains_body):
    """Value and gradients with respect to the rows, and to the body where that is trained; else it has none."""
    texts, found = texts_of(base), []
    for number in (1, 2, 4):
        objective = NextToken(setting_of(base, microbatches=number, trains_body=trains_body))
        batch, frozen = objective.batch(texts, []), objective.frozen()

        def loss(rows, params, objective=objective, batch=batch, frozen=frozen):
            table = dataclasses.replace(base.table, input=rows[0], output=rows[1])
            return objective(table, dataclasses.replace(body_of(base), params=params), frozen, batch)[0]

        arguments = (0, 1) if trains_body else 0
        rows = (base.table.input, base.table.output)
        found.append(jax.jit(jax.value_and_grad(loss, arguments))(rows, base.params))
    for other in found[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found[0], other)
