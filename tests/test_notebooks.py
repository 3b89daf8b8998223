"""The notebooks of examples/ run from their first cell to their last, in a kernel."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.compose import text

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path.name for path in (ROOT / "examples").glob("*.ipynb"))


@pytest.fixture
def project(fabricate):
    """A project's folder, whose features are fabricated."""
    corpus = fabricate()
    corpus.path("params.yaml").write_text(text(corpus.params().model_dump(mode="json")))
    return corpus.folder


def run(name, folder, monkeypatch):
    """The outputs of each cell, as text."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copy(ROOT / "examples" / name, folder)
    notebook = nbformat.read(folder / name, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return "\n".join(
        str(one.get("text") or one.get("data", {}).get("text/plain", ""))
        for cell in notebook.cells
        for one in cell.get("outputs", ())
    )


def test_features(project, monkeypatch):
    said = run("features.ipynb", project, monkeypatch)
    assert "Features(text: 53 of 60 clips" in said and "(True, Features(audio" in said
    recall = float(said.split("UAR ")[1].split()[0])
    assert recall > 0.6  # the fabricated streams tell the class; a chance of 0.25


def test_a_notebook_is_kept_without_its_outputs():
    assert NOTEBOOKS
    for name in NOTEBOOKS:
        cells = json.loads((ROOT / "examples" / name).read_text(encoding="utf-8"))["cells"]
        assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells), name
