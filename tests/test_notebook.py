"""The notebook runs from the first cell to the last: offline, in an empty folder, in a real kernel."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "examples" / "gtzan.ipynb"


def test_it_is_kept_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


@pytest.mark.slow
def test_demo(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (switch,) = [cell for cell in notebook.cells if cell.source.startswith("DEMO = False")]
    switch.source = "DEMO = True"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output["data"] for output in outputs if "data" in output]
    assert sum("image/png" in data for data in shown) == 5  # four spectrograms and the curves
    assert sum("audio" in data.get("text/html", "") for data in shown) == 4
    told = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    (accuracy,) = re.findall(r"^validation accuracy ([\d.]+), 95 % interval", told, re.MULTILINE)
    assert float(accuracy) > 0.4  # chance is 0.1
    assert re.search(r"^after:  mean \S+, variance 1$", told, re.MULTILINE)
    assert (tmp_path / "genres.onnx").is_file()
