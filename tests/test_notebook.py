"""The notebook runs from top to bottom, with less training and less text than a reader gets; and README tells what is in it."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "quickstart.ipynb"


def test_readme_promises_what_is_in_it():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    said = (ROOT / "README.md").read_text(encoding="utf-8").split("(notebooks/quickstart.ipynb) ")[1].split("\n\n")[0]
    promised, _, own_model = said.partition("; for your own model")
    calls = re.findall(r"`([\w.]+)`", promised)
    assert "all of this" not in promised and len(calls) >= 4
    assert not [name for name in calls if f"{name}(" not in code]
    assert own_model and "## Your own model" in "".join(cells[-1]["source"])


@pytest.mark.slow
def test_notebook_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    parameters = notebook.cells[1]
    for full, short in (("STEPS = 90", "STEPS = 2"), ("TEXT_BYTES = 32768", "TEXT_BYTES = 4096")):
        assert full in parameters.source
        parameters.source = parameters.source.replace(full, short)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = "".join(o.get("text", "") for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs)
    assert "bpe-8k" in text and "unigram-8k" in text and "shipped" in text
    shown = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs if "data" in o]
    assert any("image/png" in o["data"] for o in shown)
