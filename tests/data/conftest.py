"""Text files for the tests of this folder."""

import pytest
from texts import write_jsonl


@pytest.fixture
def sources(tmp_path):
    for name, count in (("a", 50), ("b", 11), ("c", 3)):
        write_jsonl(tmp_path / f"{name}.jsonl", [f"{name} {i}" for i in range(count)])
    return tmp_path
