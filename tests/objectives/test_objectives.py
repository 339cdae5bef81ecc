"""Which objectives a run has."""

import dataclasses

import jax
import pytest
import tiny

from zett.config import LossConfig
from zett.errors import UserError
from zett.lms import load_base_model
from zett.mesh import one_device
from zett.objectives import OBJECTIVES, WeightedSum
from zett.objectives.setting import Setting


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    base = load_base_model(str(tiny.base_folder(tmp_path_factory.mktemp("base"), dtype="float32")))
    return Setting(base, one_device(), jax.numpy.float32, jax.numpy.float32, source_rows=base.table.input)


def test_each_has_a_weight():
    assert OBJECTIVES.keys() <= {field.name for field in dataclasses.fields(LossConfig)}


def test_a_weight_of_0_leaves_one_out(setting):
    both = WeightedSum.of(OBJECTIVES, LossConfig(), setting)
    assert [weight for weight, _ in both.terms] == [1.0, 0.1]
    assert both.specs.keys() == {"targets", "weights", "bytes", "same"}
    assert WeightedSum.of(OBJECTIVES, LossConfig(lexical=0.0), setting).specs.keys() == {"targets", "weights", "bytes"}
    assert WeightedSum.of(OBJECTIVES, LossConfig(token=0.0), setting).specs.keys() == {"same"}


def test_all_weights_0_is_an_error(setting):
    with pytest.raises(UserError, match=r"config\.loss\.token, \.hidden, \.chunk, \.lexical: all weights are 0"):
        WeightedSum.of(OBJECTIVES, LossConfig(token=0.0, lexical=0.0), setting)
