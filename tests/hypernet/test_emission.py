"""A table made in chunks, tokens of one piece apart from the others, has the rows that the network gives all tokens at once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypernet.networks import CONFIG, PAPER, UNTIED, WIDTH, params_of, random_forms

from zett.hypernet import emission
from zett.hypernet.network import hypernet_graph, predict_rows
from zett.hypernet.packing import pack_forms
from zett.hypernet.scaling import column_stats
from zett.hypernet.trained import TrainedHypernet

pytestmark = pytest.mark.xdist_group("hypernet")
SIZE = 200  # of the source
BASE = {"name": "tiny", "fingerprint": None}


def sides_of(tied: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(3 * rng.normal(size=(SIZE, WIDTH)) + rng.normal(size=WIDTH)).astype(np.float32) for _ in range(2 - tied)]


def forms_of(number: int, lengths=(0, 1, 2, 3, 4), seed: int = 3):
    """Tokens of source rows and fallback rows, many of them with a piece at the same place, and some without pieces."""
    rng = np.random.default_rng(seed)
    return random_forms(rng.choice(lengths, number), ids=SIZE + 50)


def at_once(hypernet: TrainedHypernet, sides, forms, language=None, dtype=jnp.float32) -> np.ndarray:
    """All rows by one call of the network, as in training."""
    packed = pack_forms(forms, multiple=1, language=language)
    params, graphdef = hypernet.params, hypernet.graphdef(dtype)
    return np.asarray(predict_rows(graphdef, params, np.concatenate(sides, -1), packed, column_stats(sides, SIZE)))


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float((np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max())


@pytest.mark.parametrize(
    "config, tied",
    [
        (CONFIG, False),
        (dataclasses.replace(CONFIG, residual="first", norm="post", features=False), True),
        (dataclasses.replace(CONFIG, residual="none", layers=1, bias=True), True),
        (PAPER, False),
        (dataclasses.replace(PAPER, layers=3, bias=True), True),
        (dataclasses.replace(CONFIG, languages=("de", "fr"), bias=True), True),
        (dataclasses.replace(PAPER, languages=("de", "fr")), False),
        (UNTIED, True),
        (dataclasses.replace(UNTIED, residual="first", languages=("de", "fr"), bias=True), True),
        (dataclasses.replace(UNTIED, residual="none", norm="post", features=False), True),
        (dataclasses.replace(PAPER, untie=True, bias=True), True),
    ],
)
def test_the_same_rows(config, tied):
    sides, forms = sides_of(tied), forms_of(150)
    language = 1 if config.languages else None
    hypernet = TrainedHypernet(config, params_of(config, tied=tied), WIDTH, tied, BASE)
    found = hypernet.predicted(sides, forms, language=language, chunk=40)
    used = forms.lengths > 0
    kinds = 1 if tied and not config.untie else 2
    assert found.shape == (150, WIDTH * kinds + config.bias) and not found[~used].any()
    assert relative(found[used], at_once(hypernet, sides, forms, language)[used]) < 1e-5


@pytest.mark.parametrize("lengths", [(0,), (0, 1), (2, 4)])
@pytest.mark.parametrize("chunk", [1, 10_000])
def test_tokens_of_one_kind_alone_and_any_chunk(lengths, chunk):
    sides, forms = sides_of(True), forms_of(20, lengths)
    hypernet = TrainedHypernet(CONFIG, params_of(tied=True), WIDTH, True, BASE)
    found = hypernet.predicted(sides, forms, chunk=chunk)
    used = forms.lengths > 0
    assert not found[~used].any() and used.any() == (max(lengths) > 0)
    if used.any():
        assert relative(found[used], at_once(hypernet, sides, forms)[used]) < 1e-5


def test_bfloat16_products():
    """They differ from float32 as those of the network itself do."""
    sides, forms = sides_of(False), forms_of(60, (1, 2, 3))
    hypernet = TrainedHypernet(CONFIG, params_of(), WIDTH, False, BASE)
    exact, rounded = at_once(hypernet, sides, forms), at_once(hypernet, sides, forms, dtype=jnp.bfloat16)
    found = hypernet.predicted(sides, forms, dtype=jnp.bfloat16)
    assert 1e-4 < relative(found, exact) < 2 * relative(rounded, exact)


def test_other_vocabularies_compile_nothing():
    sides, hypernet = sides_of(True), TrainedHypernet(CONFIG, params_of(tied=True), WIDTH, True, BASE)
    compiled = (emission._own_values, emission._single_rows, emission._placed_rows, emission._packed_rows)
    hypernet.predicted(sides, forms_of(300), chunk=32)
    before = [function._cache_size() for function in compiled]
    hypernet.predicted(sides, forms_of(500, (0, 1, 1, 2, 4), seed=5), chunk=32)
    assert [function._cache_size() for function in compiled] == before and min(before) > 0


def test_a_position_that_sees_itself_alone():
    """One product in place of attention gives what attention gives."""
    params = jax.tree.map(jnp.asarray, params_of())
    for norm in ("pre", "post"):
        graphdef = hypernet_graph(dataclasses.replace(CONFIG, norm=norm), WIDTH, False, jnp.float32)
        x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 1, CONFIG.width)), jnp.float32)
        layer = nnx.merge(graphdef, params).layers[0]
        whole = layer(x, jnp.zeros((5, 1), jnp.int32))
        np.testing.assert_allclose(layer.alone(x, layer.own_value()), whole, rtol=1e-4, atol=1e-5)
        assert np.abs(whole - layer(x[::-1], jnp.zeros((5, 1), jnp.int32))).max() > 0.1
