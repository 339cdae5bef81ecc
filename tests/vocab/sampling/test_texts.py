"""Shares of text sources."""

import dataclasses

import numpy as np
from samplers import CONFIG

from zett.vocab.sampling.texts import text_shares


def test_shares(text, other):
    large, small = (sum(map(len, source)) for source in (text, other))
    for weights, exponent, expected in (
        ((), 0.0, [1, 1]), ((14.0, 1.0), 0.0, [14, 1]), ((), 1.0, [large, small]),
        ((2.0, 3.0), 0.1, [2 * large**0.1, 3 * small**0.1]),
    ):  # fmt: skip
        config = dataclasses.replace(CONFIG, texts=("a", "b"), text_weights=weights, text_exponent=exponent)
        np.testing.assert_allclose(text_shares([text, other], config, 0), np.asarray(expected) / sum(expected), rtol=1e-6)
