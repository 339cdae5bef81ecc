"""What holds for every method that needs help: tables, shared tokens, dtypes, settings, and what it may not overwrite."""

import logging

import numpy as np
import pytest
import tiny
from encoders import encoder_folder
from methods.vector_files import write_text

from zett.errors import UserError
from zett.evaluate.evaluate import evaluate
from zett.lms import load_base_model
from zett.methods import METHODS, make_method, method_class, spec_of
from zett.methods.token_vectors import spellings, words_of
from zett.transfer import transfer
from zett.vocab import load_tokenizer

HELPED = [name for name in METHODS if not method_class(name).baseline and name != "hypernet"]


@pytest.fixture(scope="module")
def helped(tmp_path_factory, target_folder) -> dict[str, dict]:
    """Settings with help for each method."""
    folder = tmp_path_factory.mktemp("help")
    target = load_tokenizer(target_folder)
    donor = str(tiny.base_folder(folder / "donor", own=tiny.tokenizer("bpe", 400), dtype="float32", seed=3))
    rng = np.random.default_rng(0)
    names = {name for name in (*spellings(target), *words_of(target)) if name and not any(map(str.isspace, name))}
    vectors = str(write_text(folder / "all.vec", {name: rng.standard_normal(6) for name in sorted(names)}))
    parallel = folder / "parallel.tsv"
    lines = [line.split() for line in tiny.TEXT]
    parallel.write_text("".join(f"{' '.join(reversed(words))}\t{' '.join(words)}\n" for words in lines))
    return {
        "omp": {"donor": donor, "k": 8}, "clp": {"donor": donor}, "tokenadapt": {"embedder": donor},
        "focus": {"vectors": vectors}, "wechsel": {"vectors": vectors}, "ofa": {"vectors": vectors, "dimension": 8},
        "trans": {"parallel": str(parallel), "least": 1},
    }  # fmt: skip


def test_all_of_them_are_here(helped):
    assert sorted(helped) == sorted(HELPED)


KINDS = ("tied", "untied", "masked")  # the last has a WordPiece tokenizer, tied rows and a bias


@pytest.fixture(scope="module")
def bases(base_folder, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("bases")
    tied, masked = tiny.base_folder(folder / "tied", tied=True), encoder_folder(folder / "masked", "bert")
    return {name: load_base_model(path, body=False) for name, path in zip(KINDS, (tied, base_folder, masked))}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", HELPED)
def test_a_table_is_like_the_bases(name, kind, bases, helped, target_folder):
    base = bases[kind]
    target, method = load_tokenizer(target_folder), make_method(name, **helped[name])
    made, fvt = method(base, target), make_method("fvt")(base, target)
    shared = [i for i, token in enumerate(target.tokens) if token in base.vocab.id_of]
    for rows, means in [(made.input, fvt.input), (made.output, fvt.output), (made.bias, fvt.bias)]:
        assert (rows is None) == (means is None)
        if rows is not None:
            assert rows.dtype == base.table.input.dtype and rows.shape == means.shape
            assert np.isfinite(np.asarray(rows, np.float32)).all()
            np.testing.assert_array_equal(rows[shared], means[shared])
            assert np.any(np.asarray(rows) != np.asarray(means))
    own = method(base, base.vocab)
    text = np.flatnonzero(base.vocab.byte_lengths)
    np.testing.assert_array_equal(np.asarray(own.input)[text], np.asarray(base.table.input)[text])


@pytest.mark.parametrize("name", HELPED)
def test_as_text_again(name, helped):
    """As cards and records have it."""
    method = make_method(name, **helped[name])
    assert make_method(spec_of(method)) == method


@pytest.mark.parametrize("name", HELPED)
def test_help_is_asked_for_before_anything_is_read(name, target_folder, tmp_path):
    with pytest.raises(UserError, match=f"method {name} needs ") as error:
        transfer(tmp_path / "absent", target_folder, tmp_path / "out", method=name)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", HELPED)
def test_help_is_not_overwritten(name, helped, base_folder, target_folder, tmp_path):
    """Not even where it is a folder that zett wrote."""
    given = next(value for value in helped[name].values() if isinstance(value, str))
    with pytest.raises(UserError, match=r"is read from|is a file"):
        transfer(base_folder, target_folder, given, method=make_method(name, **helped[name]), overwrite=True)


def test_all_of_them_are_evaluated(helped, base_folder, target_folder, caplog):
    """Beside the baselines, on the same bytes."""
    methods = {name: make_method(name, **settings) for name, settings in helped.items()} | {"fvt": make_method("fvt")}
    with caplog.at_level(logging.WARNING, "zett"):
        report = evaluate(base_folder, target_folder, methods=methods, windows=["def f(x):", "return"], progress=False)
    assert caplog.text.count("breaker tokens") == 2  # once for each method with a donor
    scores = report.targets[0].scores
    assert list(scores) == list(methods) and all(np.isfinite(score.bits_per_byte) for score in scores.values())
