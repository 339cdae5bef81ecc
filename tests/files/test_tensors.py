"""Safetensors files: what is damaged or lies about itself is named; tensors are copied byte for byte."""

import errno
import json
import os
import shutil

import numpy as np
import pytest
import tiny
from lms.folders import shard
from safetensors.numpy import load_file, save_file

from zett.errors import UserError
from zett.files.tensors import Stored, read_tensor, stored_tensors, write_tensors


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return tiny.base_folder(tmp_path_factory.mktemp("base") / "model", dtype="float32")


@pytest.fixture
def folder(pristine, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(pristine, tmp_path / "model")


def test_damaged_files_are_named(folder):
    shard(folder)
    path = folder / "model-00002-of-00003.safetensors"
    content = path.read_bytes()
    for damaged in (content[:-10], content[:5], b"", b"\x00" * 100, b"<html>not found</html>"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{path.name} is not a complete safetensors file"):
            stored_tensors(folder)
    path.unlink()
    with pytest.raises(UserError, match=f"names files that are not in .*{path.name}"):
        stored_tensors(folder)


A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


LIES = {  # header and length of the data; the header's own length where it is another
    "overlapping": ({"a": A, "b": {**A, "data_offsets": [4, 12]}}, 12),
    "negative offset": ({"a": {**A, "data_offsets": [-8, 0]}}, 8),
    "backwards": ({"a": {**A, "data_offsets": [8, 0]}}, 8),
    "negative shape": ({"a": {**A, "shape": [-2]}}, 8),
    "hole": ({"a": {**A, "data_offsets": [4, 12]}}, 12),
    "bytes left over": ({"a": A}, 16),
    "truncated": ({"a": A}, 7),
    "shape and size": ({"a": {**A, "shape": [3]}}, 8),
    "dtype and size": ({"a": {**A, "dtype": "BF16"}}, 8),
    "unknown dtype": ({"a": {**A, "dtype": "F31"}}, 8),
    "huge shape": ({"a": {**A, "shape": [2**33, 2**33]}}, 8),
    "huge offset": ({"a": {**A, "data_offsets": [0, 2**64]}}, 8),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, 8),
    "not a tensor": ({"a": [[[[]]]]}, 0),
    "a header longer than memory": ({}, 0, 2**63),
    "a header longer than the file": ({}, 0, 200_000_000),
}


@pytest.mark.parametrize("lie", LIES)
def test_headers_that_lie(lie, tmp_path):
    header, length, *claimed = LIES[lie]
    text = json.dumps(header).encode()
    content = (claimed[0] if claimed else len(text)).to_bytes(8, "little") + text + bytes(length)
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors is not a complete safetensors file"):
        stored_tensors(tmp_path)


def test_a_tensor_in_two_shards(folder):
    shard(folder)
    path = folder / "model-00002-of-00003.safetensors"
    tensors = {**load_file(path), "lm_head.weight": np.zeros((300, 16), np.float32)}
    save_file(tensors, path)
    with pytest.raises(UserError, match=r"hold tensors twice: lm_head\.weight in model-00001-of-00003\S+ and model-00002"):
        stored_tensors(folder)


@pytest.mark.parametrize("fails", [None, errno.EXDEV, errno.ENOSYS])
def test_copying_runs_of_tensors(fails, pristine, tmp_path, monkeypatch):
    """Also between file systems that the system does not copy between by itself."""
    if fails and hasattr(os, "copy_file_range"):

        def copy_file_range(*args):
            raise OSError(fails, "no")

        monkeypatch.setattr(os, "copy_file_range", copy_file_range)
    stored = stored_tensors(pristine)
    names = sorted(stored, key=lambda name: stored[name].start)
    changed = names[3]
    tensors = {name: read_tensor(stored, name) + 1 if name == changed else stored[name] for name in names if name != names[5]}
    write_tensors(tmp_path / "model.safetensors", tensors, {"format": "pt"})
    expected, written = load_file(pristine / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert written.keys() == expected.keys() - {names[5]}
    for name, value in written.items():
        np.testing.assert_array_equal(value, expected[name] + (name == changed))


def test_copying_from_a_file_that_shrinks(pristine, tmp_path):
    stored = stored_tensors(pristine)["model.norm.weight"]
    shrunk = Stored(tmp_path / "shrunk", stored.dtype, stored.shape, 0, stored.nbytes)
    shrunk.file.write_bytes(bytes(stored.nbytes - 1))
    with pytest.raises(UserError, match="shrunk became shorter"):
        write_tensors(tmp_path / "model.safetensors", {"a": shrunk}, {})


def test_index_that_disagrees_with_its_files(folder):
    shard(folder)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match="elsewhere"):
        stored_tensors(folder)
    index["weight_map"]["model.norm.weight"] = "model-00001-of-00003.safetensors"
    index["weight_map"]["lm_head.weight"] = "model-00003-of-00003.safetensors"
    path.write_text(json.dumps(index))
    with pytest.raises(UserError, match="does not say what its files hold"):
        stored_tensors(folder)


def test_pickles_are_refused_with_the_command_that_converts_them(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"python -c .*save_pretrained"):
        stored_tensors(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"neither model.safetensors nor"):
        stored_tensors(folder)
