"""Bits per byte of texts, by a plain computation: of a base model, and of one with another vocabulary."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from evaluate.lines import LINES
from flax import nnx

from zett.errors import UserError
from zett.evaluate.evaluate import evaluate
from zett.evaluate.tasks import make_task, reading_task
from zett.evaluate.tasks.bits_per_byte import BitsPerByte
from zett.methods import make_method
from zett.vocab import load_tokenizer

TEXTS = ["a", "".join(LINES), LINES[3]]


@pytest.fixture(scope="module")
def other(base, tmp_path_factory):
    """The base model with the tokens of another tokenizer, whose rows FVT makes."""
    target = load_tokenizer(tiny.tokenizer_folder(tmp_path_factory.mktemp("target") / "unigram", "unigram", 350))
    return base.with_vocabulary(make_method("fvt")(base, target), target)


def plain_bits(model, bos_row, texts: list[str]) -> list[float]:
    body, bits = jax.jit(nnx.merge(model.graphdef, model.params)), []
    for text in texts:
        ids = np.asarray(model.vocab.tokenizer.encode(text, add_special_tokens=False).ids)
        padded = np.pad(ids, (0, 320 - len(ids)))  # the model is causal: what follows changes nothing
        x = jnp.concatenate([bos_row[None], model.table.input[padded[:-1]]])[None]
        log_p = jax.nn.log_softmax(model.table.unembed(body(x))[0])
        bits.append(-float(log_p[np.arange(len(ids)), ids].sum()) / math.log(2))
    return bits


@pytest.mark.parametrize("which", ["base", "other"])
def test_scores_equal_a_plain_computation(which, base, request):
    model = request.getfixturevalue(which)
    task = BitsPerByte(batch_size=2)
    items = task.items(base, TEXTS)
    scores = task.score(model, items)
    # What opens a text is the base model's own, whatever the vocabulary.
    np.testing.assert_allclose(scores, plain_bits(model, base.bos_row, TEXTS), rtol=1e-5)
    assert items.weights.tolist() == [len(text.encode()) for text in TEXTS]
    assert items.mean(scores) == pytest.approx(scores.sum() / sum(len(text.encode()) for text in TEXTS))


def test_a_model_with_another_vocabulary_is_evaluated_like_any_other(base, other):
    settings = {"windows": TEXTS, "methods": "fvt", "progress": False}
    moved = evaluate(other, {"same": other.vocab}, **settings)
    transferred = evaluate(base, {"target": other.vocab}, **settings)
    assert moved.original["bits_per_byte"] == pytest.approx(transferred.targets[0].scores["fvt"].bits_per_byte, rel=1e-6)
    assert moved.targets[0].scores["fvt"].ratio == pytest.approx(1, abs=1e-6) and moved.targets[0].relative_length == 1


def test_what_reads_text_is_measured_by_bits_per_byte(base):
    task = reading_task(base, batch_size=4)
    assert isinstance(task, BitsPerByte) and task.batch_size == 4
    assert (task.name, task.unit, task.lower_is_better) == ("bits_per_byte", "bits per byte", True)
    encoder = make_task("masked_bits_per_byte")
    with pytest.raises(UserError, match="tiny"):
        encoder.items(base, TEXTS)
