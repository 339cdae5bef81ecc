"""Word vectors from files of strangers: every format, and everything that is none."""

import gzip
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from methods.vector_files import write_binary, write_text

from zett.errors import UserError
from zett.files.vectors import read_vectors

RNG = np.random.default_rng(0)
WORDS = ["the", "Straße", ". . .", "日本", "Ġthe", "▁x", "-1.5"]
VECTORS = {word: RNG.standard_normal(5).astype(np.float32) for word in WORDS}


def same(found) -> None:
    assert found.words == WORDS and found.rows.dtype == np.float32
    np.testing.assert_allclose(found.rows, list(VECTORS.values()), atol=1e-6)


def test_every_format(tmp_path):
    same(read_vectors(write_text(tmp_path / "a.vec", VECTORS), 100))
    same(read_vectors(write_text(tmp_path / "glove.txt", VECTORS, header=False), 100))
    (tmp_path / "a.vec.gz").write_bytes(gzip.compress((tmp_path / "a.vec").read_bytes()))
    same(read_vectors(tmp_path / "a.vec.gz", 100))
    spaceless = {word.replace(" ", "_"): row for word, row in VECTORS.items()}
    for newlines in (True, False):
        found = read_vectors(write_binary(tmp_path / "a.bin", spaceless, newlines=newlines), 100)
        assert found.words == list(spaceless)
        np.testing.assert_array_equal(found.rows, list(spaceless.values()))


def test_no_more_than_is_asked_for_and_the_first_of_a_word(tmp_path):
    file = write_text(tmp_path / "a.vec", VECTORS)
    file.write_text(file.read_text().replace("Straße", "the"))
    found = read_vectors(file, 3)
    assert found.words == ["the", "the", ". . ."] and found.index == {"the": 0, ". . .": 2}
    assert read_vectors(write_binary(tmp_path / "a.bin", {"a": np.ones(2), "b": np.ones(2)}), 1).words == ["a"]


def test_only_what_is_wanted(tmp_path):
    """Lines of other words are not even looked at, but they count."""
    file = write_text(tmp_path / "a.vec", VECTORS)
    file.write_text(file.read_text().replace("Straße 0", "Straße x").replace("Straße -", "Straße x"))
    for found in (read_vectors(file, 100, {"the", "日本"}), read_vectors(file, 4, {"the", "日本", "▁x"})):
        assert found.words == ["the", "日本"]
        np.testing.assert_allclose(found.rows, [VECTORS["the"], VECTORS["日本"]], atol=1e-6)
    binary = write_binary(tmp_path / "a.bin", {"a": np.ones(2), "b": 2 * np.ones(2)})
    assert read_vectors(binary, 10, {"b"}).rows.tolist() == [[2, 2]]
    assert read_vectors(binary, 10, {"c"}).rows.shape == (0, 2)


def large_header(tmp_path):
    """A header that promises terabytes."""
    (tmp_path / "x").write_bytes(b"99999999999 4096\n" + b"word " + bytes(64))


CASES = {
    "a word without numbers": (b"word\nanother\n", "line 1: not a word and 1 to 4096 numbers"),
    "one number less": (b"2 3\na 1 2 3\nb 1 2\n", "line 3: not a word and 3 finite numbers"),
    "one number less, GloVe": (b"a 1 2 3\nb 1 2\n", "line 2: not a word and 3 finite numbers"),
    "not a number": (b"a 1 2\nb 1 x\n", "line 2: not a word and 2 finite numbers"),
    "NaN": (b"a 1 2\nb 1 nan\n", "line 2: not a word and 2 finite numbers"),
    "empty": (b"", "not a word and 1 to 4096 numbers"),
    "only a header": (b"3 4\n", "holds no word vectors"),
    "size 0": (b"3 0\n", "says 3 vectors of 0 numbers"),
    "a vast size": (b"3 99999999\nx 1", "says 3 vectors of 99999999 numbers"),
    "cut off": (b"3 4\na \x01\x02", "ends in vector 1, or is of no known format"),
    "a fastText model": (b"\xba\x16\x4f\x2f\x0c\x00", r"is a fastText model; give .* \.vec"),
    "a pickle": (pickle.dumps({"a": 1}), "is a pickle or a NumPy file, which is not read"),
    "a binary NaN": (b"1 1\na \x00\x00\xc0\x7f", "vector 1 has numbers that are not finite"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_none(case, tmp_path):
    content, message = CASES[case]
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_vectors(tmp_path / "x", 100)
    assert str(tmp_path / "x") in str(error.value) and "\n" not in str(error.value)


def test_a_header_is_not_believed(tmp_path):
    large_header(tmp_path)
    with pytest.raises(UserError, match="ends in vector 1"):
        read_vectors(tmp_path / "x", 10**9)


def test_files_that_are_not_there(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=r"there is no file .* with word vectors"):
            read_vectors(path, 10)
    (tmp_path / "a.gz").write_bytes(b"not compressed")
    with pytest.raises(UserError, match=r"a\.gz cannot be read"):
        read_vectors(tmp_path / "a.gz", 10)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"2 2\n", b"1 1\n", b"a 1 2\n"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, begin):
    file = tmp_path_factory.getbasetemp() / "fuzzed"
    file.write_bytes(begin + content)
    try:
        found = read_vectors(file, 50)
    except UserError:
        return
    assert len(found.words) == len(found.rows) <= 50 and np.isfinite(found.rows).all()
