"""A tiny model that several tests read, and a copy of it that each may damage."""

import shutil

import pytest
import tiny


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return tiny.base_folder(tmp_path_factory.mktemp("base") / "model", dtype="float32")


@pytest.fixture
def folder(pristine, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(pristine, tmp_path / "model")
