"""What the code imports is what pyproject.toml asks for, so that a fresh environment has it and not by accident."""

import ast
import importlib.metadata
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("zett", "configs", "train.py", "eval.py")  # what works without the extra `test`
REST = ("tests", "benchmarks", "notebooks")
# Imported only where they are used, after a look whether they are there.
OPTIONAL = {
    "torch", "sentencepiece", "tensorboardX", "wandb", "gensim", "mergekit", "deepfocus", "wechsel", "faiss",
    "sentence_transformers", "xllamacpp", "conversion", "vllm",
}  # fmt: skip
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines()


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def named(requirements: list[str]) -> set[str]:
    """The packages of `requirements`, without extras, versions and markers."""
    return {normalised(re.match(r"[\w.-]+", line)[0]) for line in requirements}


DECLARED = named(PROJECT["dependencies"])
DECLARED_TEST = DECLARED | named(PROJECT["optional-dependencies"]["test"])


def sources(place: str) -> Iterator[tuple[Path, str]]:
    """The Python files below a folder of the repository, or the one file, and the code cells of its notebooks."""
    path = ROOT / place
    for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
        yield file, file.read_text(encoding="utf-8")
    for file in sorted(path.rglob("*.ipynb")):
        cells = [cell for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        yield file, "\n".join("".join(cell["source"]) for cell in cells)


def imports(tree: ast.AST, inside: ast.AST | None = None) -> Iterator[tuple[str, int, ast.AST | None]]:
    """(top-level module, line, the innermost function around it or None) of each absolute import, importorskip included.

    A test file that skips as a whole looks whether a library is there, as a function does.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module).split(".")[0], node.lineno, inside
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("pytest.importorskip", "importlib.import_module"):
            if node.args and isinstance(node.args[0], ast.Constant):
                looks = node if ast.unparse(node.func) == "pytest.importorskip" else inside
                yield node.args[0].value.split(".")[0], node.lineno, looks
        yield from imports(node, node if isinstance(node, ast.FunctionDef) else inside)


# Test files import helpers by name, from their own folder and others.
OWN = {"zett", *REST, *(path.stem for path in (ROOT / "tests").rglob("*") if path.is_dir() or path.suffix == ".py")}
DISTRIBUTIONS = importlib.metadata.packages_distributions()


def missing(code: str, declared: set[str]) -> list[str]:
    """The imports of `code` that nothing in `declared` brings, as "line: module"."""
    wrong = []
    for module, line, function in imports(ast.parse(code)):
        distributions = {normalised(name) for name in DISTRIBUTIONS.get(module, [module])}
        if module in sys.stdlib_module_names or module in OWN or distributions & declared:
            continue
        if module not in OPTIONAL or function is None:
            wrong.append(f"{line}: {module}")
    return wrong


@pytest.mark.parametrize(("place", "declared"), [(p, DECLARED) for p in PRODUCT] + [(p, DECLARED_TEST) for p in REST])
def test_every_import_is_declared(place, declared):
    found = list(sources(place))
    assert found
    wrong = [f"{file.relative_to(ROOT)}:{where}" for file, code in found for where in missing(code, declared)]
    assert not wrong, f"not among the dependencies of pyproject.toml: {wrong}"


def test_an_import_that_nothing_declares_is_found():
    code = "import os, numpy.linalg\nimport attr\nimport torch\ndef f():\n import torch\n from attr import s\n from . import x"
    assert missing(code, {"numpy"}) == ["2: attr", "3: torch", "6: attr"]
    assert missing("pytest.importorskip('attr')", {"numpy"}) == ["1: attr"]


def test_what_chat_templates_take_is_installed():
    """Transformers renders them with Jinja, which it does not ask for itself."""
    assert "jinja2" in DECLARED


def test_every_package_that_is_asked_for_has_a_tested_version():
    pinned = {normalised(line.split("==")[0]) for line in CONSTRAINTS if line and not line.startswith("#")}
    asked = DECLARED_TEST.union(*(named(PROJECT["optional-dependencies"][extra]) for extra in ("docs", "sentencepiece")))
    assert asked <= pinned


def test_every_file_of_the_package_is_installed():
    """setuptools leaves out all but Python files, unless a pattern of package-data names them."""
    patterns = PYPROJECT["tool"]["setuptools"]["package-data"]["zett"]
    named = {path for pattern in patterns for path in (ROOT / "zett").glob(pattern)}
    files = {path for path in (ROOT / "zett").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert (ROOT / "zett" / "inspect" / "page.html.jinja") in named
    assert [path for path in files - named if path.suffix != ".py"] == []
