"""Run folders: their grammar, what is written in them and read again."""

import pytest

from pipeline.errors import StoreError
from pipeline.runs.folders import RunName, find_seeds, list_runs
from pipeline.runs.run import load_run
from pipeline.training.stage import train


@pytest.fixture
def runs(tmp_path):
    for name in ("fused/fold0/seed10", "fused/fold0/seed2", "fused/fold1/seed0", "audio/fold0/seed0", "fused/foldx/seed0"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "fused/fold0/seed3").mkdir()  # not finished
    return tmp_path


def test_runs_are_listed_in_order_of_their_numbers(runs):
    assert [name.path for name in list_runs(runs)] == [
        "audio/fold0/seed0",
        "fused/fold0/seed2",
        "fused/fold0/seed10",
        "fused/fold1/seed0",
    ]
    assert list_runs(runs)[RunName("fused", 0, 10)] == runs / "fused/fold0/seed10"
    assert [folder.name for folder in find_seeds(runs)] == ["seed2", "seed10"]


def test_mistakes_are_one_line(runs, tmp_path_factory):
    with pytest.raises(StoreError, match="no trained model"):
        find_seeds(tmp_path_factory.mktemp("empty"))
    with pytest.raises(StoreError, match="Unknown trained variant 'fusd'. Did you mean 'fused'"):
        find_seeds(runs, "fusd")
    with pytest.raises(StoreError, match="has no fold 3"):
        find_seeds(runs, fold=3)
    with pytest.raises(StoreError, match="another version"):
        (runs / "fused/fold0/seed2/model.safetensors").write_bytes(b"")
        load_run(runs / "fused/fold0/seed2")


def test_a_run_of_other_tensors_is_refused(fabricate):
    corpus = fabricate(clips=30)
    params = corpus.params(training={"epochs": 1})
    folder = train(params, corpus.index(params), **corpus.files, out=corpus.path("runs"))[0]
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"width": 16', '"width": 32'))
    with pytest.raises(StoreError, match="does not fit its config.json"):
        load_run(folder)
