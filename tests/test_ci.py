"""What .ci/run relies on: its second run of the tests does all that the first has not shown."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import pytest
def test_passes(): pass
def test_may_see_torch(): assert "transformers"
def test_fails(): assert 0
def test_skips(): pytest.importorskip("no_such_package")
@pytest.mark.slow
def test_slow(): pass
"""


def run(folder: Path, *arguments: str) -> str:
    """What pytest says of TESTS, with the settings of these tests."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "PYTEST_ADDOPTS": ""}
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-c", "pytest.ini", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120).stdout


def test_what_has_passed_is_left_out(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    (tmp_path / "test_a.py").write_text(TESTS)
    assert "1 failed, 2 passed, 1 skipped in" in run(tmp_path, "-n", "1", "-m", "not slow", "--write-passed=passed")
    assert (tmp_path / "passed").read_text().split() == ["test_a.py::test_passes", "test_a.py::test_may_see_torch"]
    left = run(tmp_path, "-n", "0", "--collect-only", "--skip-passed=passed").splitlines()
    assert left[:4] == [f"test_a.py::test_{name}" for name in ("may_see_torch", "fails", "skips", "slow")]
