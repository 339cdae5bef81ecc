"""Orthogonal matching pursuit: against its formula in float64, against mergekit, and what a donor has to be."""

import dataclasses
import logging
import shutil

import numpy as np
import pytest
import tiny

from zett.errors import UserError
from zett.lms import load_base_model
from zett.lms.base import BaseModel
from zett.methods import make_method
from zett.methods.omp import pursue
from zett.table import EmbeddingTable
from zett.transfer import transfer
from zett.vocab import Vocabulary, load_tokenizer

K = 8


@pytest.fixture(scope="module")
def base(base_folder) -> BaseModel:
    return load_base_model(base_folder, body=False)


@pytest.fixture(scope="module")
def donor_folder(tmp_path_factory):
    return tiny.base_folder(tmp_path_factory.mktemp("donor") / "donor", own=tiny.tokenizer("bpe", 400), dtype="float32", seed=2)


@pytest.fixture(scope="module")
def target(target_folder) -> Vocabulary:
    return load_tokenizer(target_folder)


def plain(x: np.ndarray, atoms: np.ndarray, k: int) -> tuple[list[int], np.ndarray]:
    """The formula: take the atom nearest in direction to what is left, fit all again by least squares."""
    picked, left, weights = [], x, np.zeros(0)
    for _ in range(k):
        products = np.abs(atoms @ left)
        products[picked] = -1
        picked.append(int(products.argmax()))
        weights = np.linalg.lstsq(atoms[picked].T, x)[0]
        left = x - weights @ atoms[picked]
    return picked, weights


def test_picks_and_coefficients_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    # A large common part, as embedding rows have, makes atoms nearly dependent.
    atoms, targets = (rng.standard_normal((n, 48)) + 2 * np.ones(48) for n in (300, 20))
    ids, weights = (np.asarray(x) for x in pursue(targets.astype(np.float32), atoms.astype(np.float32), 24))
    for x, picked, found in zip(targets, ids, weights):
        expected = plain(x, atoms, 24)
        assert list(picked) == expected[0]
        np.testing.assert_allclose(found, expected[1], atol=1e-4)


def test_what_is_exhausted_gets_no_coefficient():
    rng = np.random.default_rng(0)
    atoms = rng.standard_normal((40, 6)).astype(np.float32)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)  # products pick by direction and length
    atoms[1] = atoms[0]
    targets = np.stack([3 * atoms[0], atoms[5] - atoms[7], np.zeros(6), rng.standard_normal(6)]).astype(np.float32)
    ids, weights = (np.asarray(x) for x in pursue(targets, atoms, 12))
    assert ids[0, 0] == 0 and weights[0, 0] == pytest.approx(3) and not weights[0, 1:].any()
    assert not weights[2].any() and np.isfinite(weights).all()
    np.testing.assert_allclose(np.einsum("nk,nkd->nd", weights, atoms[ids]), targets, atol=1e-5)
    assert (np.abs(weights) < 100).all()


def by_formula(base: BaseModel, donor: BaseModel, target: Vocabulary, theirs, ours) -> np.ndarray:
    """Rows of one side, written out token by token; NaN for special tokens."""
    theirs, ours = np.asarray(theirs, np.float64), np.asarray(ours, np.float64)
    shared = [(donor.vocab.id_of[t], base.vocab.id_of[t]) for t in target.tokens if t and t in base.vocab.id_of]
    shared = sorted({b: (d, b) for d, b in shared}.values(), key=lambda pair: pair[1])
    there, here = (np.asarray(ids) for ids in zip(*shared))
    rows = np.full((len(target), ours.shape[1]), np.nan)
    for i, token in enumerate(target.tokens):
        if not token:
            continue
        if token in base.vocab.id_of:
            rows[i] = ours[base.vocab.id_of[token]]
        else:
            picked, weights = plain(theirs[donor.vocab.id_of[token]], theirs[there], K)
            rows[i] = weights @ ours[here[picked]]
    return rows


@pytest.mark.parametrize("tied", ["none", "base", "donor"])
def test_rows_are_those_of_the_formula(tied, base, donor_folder, target, tmp_path):
    donor_name = (
        tiny.base_folder(tmp_path / "tied", own=tiny.tokenizer("bpe", 400), tied=True) if tied == "donor" else donor_folder
    )
    donor = load_base_model(donor_name, body=False)
    rows = [np.asarray(x, np.float32) for x in (base.table.input, base.table.output)]
    table = EmbeddingTable.of(rows[0], None if tied == "base" else rows[1], rows[1][:, 0])
    base = dataclasses.replace(base, table=table)
    out = make_method("omp", donor=str(donor_name), k=K)(base, target)
    text = [i for i, token in enumerate(target.tokens) if token]
    assert len([i for i in text if target.tokens[i] not in base.vocab.id_of]) > 50

    def same(found, side, ours) -> None:
        expected = by_formula(base, donor, target, side, ours)
        np.testing.assert_allclose(np.reshape(found, expected.shape)[text], expected[text], atol=1e-4)

    same(out.input, donor.table.input, rows[0])
    assert (out.output is None) == (tied == "base")
    if tied != "base":
        same(out.output, donor.table.output_rows, rows[1])
    same(out.bias, donor.table.input if tied == "base" else donor.table.output_rows, rows[1][:, :1])


def test_against_mergekit():
    """Its pursuit, where it is installed."""
    omp = pytest.importorskip("mergekit.tokensurgeon.omp", reason="mergekit is not installed", exc_type=ImportError)
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    atoms, targets, ours = (rng.standard_normal(s).astype(np.float32) for s in [(500, 96), (40, 96), (500, 32)])
    theirs = [x.numpy() for x in omp.batch_omp(torch.from_numpy(targets), torch.from_numpy(atoms), 32)]
    ids, weights = (np.asarray(x) for x in pursue(targets, atoms, 32))
    np.testing.assert_array_equal(ids, theirs[0])
    np.testing.assert_allclose(weights, theirs[1], atol=1e-4)
    rows = [np.einsum("nk,nkd->nd", w, ours[i]) for i, w in ((ids, weights), theirs)]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-4)


def test_a_transfer_with_a_donor(base_folder, donor_folder, target_folder, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "zett"):
        output = transfer(base_folder, target_folder, tmp_path / "out", method=f"omp:{donor_folder},k={K}")
    assert "breaker tokens" in caplog.text and str(donor_folder) in caplog.text
    assert f"omp:{donor_folder},k={K}" in (output / "README.md").read_text()
    written = load_base_model(output, body=False)
    assert np.isfinite(np.asarray(written.table.input, np.float32)).all()


def test_the_donor_is_not_overwritten(base_folder, donor_folder, target_folder):
    with pytest.raises(UserError, match="which is read from"):
        transfer(base_folder, target_folder, donor_folder, method=f"omp:{donor_folder},k={K}", overwrite=True)
    assert load_base_model(donor_folder, body=False)


def refused(message: str, base: BaseModel, target: Vocabulary, spec: str) -> None:
    method = make_method(spec)
    with pytest.raises(UserError, match=message) as error:
        method.precheck(base.name)
        method.check(base)
        method(base, target)
    assert "\n" not in str(error.value)


def test_donors_that_cannot_help(base, base_folder, donor_folder, target, tmp_path):
    refused("method omp needs a donor, a model that was trained with the target tokenizer", base, target, "omp")
    refused(r"there is no folder .*nowhere", base, target, f"omp:{tmp_path / 'nowhere'}")
    refused(r"has 0 of the \d+ tokens of the target tokenizer that the base model lacks", base, target, f"omp:{base_folder}")
    refused(r"share \d+ tokens; at least 1,000 are needed", base, target, f"omp:{donor_folder},k=1000")
    other = shutil.copytree(donor_folder, tmp_path / "other")  # with a tokenizer that is not its own
    tiny.tokenizer_folder(other, size=500)
    refused("the tokenizer has 500 ids, the embedding table only 400 rows; they do not match", base, target, f"omp:{other}")
    with pytest.raises(UserError, match="method omp: k is 0; it has to be at least 1"):
        make_method("omp:x,k=0")
