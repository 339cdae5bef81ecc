"""The network: what it starts from, how its rows are scaled, and which choices go together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypernet.networks import (
    CONFIG,
    PAPER,
    UNTIED,
    WIDTH,
    base_of,
    params_of,
    predict,
    random_forms,
    table_for,
    trained_for,
)
from vocabularies import vocabulary

from zett.config import from_dict
from zett.errors import UserError
from zett.hypernet.network import hypernet_graph, predict_rows, rows_together, untied_params
from zett.hypernet.packing import pack_forms
from zett.hypernet.scaling import fit_scales, source_rows
from zett.methods.fvt import FVT
from zett.vocab import surface_forms

pytestmark = pytest.mark.xdist_group("hypernet")


@pytest.fixture(scope="module")
def source():
    return vocabulary("bpe", 400)


@pytest.fixture(scope="module")
def target():
    return vocabulary("unigram", 600)


@pytest.mark.parametrize(("tied", "untie"), [(False, False), (True, False), (True, True)])
def test_it_starts_from_fvt(source, target, tied, untie):
    base = base_of(table_for(source, tied=tied), source)
    predicted = trained_for(base, UNTIED if untie else CONFIG, moved=False)(base, target, chunk=64)
    expected, forms = FVT()(base, target), surface_forms(target, source, 64)
    # The hypernetwork cuts longer forms. Of tokens that the source has FVT takes the rows; they are the mean of their pieces
    # where the model keeps them whole.
    shared = [(n == 1 and p == s) for n, s, p in zip(forms.lengths, forms.same, forms.pieces[:, 0])]
    plain = (0 < forms.lengths) & (forms.lengths <= CONFIG.max_pieces) & ((forms.same < 0) | np.asarray(shared))
    assert plain.sum() > 400 and (forms.lengths > 1).sum() > 100
    np.testing.assert_allclose(predicted.input[plain], expected.input[plain], atol=1e-4)
    assert (predicted.output is None) == (tied and not untie)
    if untie:
        np.testing.assert_array_equal(predicted.output, predicted.input)
    elif not tied:
        np.testing.assert_allclose(predicted.output[plain], expected.output[plain], atol=1e-4)


def test_or_from_the_first_piece_or_from_the_mean_row(source, target):
    table = table_for(source)
    base, forms = base_of(table, source), surface_forms(target, source, CONFIG.max_pieces)
    used = forms.lengths > 0
    first = trained_for(base, dataclasses.replace(CONFIG, residual="first"), moved=False)(base, target)
    np.testing.assert_allclose(first.input[used], table.input[forms.pieces[used, 0]], atol=1e-4)
    np.testing.assert_allclose(first.output[used], table.output[forms.pieces[used, 0]], atol=1e-4)
    none = trained_for(base, dataclasses.replace(CONFIG, residual="none"), moved=False)(base, target)
    assert np.abs(none.input[used] - table.input.mean(0)).max() > 0.01  # a head that starts at random


@pytest.mark.parametrize("residual", ["last", "weighted"])
def test_or_from_the_last_piece_or_from_a_falling_mean(source, target, residual):
    table = table_for(source)
    base, forms = base_of(table, source), surface_forms(target, source, CONFIG.max_pieces)
    predicted = trained_for(base, dataclasses.replace(CONFIG, residual=residual), moved=False)(base, target)
    several = np.flatnonzero((forms.lengths > 2) & (forms.lengths <= CONFIG.max_pieces))[:50]
    assert len(several) == 50
    for i in several:
        n = forms.lengths[i]
        weights = np.arange(n) == n - 1 if residual == "last" else 0.5 ** np.arange(n)
        expected = (weights / weights.sum()) @ table.input[forms.pieces[i, :n]]
        np.testing.assert_allclose(predicted.input[i], expected, atol=1e-4)


def test_the_correction_is_scaled(source):
    """By residual_scale over sqrt(D), in units of each column's standard deviation."""
    rows = source_rows(table_for(source))
    packed = pack_forms(random_forms([1, 2, 3, 4]), multiple=1)
    params = params_of()
    start, one, two = (
        predict(packed, rows, dataclasses.replace(CONFIG, residual_scale=scale), params=params) for scale in (0.0, 1.0, 2.0)
    )
    np.testing.assert_allclose(two - start, 2 * (one - start), atol=1e-4)
    doubled = predict(packed, 2 * rows + 5, params=params)
    np.testing.assert_allclose(doubled, 2 * predict(packed, rows, params=params) + 5, atol=1e-3)


@pytest.mark.parametrize(("tied", "untie"), [(False, False), (True, False), (True, True)])
def test_fitted_scales(source, tied, untie):
    """Source rows get the standard deviation that is asked for, first predictions that of the table; neither is trained."""
    rows, config = np.asarray(source_rows(table_for(source, tied=tied))), dataclasses.replace(PAPER, untie=untie)
    graphdef = hypernet_graph(config, WIDTH, tied, jnp.float32)
    params = fit_scales(graphdef, params_of(config, tied=tied), rows, seed=3)
    scaled = rows * np.asarray(params["scale_in"]["scale"]) + np.asarray(params["scale_in"]["shift"])
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(0), 0.02, rtol=1e-4)
    ids = np.arange(len(source), dtype=np.int32)
    forms = random_forms([1] * len(source))
    forms.pieces[:, 0], forms.features[:] = ids, 0
    packed = pack_forms(forms, multiple=1)
    found = np.asarray(predict_rows(graphdef, params, rows, packed))
    for columns in np.split(found, 1 + untie, axis=-1):
        np.testing.assert_allclose(columns.mean(0), rows.mean(0), atol=1e-3)
        np.testing.assert_allclose(columns.std(0), rows.std(0), rtol=1e-3)
    gradient = jax.grad(lambda p: jnp.square(predict_rows(graphdef, p, rows, packed)).sum())(params)
    for name in ("scale_in", "scale_out"):
        assert not any(np.asarray(x).any() for x in gradient[name].values())
    assert np.asarray(gradient["piece"]["kernel"]).any()


@pytest.mark.parametrize("config", [CONFIG, PAPER], ids=["correction", "fitted"])
def test_untied_rows_begin_as_the_tied_ones(config):
    """A second head that is a copy of the first predicts the same rows; a fresh one leaves everything else as it was."""
    untied, packed = dataclasses.replace(config, untie=True), pack_forms(random_forms([1, 2, 3, 4]), multiple=1)
    rows = np.random.default_rng(2).normal(size=(300, WIDTH)).astype(np.float32)

    def predicted(config, params):
        return np.asarray(predict_rows(hypernet_graph(config, WIDTH, True, jnp.float32), params, rows, packed))

    params = params_of(config, tied=True)
    before, after = predicted(config, params), predicted(untied, untied_params(params, config))
    np.testing.assert_allclose(after, np.tile(before, 2), rtol=1e-5, atol=1e-6)  # two programs, which may round differently
    fresh, twice = (params_of(c, tied=True, moved=False) for c in (config, untied))
    assert twice["heads"].keys() == {0, 1} and not np.array_equal(
        *(head["projector"]["up"]["kernel"] for head in twice["heads"].values())
    )
    for name in fresh.keys() - {"scale_out"}:
        mine = {0: twice["heads"][0]} if name == "heads" else twice[name]
        jax.tree.map(np.testing.assert_array_equal, fresh[name], mine)
    # Heads are independent: moving the second changes output rows alone.
    params = untied_params(params, config)
    params["heads"][1]["dense"]["bias"] = params["heads"][1]["dense"]["bias"] + 1
    moved = predicted(untied, params)
    np.testing.assert_array_equal(moved[:, :WIDTH], after[:, :WIDTH])
    assert (moved[:, WIDTH:] != before).all()
    # A base with output rows has two heads already.
    same, other = (params_of(c, moved=False) for c in (config, untied))
    jax.tree.map(np.testing.assert_array_equal, same, other)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"encoder": "roberta"}, "config.hypernet.norm is 'pre'; with encoder 'roberta' it has to be 'post'"),
        ({"rescale": "fitted"}, "config.hypernet.residual is 'mean'; with rescale 'fitted' it has to be 'none'"),
        ({"languages": ("de", "de")}, "names a language twice: de, de"),
        ({"fallback_rows": 3}, "config.hypernet.fallback_rows is 3; training needs 256"),
    ],
)
def test_choices_that_do_not_go_together(changes, message):
    with pytest.raises(UserError, match=message):
        from_dict({"hypernet": changes})


def test_bytes_that_the_source_lacks_have_rows_of_their_own(source):
    rows = source_rows(table_for(source))
    forms = random_forms([1, 1])
    forms.pieces[:, 0] = len(source) + 7, len(source) + 8
    packed = pack_forms(forms)

    def total(params):
        return jnp.square(predict_rows(hypernet_graph(CONFIG, WIDTH, False, jnp.float32), params, rows, packed)).sum()

    gradient = np.asarray(jax.jit(jax.grad(total))(params_of())["fallback"])
    assert np.flatnonzero(np.abs(gradient).sum(1)).tolist() == [7, 8]


@pytest.mark.parametrize(
    ("rows", "positions", "expected"), [(64, 8, (4, 128)), (64, 7, (4, 112)), (6, 9, (3, 18)), (5, 200, (5, 200))]
)
def test_rows_are_joined_to_texts_of_up_to_128_positions(rows, positions, expected):
    assert rows_together(rows, positions) == expected


def test_rows_joined_for_flash_attention_give_the_same(monkeypatch):
    """As on a GPU, but that XLA computes what cuDNN is asked for."""
    calls, real = [], jax.nn.dot_product_attention

    def asked(*args, implementation=None, **options):
        calls.append(implementation)
        return real(*args, **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", asked)
    packed = pack_forms(random_forms(np.random.default_rng(0).integers(1, 5, 100)), multiple=16)
    rows = np.random.default_rng(1).normal(size=(300, 2 * WIDTH)).astype(np.float32)
    graphdef = hypernet_graph(CONFIG, WIDTH, False, jnp.bfloat16)
    plain = nnx.merge(graphdef, params_of())(rows, packed)
    assert not calls
    monkeypatch.setattr("zett.lms.attention._compute_capability", lambda: 9.0)
    joined = nnx.merge(graphdef, params_of())(rows, packed)
    assert calls == ["cudnn"] * CONFIG.layers
    np.testing.assert_allclose(joined, plain, atol=0.03 * float(jnp.abs(plain).max()))
