"""A tiny causal language model that the tests of this folder share."""

import pytest
import tiny

from zett.lms import load_base_model


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_base_model(tiny.base_folder(tmp_path_factory.mktemp("objectives") / "base", dtype="float32"))
