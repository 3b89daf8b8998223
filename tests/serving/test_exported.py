"""An exported folder predicts raw files as the runs it was made of do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from pipeline.errors import StoreError, UserError, WeightsError
from pipeline.export.folder import export
from pipeline.serving.exported import PREPROCESSING
from pipeline.serving.predictor import Predictor


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("hub") / "model"
    places = {name: trained.folder / name for name in ("features", "data", "reports")}
    assert export(trained.params, out, models=trained.models, **places) == []
    return out


@pytest.mark.parametrize("number", [0, 5])
def test_raw_files_are_predicted_as_by_the_runs(trained, folder, number, tmp_path, monkeypatch):
    """In another folder, and after the export was moved; clip 5 has no sound."""
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    clip, text = trained.folder / "corpus" / f"clip{number}.mp4", trained.rows[number]["text"]
    wanted = Predictor.load(trained.params, trained.models).predict(clip, text=text)
    monkeypatch.chdir(tmp_path)
    predictor = Predictor.from_pretrained(moved, device="cpu")
    found = predictor.predict(clip, text=text)
    assert found.models == wanted.models == 2 and set(found.random) == set(wanted.random) == {"video", "audio", "text"}
    assert found.emotions == pytest.approx(wanted.emotions, abs=1e-6)
    assert found.dimensions == pytest.approx(wanted.dimensions, abs=1e-6)
    assert {n: v.tolist() for n, v in found.trace.items()} == {
        n: pytest.approx(v.tolist(), abs=1e-6) for n, v in wanted.trace.items()
    }


def test_the_second_example_of_the_documentation_runs(trained, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "out")
    shutil.copy(trained.folder / "corpus" / "clip0.mp4", "clip.mp4")
    page = (Path(__file__).resolve().parents[2] / "docs/export.md").read_text()
    exec(compile(re.findall(r"```python\n(.*?)```", page, re.S)[1], "docs/export.md", "exec"), {})
    assert "joy" in capsys.readouterr().out


def test_preprocessing_says_how_features_are_made_and_no_path_of_the_corpus(trained, folder):
    says = json.loads((folder / PREPROCESSING).read_text())
    assert set(says["streams"]) == set(trained.params.streams)
    audio = says["streams"]["audio"]
    assert audio["encoder"]["rate"] == 4 and audio["encoder"]["pooling"] == "mean"
    assert audio["identity"]["weights"]["source"] == "random:0" and audio["identity"]["family"] == "hubert"
    assert says["decode"]["video"]["fps"] == 4 and says["normalise"] == ["train"]
    assert all(str(trained.folder) not in path.read_text() for path in folder.iterdir() if path.suffix != ".safetensors")


def test_the_card_says_what_is_random_and_that_nothing_was_evaluated(folder):
    card = (folder / "README.md").read_text()
    assert "**Random weights: audio, text, video.**" in card and "**Not evaluated**" in card and "## Figures" not in card


def test_an_adapter_goes_along(trained, tmp_path, monkeypatch):
    """Its files are in the folder, and where the folder lies the stream is told they are; a changed one is refused."""
    monkeypatch.chdir(tmp_path)
    models = shutil.copytree(trained.models, tmp_path / "runs")
    (tmp_path / "lora").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "lora" / name).write_text("{}")
    for path in models.glob("fused/fold0/seed*/config.json"):
        config = json.loads(path.read_text())
        config["encoders"]["audio"]["adapter"] = "lora"
        path.write_text(json.dumps(config))
    export(trained.params, tmp_path / "out", models=models, features=tmp_path, data=tmp_path, reports=tmp_path)
    assert sorted(p.name for p in (tmp_path / "out/adapters/audio").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    predictor = Predictor.from_pretrained(tmp_path / "out", device="cpu")
    assert predictor.encoders["audio"].adapter == str(tmp_path / "out/adapters/audio")
    with pytest.raises(WeightsError):  # these bytes are no adapter
        predictor.extractor("audio")


def test_what_is_no_export_is_one_line(folder, tmp_path):
    with pytest.raises(StoreError, match=f"{PREPROCESSING} is not there"):
        Predictor.from_pretrained(tmp_path)
    old = shutil.copytree(folder, tmp_path / "old")
    (old / PREPROCESSING).write_text(json.dumps({"version": 0}))
    with pytest.raises(StoreError, match="exported by another version"):
        Predictor.from_pretrained(old)


def test_a_folder_of_something_else_is_left_alone(trained, folder, tmp_path):
    again = shutil.copytree(folder, tmp_path / "again")
    places = {name: trained.folder / name for name in ("features", "data", "reports")}
    before = (again / "model.safetensors").read_bytes()
    export(trained.params, again, models=trained.models, **places)
    assert (again / "model.safetensors").read_bytes() == before
    (again / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds what no export wrote"):
        export(trained.params, again, models=trained.models, **places)
    assert (again / "thesis.txt").read_text() == "mine"
    with pytest.raises(UserError, match="--encoders and --int8 are of ONNX"):
        export(trained.params, tmp_path / "new", models=trained.models, int8=True, **places)
    with pytest.raises(StoreError, match="Unknown trained variant 'smell'"):
        export(trained.params, tmp_path / "new", models=trained.models, variant="smell", **places)
    assert not (tmp_path / "new").exists()
