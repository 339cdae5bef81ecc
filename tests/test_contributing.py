"""What CONTRIBUTING.md says of adding a method, an objective, a family and an evaluation task: its diffs apply, and work."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DIFFS = re.findall(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
pytestmark = [
    pytest.mark.skipif(shutil.which("git") is None, reason="git, which applies the diffs, is not installed"),
    pytest.mark.xdist_group("contributing"),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """The folder of a copy of the package to which all diffs have been applied."""
    folder = tmp_path_factory.mktemp("contributing")
    ignored = shutil.ignore_patterns("__pycache__", "assets")
    shutil.copytree(ROOT / "zett", folder / "zett", ignore=ignored)
    (folder / "zett" / "assets").symlink_to(ROOT / "zett" / "assets")
    (folder / "all.diff").write_text("".join(DIFFS), encoding="utf-8")
    # Where the temporary folder is part of some repository, git would take paths for that one's.
    environ = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    subprocess.run(["git", "apply", "--verbose", "all.diff"], cwd=folder, env=environ, check=True)
    return folder


@pytest.fixture(scope="module")
def found(package, corpus) -> dict:
    """What tests/toys.py saw of the four additions."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(ROOT / "tests")])}
    command = [sys.executable, str(ROOT / "tests" / "toys.py"), str(package), str(corpus)]
    run = subprocess.run(command, cwd=package, env=environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads((package / "found.json").read_text())
    assert Path(found["package"]) == package / "zett" / "__init__.py"
    return found


def test_each_is_one_file_and_one_line():
    """And an objective has its weight."""
    assert len(DIFFS) == 4
    for diff in DIFFS:
        files = re.split(r"^diff --git .*\n", diff, flags=re.MULTILINE)[1:]
        added = {f: [line for line in f.splitlines() if re.match(r"[+-](?![+-]{2} )", line)] for f in files}
        new, old = [f for f in files if f.startswith("new file")], [f for f in files if not f.startswith("new file")]
        assert len(new) == 1 and all(len(added[f]) == 1 and added[f][0].startswith("+") for f in old)
        assert len(old) == 1 + ("zett/config.py" in diff)


def test_the_code_is_as_ours(package):
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("ruff is not installed")
    for check in (["check"], ["format", "--check"]):
        run = subprocess.run([ruff, *check, "--config", str(ROOT / "pyproject.toml"), "zett"], cwd=package, capture_output=True)
        assert run.returncode == 0, run.stdout.decode()


@pytest.mark.slow
def test_a_method(found):
    listed = found["method"]["listed"]
    assert re.search(r"^toy\n  The row of a token's first .*\n  needs nothing\n  toy:scale=1.0$", listed, re.MULTILINE)
    assert found["method"]["new"] > 10
    assert found["method"]["right"] and found["method"]["written"]


@pytest.mark.slow
def test_an_objective(found):
    lines = found["objective"]
    assert [line["step"] for line in lines] == [1, 2]
    for line in lines:
        assert line["toy"] > 0
        assert line["loss"] == pytest.approx(line["lm"] + 0.1 * line["lexical"] + 0.5 * line["toy"], rel=1e-5)


@pytest.mark.slow
def test_a_family(found):
    assert found["family"]["type"] == "toy"
    assert found["family"]["equal"] and found["family"]["size"] > 0.1


@pytest.mark.slow
def test_a_task(found):
    means = found["task"]["means"]
    assert means == pytest.approx(found["task"]["expected"], rel=1e-12)
    assert means[0] != means[1]
