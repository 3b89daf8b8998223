"""`affectory.Predictor` is what `predict` asks."""

from pathlib import Path

import pytest

from affectory import Predictor
from pipeline.compose import text
from pipeline.errors import StoreError, UserError
from pipeline.serving import predictor as serving

ROOT = Path(__file__).resolve().parents[2]


def make_project(trained, folder):
    (folder / "models").mkdir()
    (folder / "models/runs").symlink_to(trained.models)
    (folder / "data").mkdir()
    (folder / "data/corpus").symlink_to(trained.folder / "corpus")
    (folder / "params.yaml").write_text(text(trained.params.model_dump(mode="json")))


def test_of_a_project(trained, tmp_path):
    make_project(trained, tmp_path)
    clip, said = trained.folder / "corpus/clip0.mp4", trained.rows[0]["text"]
    found = Predictor(tmp_path)(clip, said)
    expected = serving.Predictor.load(trained.params, trained.models).predict(clip, said)
    assert found.emotions == expected.emotions and found.dimensions == expected.dimensions
    with pytest.raises(StoreError, match="lineer"):
        Predictor(tmp_path, variant="lineer")


def test_no_project_is_one_line(tmp_path):
    with pytest.raises(UserError, match="params.yaml is not there"):
        Predictor(tmp_path)


def test_the_notebook_asks_it(trained, tmp_path, monkeypatch):
    """examples/predict.ipynb, from its first cell to its last."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    make_project(trained, tmp_path)
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "examples/predict.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (said, streams, rows, mistake) = (
        "".join(one.get("text") or one.get("data", {}).get("text/plain", "") for one in cell.outputs)
        for cell in notebook.cells
        if cell.cell_type == "code"
    )
    assert "joy" in said and "('OK'," in streams and rows.startswith("((") and "nowhere.mp4" in mistake and "Error" not in mistake
