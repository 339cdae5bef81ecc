"""Hidden tokens: their nats are those of a plain softmax at the hidden places, in the base model's own frame."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders import encoder_folder
from objectives.settings import body_of, rngs_of, setting_of, texts_of

from zett.config import LossConfig
from zett.data.masked import embed, frame_of
from zett.lms import load_base_model
from zett.objectives.masked_token import MaskedToken


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_base_model(encoder_folder(tmp_path_factory.mktemp("masked") / "base", "xlm-roberta"))


def test_it_is_a_softmax_at_the_hidden_places(encoder):
    rng, texts = np.random.default_rng(3), texts_of(encoder)
    table = dataclasses.replace(
        encoder.table, input=encoder.table.input + 0.3 * rng.normal(size=encoder.table.input.shape).astype(np.float32)
    )
    objective = MaskedToken(setting_of(encoder, loss=LossConfig(mask_share=0.3)))
    batch, frame = objective.batch(texts, rngs_of(texts)), frame_of(encoder)
    assert batch.keys() == objective.specs.keys()
    assert batch["weights"].sum(1).tolist() == [2, 3, 1, 3]
    loss, metrics = objective(table, body_of(encoder), objective.frozen(), batch)
    # The frame and the mask keep the base's own rows.
    own = encoder.table.input[np.asarray([frame.mask, *frame.before, *frame.after])]
    h = body_of(encoder)(embed(table.input, own, batch["inputs"]), mask_BL=batch["mask"])
    logs = jax.nn.log_softmax(table.unembed(h))
    nats = 0.0
    for row, (columns, weights) in enumerate(zip(batch["columns"], batch["weights"])):
        for column in columns[weights > 0]:
            token = texts.ids[row, column - len(frame.before)]
            nats -= float(logs[row, column, token])
    assert float(loss) == float(metrics["lm"]) == pytest.approx(nats / batch["weights"].sum(), rel=1e-5)
    assert float(metrics["bits_per_byte"]) == pytest.approx(nats / math.log(2) / batch["bytes"].sum(), rel=1e-5)


def test_microbatches_change_nothing(encoder):
    """Of tied rows with a bias."""
    texts, found = texts_of(encoder), []
    for number in (1, 2):
        objective = MaskedToken(setting_of(encoder, microbatches=number))
        batch, frozen = objective.batch(texts, rngs_of(texts)), objective.frozen()

        def loss(rows, bias, objective=objective, batch=batch, frozen=frozen):
            table = dataclasses.replace(encoder.table, input=rows, bias=bias)
            return objective(table, body_of(encoder), frozen, batch)[0]

        found.append(jax.jit(jax.value_and_grad(loss, (0, 1)))(encoder.table.input, jnp.asarray(encoder.table.bias)))
    assert np.abs(found[0][1][1]).max() > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *found)
