"""Objectives add up by the weights in the config, under names that are their own."""

import numpy as np
import pytest
from objectives.settings import body_of, setting_of, texts_of

from zett.config import LossConfig
from zett.hypernet.scaling import source_rows
from zett.mesh import BATCH
from zett.objectives import OBJECTIVES, WeightedSum
from zett.objectives.lexical import Lexical
from zett.objectives.masked_token import MaskedToken
from zett.objectives.next_token import NextToken


@pytest.fixture
def setting(base):
    return setting_of(base, source_rows=source_rows(base.table))


@pytest.fixture
def texts(base):
    return texts_of(base, same=np.roll(np.arange(len(base.vocab), dtype=np.int32), 1))


def value(base, objective, texts):
    return objective(base.table, body_of(base), objective.frozen(), objective.batch(texts, []))


def test_it_is_the_sum_by_weights(base, setting, texts):
    alone = [value(base, objective, texts)[0] for objective in (NextToken(setting), Lexical(setting))]
    assert min(alone) > 0.1
    for a, b in ((1.0, 0.1), (0.5, 3.0)):
        both = WeightedSum.of(("token", "lexical"), LossConfig(token=a, lexical=b), setting)
        total, metrics = value(base, both, texts)
        assert float(total) == pytest.approx(float(a * alone[0] + b * alone[1]), rel=1e-6)
        # Each metric is what it is without a weight.
        assert [float(metrics[name]) for name in ("lm", "lexical")] == pytest.approx([float(x) for x in alone], rel=1e-6)
    assert both.specs == dict.fromkeys(("targets", "weights", "bytes"), BATCH) | dict(Lexical.specs)
    assert both.frozen().keys() == {"bos", "rows"} and both.batch(texts, []).keys() == both.specs.keys()


def test_weight_0_leaves_one_out(base, setting, texts):
    """With all that it would read: without the lexical loss there need be no source rows."""
    without = setting_of(base)
    tokens = WeightedSum.of(("token", "lexical"), LossConfig(lexical=0), without)
    total, metrics = value(base, tokens, texts_of(base))
    assert float(total) == float(metrics["lm"]) and "lexical" not in metrics
    assert tokens.specs.keys() == {"targets", "weights", "bytes"} and tokens.frozen().keys() == {"bos"}
    rows = WeightedSum.of(("token", "lexical"), LossConfig(token=0, lexical=2), setting)
    total, metrics = value(base, rows, texts)
    assert float(total) == 2 * float(metrics["lexical"]) and metrics.keys() == {"lexical"}
    assert rows.specs.keys() == {"same"} and rows.frozen().keys() == {"rows"}


def test_two_that_bring_the_same_name_are_refused(setting):
    with pytest.raises(ValueError, match=r"two objectives bring a part of a batch of the same name: .*'targets', 'targets'"):
        WeightedSum.of(("token", "token"), LossConfig(), setting)


def test_every_objective_has_a_weight_and_the_base_decides_which_tokens(base, setting, tmp_path):
    from encoders import encoder_folder

    from zett.lms import load_base_model

    assert all(getattr(LossConfig(), name) >= 0 for name in OBJECTIVES)
    encoder = load_base_model(encoder_folder(tmp_path / "bert", "bert"))
    for model, kind in ((base, NextToken), (encoder, MaskedToken)):
        [(weight, term)] = WeightedSum.of(("token",), LossConfig(token=0.5), setting_of(model)).terms
        assert weight == 0.5 and isinstance(term, kind)
