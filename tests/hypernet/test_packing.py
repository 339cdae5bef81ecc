"""Packing several tokens in a row changes nothing of what is predicted for them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypernet.networks import CONFIG, PAPER, WIDTH, params_of, predict, random_forms, table_for
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vocabularies import vocabulary

from zett.hypernet.network import hypernet_graph, predict_rows
from zett.hypernet.packing import limit_pieces, pack_forms, renumbered
from zett.hypernet.scaling import column_stats, source_rows
from zett.vocab import surface_forms

pytestmark = pytest.mark.xdist_group("hypernet")


@pytest.fixture(scope="module")
def source():
    return vocabulary("bpe", 400)


@given(st.integers(1, 8).flatmap(lambda s: st.tuples(st.just(s), st.lists(st.integers(0, s), min_size=1, max_size=60))))
@example((4, [0]))
@example((4, [4, 3, 1, 2, 2, 0, 1, 1, 1, 1]))
@settings(max_examples=100, deadline=None)
def test_packing_is_lossless(drawn):
    s, lengths = drawn
    forms = random_forms(lengths, s)
    packed = pack_forms(forms, multiple=4)
    assert packed.packed.shape == packed.owner.shape == packed.position.shape and packed.packed.shape[1] == s
    assert len(packed.packed) % 4 == 0
    assert (packed.owner < len(lengths)).sum() == sum(lengths)  # every piece once, none over another
    flat = packed.packed.reshape(-1), packed.owner.reshape(-1), packed.position.reshape(-1)
    for token, length in enumerate(lengths):
        where = packed.first[token] + np.arange(length)
        assert where.max(initial=0) // s == where.min(initial=len(flat[0])) // s or not length  # in one row
        np.testing.assert_array_equal(flat[0][where], forms.pieces[token, :length])
        np.testing.assert_array_equal(flat[1][where], token)
        np.testing.assert_array_equal(flat[2][where], np.arange(length))


def test_packing_is_tight():
    packed = pack_forms(random_forms([1, 2, 3] * 100 + [4] * 10), multiple=1)
    assert len(packed.packed) == (6 * 100 + 40) // 4


@pytest.mark.parametrize("config", [CONFIG, dataclasses.replace(CONFIG, norm="post", residual="first", features=False)])
def test_packed_rows_equal_rows_of_their_own(source, config):
    rows = source_rows(table_for(source))
    forms = random_forms([1, 2, 3, 4, 1, 1, 2, 4, 3, 1], ids=len(source) + 256)
    together = predict(pack_forms(forms, multiple=1), rows, config)
    for i in range(len(forms)):
        alone = predict(pack_forms(forms.take(np.asarray([i])), multiple=1), rows, config)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-5, rtol=1e-5)
    assert np.abs(together[0] - together[4]).max() > 0.01


@pytest.mark.parametrize("config", [CONFIG, dataclasses.replace(CONFIG, residual="first", layers=1)])
def test_only_the_rows_that_are_used_are_needed(config):
    """Values and gradients, with every piece's row there once, and the statistics of the whole table."""
    size = 3000
    rows = (3 * np.random.default_rng(0).normal(size=(size, 2 * WIDTH)) + 1).astype(np.float32)
    packed = pack_forms(random_forms(np.random.default_rng(1).integers(0, 5, 300), ids=size + 256), multiple=1)
    used, fewer = renumbered(packed, size)
    assert len(np.unique(used)) < len(used) == 768  # filled up
    stats = column_stats([rows[:, :WIDTH], rows[:, WIDTH:]], size)
    np.testing.assert_allclose(stats, (rows.mean(0), rows.std(0)), rtol=1e-5)
    graphdef, params = hypernet_graph(config, WIDTH, False, jnp.float32), params_of(config)

    def run(params, *inputs):
        predicted = predict_rows(graphdef, params, *inputs)
        return (predicted**2).sum(), predicted

    (_, whole), gradient = jax.value_and_grad(run, has_aux=True)(params, rows, packed)
    (_, part), gradient_part = jax.value_and_grad(run, has_aux=True)(params, rows[used], fewer, stats)
    np.testing.assert_allclose(part, whole, rtol=1e-4, atol=1e-4)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-1)  # sums of squares of thousands
    jax.tree.map(close, gradient_part, gradient)
    assert np.abs(gradient["fallback"]).max() > 1


def test_order_and_padding_do_not_matter(source):
    rows = source_rows(table_for(source))
    forms = random_forms(np.random.default_rng(0).integers(1, 5, 50))
    expected = predict(pack_forms(forms, multiple=1), rows)
    order = np.random.default_rng(1).permutation(50)
    shuffled = predict(pack_forms(forms.take(order), multiple=1), rows)
    np.testing.assert_allclose(shuffled, expected[order], atol=1e-5, rtol=1e-5)
    padded = pack_forms(forms, multiple=64)
    assert len(padded.packed) == 64
    np.testing.assert_allclose(predict(padded, rows), expected, atol=1e-5, rtol=1e-5)
    empty = padded.owner == len(forms)
    noise = np.random.default_rng(2).integers(0, 300, padded.packed.shape).astype(np.int32)
    noisy = dataclasses.replace(padded, packed=np.where(empty, noise, padded.packed))
    np.testing.assert_allclose(predict(noisy, rows), expected, atol=1e-5, rtol=1e-5)


def test_longer_forms_are_cut_and_shorter_ones_padded(source):
    target = vocabulary("unigram", 600)
    longer, shorter = surface_forms(target, source, 9), surface_forms(target, source, 3)
    assert longer.lengths.max() > 4
    for forms in (longer, shorter):
        cut = limit_pieces(forms, 4)
        assert cut.pieces.shape[1] == 4 and cut.lengths.max() == min(forms.lengths.max(), 4)
    cut, expected = limit_pieces(longer, 4), surface_forms(target, source, 4)
    np.testing.assert_array_equal(cut.pieces, expected.pieces)
    np.testing.assert_array_equal(cut.lengths, expected.lengths)


@pytest.mark.parametrize("config", [CONFIG, PAPER])
def test_a_language_is_one_more_position(source, config):
    """Each token's row depends on it, and on nothing of the tokens beside it; a language not asked about says nothing."""
    config = dataclasses.replace(config, languages=("de", "fr"))
    rows, params = source_rows(table_for(source)), params_of(config)
    forms = random_forms([1, 2, 3, 4, 1, 1, 2, 4, 3, 1], ids=len(source) + 256)
    packed = pack_forms(forms, multiple=1, language=1)
    assert packed.packed.shape[1] == 5 and (packed.owner < 10).sum() == forms.lengths.sum() + 10
    assert ((packed.position == 4) & (packed.owner < 10)).sum() == 10
    together = predict(packed, rows, config, params=params)
    for i in range(len(forms)):
        alone = predict(pack_forms(forms.take(np.asarray([i])), multiple=1, language=1), rows, config, params=params)
        np.testing.assert_allclose(together[i], alone[0], atol=1e-5, rtol=1e-5)
    other = predict(pack_forms(forms, multiple=1, language=0), rows, config, params=params)
    assert np.abs(together - other).max(1).min() > 1e-3
    changed = params | {"languages": params["languages"] * np.asarray([[2.0], [1.0]], np.float32)}
    np.testing.assert_array_equal(predict(packed, rows, config, params=changed), together)
