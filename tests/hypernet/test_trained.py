"""A trained hypernetwork as a method: base model and target vocabulary in, a table out."""

import dataclasses

import numpy as np
import pytest
import tiny
from hypernet.networks import CONFIG, UNTIED, WIDTH, base_of, table_for, trained_for
from vocabularies import vocabulary

from zett.errors import UserError
from zett.evaluate.evaluate import evaluate
from zett.hypernet.network import untied_params
from zett.hypernet.release import save_hypernet
from zett.lms.base import load_base_model
from zett.methods import make_method, method_class
from zett.methods.fvt import FVT
from zett.methods.hypernet import HypernetMethod
from zett.table import EmbeddingTable
from zett.vocab import surface_forms

pytestmark = pytest.mark.xdist_group("hypernet")


@pytest.fixture(scope="module")
def base():
    source = vocabulary("bpe", 400)
    return base_of(table_for(source), source)


@pytest.fixture(scope="module")
def target():
    return vocabulary("unigram", 600)


@pytest.fixture(scope="module")
def forms(target, base):
    return surface_forms(target, base.vocab, CONFIG.max_pieces)


@pytest.fixture(scope="module")
def predicted(base, target):
    return trained_for(base)(base, target)


def test_chunks_do_not_matter(base, target, predicted):
    for chunk in (250, 600):
        parts = trained_for(base)(base, target, chunk=chunk)
        np.testing.assert_allclose(parts.input, predicted.input, atol=1e-4)
        np.testing.assert_allclose(parts.output, predicted.output, atol=1e-4)
    assert predicted.input.shape == (len(target), WIDTH) and int(predicted.num_valid) == len(target)


def test_special_and_unused_tokens(base, target, forms, predicted):
    """Special tokens keep their partner's rows; what stands for nothing gets the mean row."""
    table = base.table
    paired = [i for i in target.special.values() if forms.same[i] >= 0]
    nothing = np.flatnonzero(forms.lengths == 0)
    assert len(paired) == 2 and len(nothing) > 90
    for mine, theirs in ((predicted.input, table.input), (predicted.output, table.output)):
        np.testing.assert_array_equal(mine[paired], theirs[forms.same[paired]])
        np.testing.assert_allclose(mine[nothing], np.broadcast_to(theirs.mean(0), (len(nothing), WIDTH)), atol=1e-5)


def test_untied_rows_of_a_tied_base(base, target, forms):
    """Two tables from one: what is not predicted has the source's row in both, and the model computes with the second."""
    tied = base_of(table_for(base.vocab, tied=True), base.vocab)
    made = trained_for(tied, UNTIED)(tied, target)
    rows = np.asarray(tied.table.input)
    paired = [i for i in target.special.values() if forms.same[i] >= 0]
    nothing, others = np.flatnonzero(forms.lengths == 0), np.flatnonzero(target.byte_lengths)
    for mine in (made.input, made.output):
        assert mine.shape == (len(target), WIDTH)
        np.testing.assert_array_equal(mine[paired], rows[forms.same[paired]])
        np.testing.assert_allclose(mine[nothing], np.broadcast_to(rows.mean(0), (len(nothing), WIDTH)), atol=1e-5)
    assert (np.abs(made.input - made.output)[others].max(1) > 0.01).all()
    one = trained_for(tied)
    two = dataclasses.replace(one, config=UNTIED, params=untied_params(one.params, CONFIG))
    expected, made = one(tied, target), two(tied, target)
    np.testing.assert_array_equal(made.input, expected.input)
    np.testing.assert_array_equal(made.output, expected.input)
    assert two.tied and (one.kinds, two.kinds, trained_for(base, UNTIED).kinds) == (1, 2, 2)


def test_padding_of_the_source_table_is_not_read(base, target, predicted):
    padded = base_of(base.table.pad(512), base.vocab)
    np.testing.assert_array_equal(trained_for(padded)(padded, target).input, predicted.input)


def test_another_base_is_refused(base, target):
    hypernet = trained_for(base)
    hypernet.check(base)
    other = base_of(EmbeddingTable.of(base.table.input, base.table.input), base.vocab)
    message = (
        rf"trained for the base model 'tiny' \({base.fingerprint[:12]}\), and this one is another \({other.fingerprint[:12]}\)"
    )
    for refused in (hypernet.check, lambda model: hypernet(model, target), lambda model: hypernet.rows(target, model)):
        with pytest.raises(UserError, match=message):
            refused(other)
    with pytest.raises(UserError, match="trained for the base model 'tiny'"):
        hypernet(base_of(table_for(base.vocab, tied=True), base.vocab), target)


def test_it_is_a_method_like_the_others(base, target, predicted, tmp_path):
    """By its name in the registry with a folder, and as it is."""
    assert method_class("hypernet") is HypernetMethod and HypernetMethod.first == "path"
    hypernet = trained_for(base)
    for method in (hypernet, HypernetMethod):
        assert not method.baseline and method.needs == "a hypernetwork trained for the base model"
    save_hypernet(tmp_path / "folder", hypernet, None, {})
    method = HypernetMethod(str(tmp_path / "folder"))
    method.check(base)
    np.testing.assert_array_equal(method(base, target, seed=3).output, predicted.output)
    with pytest.raises(UserError, match="has no languages; leave language"):
        HypernetMethod(str(tmp_path / "folder"), "de").check(base)
    with pytest.raises(UserError, match="method 'hypernet' needs a hypernetwork made for tiny: give its folder"):
        HypernetMethod().check(base)


def test_it_is_evaluated_like_the_others(target, tmp_path):
    """As a value, by its registry name with a folder, and by a folder alone: one number."""
    config = dataclasses.replace(tiny.CONFIG, hidden_size=WIDTH, num_layers=1, num_heads=2, num_kv_heads=1, head_dim=6)
    base = load_base_model(tiny.base_folder(tmp_path / "base", config=config))
    hypernet = trained_for(base)
    save_hypernet(tmp_path / "folder", hypernet, None, {})
    made = make_method(f"hypernet:{tmp_path / 'folder'}")
    result = evaluate(
        base, {"target": target}, methods={"fvt": FVT(), "value": hypernet, "spec": made},
        hypernets={"folder": tmp_path / "folder"}, windows=tiny.TEXT[:4], progress=False,
    )  # fmt: skip
    scores = result.targets[0].scores
    assert list(scores) == ["folder", "fvt", "value", "spec"] and result.baselines == ("fvt",)
    assert scores["value"].ratio == scores["spec"].ratio == scores["folder"].ratio != scores["fvt"].ratio
