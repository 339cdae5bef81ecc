"""Flax's msgpack files: their arrays are read, and whatever else is in a file is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zett.errors import UserError
from zett.hypernet.flax_msgpack import read_arrays


def packed(file: Path, value) -> Path:
    import msgpack

    file.write_bytes(value if isinstance(value, bytes) else msgpack.packb(value))
    return file


def array(shape, dtype: str = "float32", content: bytes | None = None):
    import msgpack

    content = b"\0" * int(np.prod(shape)) * 4 if content is None else content
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, content)))


def test_msgpack_files_of_flax(tmp_path, monkeypatch):
    from flax import serialization

    rng = np.random.default_rng(0)
    tree = {
        "a": {"b": rng.normal(size=(3, 5)).astype(np.float32), "c": rng.normal(size=7), "empty": {}},
        "scalar": np.asarray(2.5, np.float16), "none": np.zeros((0, 4), np.float32), "big": np.zeros((300, 70), np.float32),
        "ünï" * 20: np.ones(1, np.float32), **{f"n{i}": np.full(2, i, np.float32) for i in range(20)},
    }  # fmt: skip
    expected = {"a.b": tree["a"]["b"], "a.c": tree["a"]["c"]} | {k: v for k, v in tree.items() if k != "a"}
    for largest in (2**30, 64):  # arrays above it are written in parts
        monkeypatch.setattr(serialization, "MAX_CHUNK_SIZE", largest)
        (tmp_path / "x").write_bytes(serialization.msgpack_serialize(dict(tree)))
        found = read_arrays(tmp_path / "x")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize(
    "value, message",
    [
        (b"", "not a complete Flax msgpack file"),
        (b"\x01", "does not begin with a map"),
        ({"a": array([2])} | {"b": 1}, "b is not an array"),
        ({"a": {"b": "text"}}, "a.b is not an array"),
        ({"a": True}, "a is not an array"),
        ({"a": 1.5}, "a is not an array"),
        ({"a": None}, "a is not an array"),
        ({"a": -3}, "a is not an array"),
        ({"a": [1, 2]}, "2 exceeds max_array_len"),
        ({"a": []}, "a is not an array"),
        ({"a": b"raw"}, "a is not an array"),
        ({"a": {"b": {b"c": array([1])}}}, "the key b'c' is no text"),
        ({1: array([1])}, "int is not allowed for map key"),
        (b"\x82\xa1a\x80\xa1a\x80", "the key 'a' is no text, or there twice"),
        ({"a": array([2], "object", b"\0" * 16)}, "dtype 'object'; supported: float64, float32"),
        ({"a": array([2], "|V8", b"\0" * 16)}, "supported: float64, float32"),
        ({"a": array([2], "int32")}, "dtype 'int32'"),
        ({"a": array([3], content=b"\0" * 8)}, r"an array of shape \[3\] and float32 with 8 bytes"),
        ({"a": array([2**40, 2**40], content=b"\0" * 8)}, "an array of shape"),
        ({"a": array([-1], content=b"")}, "whose shape is no list of sizes"),
        ({"a": array([2**64 - 1, 0], content=b"")}, "whose shape is no list of sizes"),
        ({"a": array([2**63 - 1, 0], content=b"")}, "not a complete Flax msgpack file"),
        ({"a": array([0] * 40, content=b"")}, "40 exceeds max_array_len"),
        ({"a": array([2], "float32", "four" * 2)}, "an array of shape"),
        ({"a": array([True], content=b"\0" * 4)}, "whose shape is no list of sizes"),
        ({"a": array("no", content=b"")}, "whose shape is no list"),
        ({"__msgpack_chunked_array__": True, "shape": {}, "chunks": {}}, "is not an array|do not make an array"),
        ({"a": {"__msgpack_chunked_array__": True, "shape": {"0": 3}, "chunks": {"0": array([2])}}}, "the parts of a do not"),
        ({"a": {"__msgpack_chunked_array__": True, "shape": array([2]), "chunks": {"0": array([2])}}}, "the parts of a do not"),
        (
            {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 2**64 - 1}, "chunks": {"0": array([2])}}},
            "the parts of a do",
        ),
        (b"\xdf\xff\xff\xff\xff", "4294967295 exceeds max_map_len"),
        (b"\xde\xff\xff\xa1a", "65535 exceeds max_map_len"),
        (b"\xde\x00\xff\xa1a", "incomplete"),
        ({f"{i}": {f"{j}": 1 for j in range(1000)} for i in range(1000)}, "more entries than any network"),
        (b"\x81\xa1a" * 100, "incomplete"),
        (b"\x81\xa1a" * 100 + b"\x80", "nested deeper"),
        (b"\x81\xa1a" * 100_000 + b"\x80", "not a complete Flax msgpack file"),
        (b"\x91" * 100_000 + b"\x90", "exceeds max_array_len"),
        (b"\x81\xa1a\xdd\xff\xff\xff\xff", "4294967295 exceeds max_array_len"),
        (b"\x81\xdb\xff\xff\xff\xffa", "incomplete"),
        (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", "exceeds max_ext_len"),
        (b"\x81\xa1a\xd6\xff\x00\x00\x00\x00", "a is not an array"),  # a time
        (b"\x81\xa1a\xc1", "not a complete Flax msgpack file"),  # a tag that the format does not have
        (b"\x81\xa1a\xd4\x02\x00", "of the extension type 2"),
        (b"\x81\xa1\xff\x80", "not a complete Flax msgpack file"),  # not UTF-8
        (b"\x80\x00", "extra data"),
    ],
)
def test_msgpack_files_that_are_refused(tmp_path, value, message):
    with pytest.raises(UserError, match=message) as raised:
        read_arrays(packed(tmp_path / "x.msgpack", value))
    assert str(tmp_path / "x.msgpack") in str(raised.value)


@given(st.data())
@settings(max_examples=300, deadline=None, database=None)
def test_damaged_msgpack_files_are_refused_or_hold_arrays(tmp_path_factory, data):
    """Cut short, changed or random, a file never does anything but that."""
    import msgpack

    whole = msgpack.packb({"a": {"b": array([2, 2]), "c": array([3])}, "d": array([1])})
    kind = data.draw(st.sampled_from(["cut", "changed", "random"]))
    if kind == "random":
        content = data.draw(st.binary(max_size=60))
    elif kind == "cut":
        content = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, len(whole) - 1))
        content = whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :]
    file = tmp_path_factory.getbasetemp() / "damaged.msgpack"
    file.write_bytes(content)
    try:
        found = read_arrays(file)
    except UserError as error:
        assert str(file) in str(error)
    else:
        assert kind != "cut" and all(isinstance(x, np.ndarray) and x.dtype.kind in "fV" for x in found.values())
