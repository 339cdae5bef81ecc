"""A network that is told how far a vocabulary is from the source."""

import dataclasses

import jax
import numpy as np
import pytest
from hypernet.networks import CONFIG, base_of, params_of, table_for, trained_for
from vocabularies import vocabulary

from zett.config import HypernetConfig
from zett.errors import UserError

FAR = dataclasses.replace(CONFIG, distance=True)


def test_what_it_has_not_learnt_to_read_changes_nothing():
    source, target = vocabulary("bpe"), vocabulary("unigram")
    base = base_of(table_for(source), source)
    plain = trained_for(base)
    kernel = plain.params["features"]["kernel"]
    assert params_of(FAR)["features"]["kernel"].shape == (len(kernel) + 2, CONFIG.width)

    def table(more):
        features = plain.params["features"] | {"kernel": np.concatenate([kernel, more])}
        return dataclasses.replace(plain, config=FAR, params=plain.params | {"features": features})(base, target)

    learnt = np.random.default_rng(0).normal(size=(2, CONFIG.width))
    expected, same, moved = plain(base, target), table(0 * learnt), table(learnt)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), same, expected)
    assert np.abs(moved.input - expected.input).mean() > 1e-3


def test_it_is_one_of_the_features():
    with pytest.raises(UserError, match=r"config\.hypernet\.distance is True; it has to be False where .*features is"):
        HypernetConfig(features=False, distance=True)
