"""Variants of the model that a hypernetwork was trained for: which are taken, and the ways to rows for them."""

import dataclasses

import numpy as np
import pytest
from hypernet.networks import UNTIED, WIDTH, base_of, table_for, trained_for
from vocabularies import vocabulary

from zett.choices import VARIANTS
from zett.errors import UserError
from zett.hypernet.base_rows import BaseRows, Fit
from zett.hypernet.release import load_hypernet, save_hypernet
from zett.hypernet.variant import fit_of, variant_table
from zett.table import EmbeddingTable
from zett.vocab import surface_forms

pytestmark = pytest.mark.xdist_group("hypernet")


@pytest.fixture(scope="module")
def base():
    source = vocabulary("bpe", 400)
    return base_of(table_for(source), source)


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    """Read from a folder, so that it has a tokenizer to compare with."""
    folder = tmp_path_factory.mktemp("hypernet")
    save_hypernet(folder, dataclasses.replace(trained_for(base), base_rows=BaseRows.of(base.table)), base.vocab, {})
    return load_hypernet(folder)


@pytest.fixture(scope="module")
def target():
    return vocabulary("unigram", 600)


def with_rows(base, change, name="other"):
    rows = EmbeddingTable.of(*(change(np.array(side)) for side in (base.table.input, base.table.output)))
    return dataclasses.replace(base, table=rows, name=name)


def noisy(share: float):
    """Moves each value by a share of what is usual."""
    rng = np.random.default_rng(5)
    return lambda rows: (rows + share * rows.std() * rng.standard_normal(rows.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def variant(base):
    return with_rows(base, noisy(0.1), "variant")


def test_what_is_taken(base, trained, variant, target):
    assert trained.fit(base) == Fit(True, 1.0)
    fit = trained.fit(variant)
    assert fit.exact is False and 0.97 < fit.cosine < 0.999
    assert (
        f"variant is a variant of its base model 'tiny': same tokenizer, rows alike to a median cosine of {fit.cosine:.3f}"
        in (trained.about(variant))
    )
    # What it predicts for a variant is from the variant's own rows, as if it had been trained for it.
    known = {"name": "tiny", "fingerprint": variant.fingerprint}
    expected = dataclasses.replace(trained, base=known, base_rows=None)(variant, target)
    np.testing.assert_array_equal(trained(variant, target).input, expected.input)


def test_what_is_refused(base, trained, target):
    unlike = with_rows(base, np.random.default_rng(0).permutation)
    tied = base_of(table_for(base.vocab, tied=True), base.vocab)
    tokens = (*base.vocab.tokens[:300], *base.vocab.tokens[300:][::-1])
    renamed = dataclasses.replace(with_rows(base, noisy(0.1)), vocab=dataclasses.replace(base.vocab, tokens=tokens))
    wider = base_of(EmbeddingTable.of(*(np.tile(side, 2) for side in (base.table.input, base.table.output))), base.vocab)
    for other, why in (
        (unlike, r"are alike to a median cosine of -?0\.\d+ \(0\.9 is needed\), and 400 of 400 ids have the same token"),
        (renamed, r"are alike to a median cosine of 0\.9\d+ .* and 3\d\d of 400 ids have the same token \(all are needed\)"),
        (tied, f"rows of width {WIDTH} and tied=True, not {WIDTH} and tied=False"),
        (wider, f"rows of width {2 * WIDTH} and tied=False"),
    ):
        for refused in (trained.check, lambda model: trained.rows(target, model)):
            with pytest.raises(UserError, match=f"trained for the base model 'tiny', and {other.name} is another: .*{why}"):
                refused(other)


def test_without_rows_or_tokenizer_it_is_for_its_base_alone(base, trained, variant):
    old = dataclasses.replace(trained, base_rows=None)
    old.check(base)
    with pytest.raises(UserError, match=r"and this one is another \(.*give the base model, too \(--base DIR\)"):
        old.check(variant)
    with pytest.raises(UserError, match="there is no tokenizer to compare with"):
        dataclasses.replace(trained, folder=None).check(variant)


def test_a_variant_of_a_given_base(base, variant):
    assert fit_of(base, base).exact and fit_of(variant, base).exact is False
    for other, why in (
        (with_rows(base, np.random.default_rng(0).permutation), "median cosine of"),
        (base_of(table_for(base.vocab, tied=True), base.vocab), "tied, not rows of width 12, not tied"),
    ):
        with pytest.raises(UserError, match=f"is no variant of tiny: .*{why}"):
            fit_of(other, base)


def test_the_ways(base, trained, variant, target):
    made = {way: variant_table(trained, variant, base, target, way) for way in VARIANTS}
    predicted = {"base": trained.table(base, target), "variant": trained.table(variant, target)}
    forms = surface_forms(target, base.vocab, 64)
    special = np.asarray([not token for token in target.tokens])
    paired = np.flatnonzero(special & (forms.same >= 0))
    assert len(paired) and len(np.flatnonzero(forms.same[~special] >= 0)) > 50
    for side in ("input", "output"):
        own, theirs = (np.asarray(getattr(model.table, side)) for model in (variant, base))
        rows = {way: np.asarray(getattr(table, side)) for way, table in made.items()}
        np.testing.assert_array_equal(rows["variant"], getattr(predicted["variant"], side))
        np.testing.assert_array_equal(rows["base"][~special], getattr(predicted["base"], side)[~special])
        move = rows["difference"] - getattr(predicted["base"], side)
        for i in (*np.flatnonzero(~special)[:200], *paired):
            pieces = forms.pieces[i, : forms.lengths[i]]
            usable = pieces[pieces < len(own)]
            if forms.same[i] >= 0:
                expected = (own - theirs)[forms.same[i]]
            else:
                expected = (own - theirs)[usable].mean(0) if len(usable) else (own - theirs).mean(0)
            np.testing.assert_allclose(move[i], expected, atol=1e-5)
        for way in made:  # special tokens have the variant's rows, whatever the way
            np.testing.assert_allclose(rows[way][paired], own[forms.same[paired]], atol=1e-5)
            np.testing.assert_allclose(rows[way][forms.lengths == 0], np.broadcast_to(own.mean(0), (97, WIDTH)), atol=1e-4)
    for way in VARIANTS:  # of the same model, there is nothing to move
        np.testing.assert_array_equal(variant_table(trained, base, base, target, way).input, predicted["base"].input)


def test_the_ways_with_untied_rows(base, target):
    """Of tied models: output rows move as input rows do."""
    base = base_of(table_for(base.vocab, tied=True), base.vocab)
    variant = dataclasses.replace(base, table=EmbeddingTable.of(noisy(0.1)(base.table.input)), name="variant")
    trained = trained_for(base, UNTIED)
    made = {way: variant_table(trained, variant, base, target, way) for way in ("base", "difference")}
    predicted = trained.table(base, target)
    for way, table in made.items():
        moves = [np.asarray(getattr(table, side)) - getattr(predicted, side) for side in ("input", "output")]
        np.testing.assert_allclose(*moves, atol=1e-4)
        assert np.abs(moves[0]).max() > 0.1 and np.abs(table.output - table.input).max() > 0.1, way


def test_special_tokens_that_only_the_variant_has(base, trained, target):
    """They are appended; the base has no rows for them."""
    vocab = dataclasses.replace(base.vocab, tokens=(*base.vocab.tokens, b"", b""))
    added = with_rows(base, lambda rows: np.concatenate([noisy(0.1)(rows), rows[:2] + 9]).astype(np.float32))
    added = dataclasses.replace(added, vocab=vocab)
    assert trained.fit(added).exact is False
    for way in VARIANTS:
        table = variant_table(trained, added, base, target, way)
        assert len(table.input) == len(target) and np.isfinite(table.input).all()
