"""Folders that several tests of published hypernetworks read."""

from pathlib import Path

import pytest
from hypernet.golden import make_published as golden
from hypernet.published_folders import stored, weights_of, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Of each golden case and format, by (case, format)."""
    root = tmp_path_factory.mktemp("published")
    made: dict = {}

    def of(case: str, file: str = "model.safetensors") -> Path:
        if (case, file) not in made:
            config = golden.CONFIG | golden.CASES[case]
            made[case, file] = write(root / f"{case}-{file}", config, weights_of(stored(case)), file)
        return made[case, file]

    return of
