"""The notebook runs from top to bottom, with less training and less text than a reader gets."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "notebooks" / "quickstart.ipynb"


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
