"""The notebook runs as it is, prints no warning, and shows what it says."""

import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / "examples" / "ten_lines.ipynb"


@pytest.mark.thorough
@pytest.mark.timeout(1200)
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output["text"] for output in outputs if output.get("name") == "stderr"]
    [shown] = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert re.search(r"300 texts, [\d,]+ tokens, scores: combined; \d+ tokens selected", shown)
    printed = "".join(output.get("text", "") for output in outputs)
    before, after = map(float, re.search(r"EMT ([\d.]+) -> ([\d.]+)", printed).groups())
    assert after < before / 2
