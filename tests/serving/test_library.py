"""`affectory.Predictor` is what `predict` asks."""

import pytest

from affectory import Predictor
from pipeline.compose import text
from pipeline.errors import StoreError, UserError
from pipeline.serving import predictor as serving


def test_of_a_project(trained, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models/runs").symlink_to(trained.models)
    (tmp_path / "params.yaml").write_text(text(trained.params.model_dump(mode="json")))
    clip, said = trained.folder / "corpus/clip0.mp4", trained.rows[0]["text"]
    found = Predictor(tmp_path)(clip, said)
    expected = serving.Predictor.load(trained.params, trained.models).predict(clip, said)
    assert found.emotions == expected.emotions and found.dimensions == expected.dimensions
    with pytest.raises(StoreError, match="lineer"):
        Predictor(tmp_path, variant="lineer")


def test_no_project_is_one_line(tmp_path):
    with pytest.raises(UserError, match="params.yaml is not there"):
        Predictor(tmp_path)
