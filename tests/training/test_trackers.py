"""Programs that show curves: what `history.csv` says, and nothing that is trained is another for it."""

from __future__ import annotations

import csv
import sys
from types import ModuleType, SimpleNamespace

import pytest

from pipeline.errors import ParamsError, UserError
from pipeline.training.stage import train
from pipeline.training.trackers import base
from pipeline.training.trackers.base import TRACKERS, open_trackers


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def told(folder):
    """What `history.csv` says: run → name → values by epoch."""
    found = {}
    with (folder / "history.csv").open() as file:
        for row in csv.DictReader(file):
            run = f"{row['variant']}/fold{row['fold']}/seed{row['seed']}"
            for name in row.keys() - {"variant", "fold", "seed", "phase", "epoch"}:
                found.setdefault(run, {}).setdefault(name, []).append(float(row[name]))
    return found


@pytest.fixture
def corpus(fabricate, monkeypatch):
    made = fabricate(clips=30)
    monkeypatch.chdir(made.folder)
    return made


def run(corpus, out, track=(), **training):
    params = corpus.params(training={"epochs": 3, "seeds": 2, **training}, run={"track": list(track)})
    train(params, corpus.index(params), **corpus.files, out=out)
    return params


def test_nothing_is_written_unless_asked_and_the_runs_are_the_same_bytes(corpus, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (requirements-track.txt)")
    run(corpus, tmp_path / "plain")
    assert not (corpus.folder / "tracking").exists()
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "other"))  # trained anew, not taken from the cache
    run(corpus, tmp_path / "tracked", ["tensorboard"])
    assert files(tmp_path / "plain") == files(tmp_path / "tracked")
    assert (corpus.folder / "tracking" / "tensorboard").is_dir()


def test_it_is_no_part_of_an_identity(corpus, tmp_path):
    """A finished run is told to a tracker that is asked for afterwards, and is not trained again."""
    pytest.importorskip("dvclive", reason="dvclive is not installed (requirements-track.txt)")
    run(corpus, tmp_path / "first")
    kept = {path.name for path in (tmp_path / "cache" / "runs").iterdir()}
    run(corpus, tmp_path / "second", ["dvclive"])
    assert {path.name for path in (tmp_path / "cache" / "runs").iterdir()} == kept
    assert (corpus.folder / "tracking" / "dvclive" / "fused" / "fold0" / "seed1").is_dir()


def test_tensorboard_reads_what_the_history_says(corpus, tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (requirements-track.txt)")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):  # told again, it is there once
        run(corpus, tmp_path / "runs", ["tensorboard"])
    for name, figures in told(tmp_path / "runs").items():
        events = EventAccumulator(str(corpus.folder / "tracking" / "tensorboard" / name)).Reload()
        assert set(events.Tags()["scalars"]) == set(figures)
        for figure, values in figures.items():
            found = events.Scalars(figure)
            assert [one.step for one in found] == [1, 2, 3]
            assert [one.value for one in found] == pytest.approx(values, rel=1e-5)


def test_dvclive_writes_what_the_history_says(corpus, tmp_path):
    pytest.importorskip("dvclive", reason="dvclive is not installed (requirements-track.txt)")
    run(corpus, tmp_path / "runs", ["dvclive"])
    for name, figures in told(tmp_path / "runs").items():
        for figure, values in figures.items():
            path = corpus.folder / "tracking" / "dvclive" / name / "plots" / "metrics" / f"{figure}.tsv"
            rows = list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))
            assert [int(row["step"]) for row in rows] == [1, 2, 3]
            assert [float(row[figure]) for row in rows] == pytest.approx(values)


class Log:
    """Stands where a client of a service stands: what it is told is kept."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            return SimpleNamespace(info=SimpleNamespace(run_id="r"), experiment_id="e", log=self.log, finish=self.finish)

        return call


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_clients_of_services_are_told_every_figure_and_stay_offline(tmp_path, monkeypatch, name):
    """The packages are large and want other versions of ours; a stand-in takes their place."""
    log, module = Log(), ModuleType(name)
    module.MlflowClient = lambda address: log.calls.append(("open", (address,), {})) or log
    module.init = lambda **given: log.init(**given)
    monkeypatch.setitem(sys.modules, name, module)
    for variable in ("MLFLOW_TRACKING_URI", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    TRACKERS.find(name)(tmp_path / name).tell("fused/fold0/seed0", {"lr": 0.1}, [{"phase": "a", "epoch": 1, "val_uar": 0.5}])
    said = {call: (args, kwargs) for call, args, kwargs in log.calls}
    if name == "mlflow":
        assert said["open"][0][0].startswith("sqlite:///") and str(tmp_path) in said["open"][0][0]
        assert said["log_metric"] == (("r", "val_uar", 0.5), {"step": 1}) and said["log_param"][0] == ("r", "lr", "0.1")
        assert "set_terminated" in said
    else:
        assert said["init"][1]["mode"] == "offline" and said["init"][1]["name"] == "fused/fold0/seed0"
        assert said["log"] == (({"val_uar": 0.5},), {"step": 1}) and "finish" in said


def test_what_cannot_be_told_is_one_line_before_anything_is_trained(corpus, tmp_path, monkeypatch):
    with pytest.raises(ParamsError, match="Unknown tracker in run.track 'tensorbord'. Did you mean 'tensorboard'"):
        run(corpus, tmp_path / "runs", ["tensorbord"])
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="run.track: wandb needs wandb, which is not installed; pip install wandb"):
        open_trackers(["wandb"], tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_tracker_of_ones_own_is_a_file(tmp_path, monkeypatch):
    (tmp_path / "parts/trackers").mkdir(parents=True)
    (tmp_path / "parts/trackers/lines.py").write_text(
        "from pipeline.training.trackers.base import Tracker\n\n"
        "class Lines(Tracker):\n"
        "    package = 'json'\n\n"
        "    def write(self, place, run, settings, steps):\n"
        "        (place / 'lines.txt').write_text(f'{run} {settings} {steps}')\n"
    )
    monkeypatch.setenv("AFFECTORY_PARTS", str(tmp_path / "parts"))
    (tracker,) = open_trackers(["lines"], tmp_path)
    tracker.tell("audio/fold1/seed2", {"lr": 0.1}, [{"epoch": 1, "val_uar": 0.5}])
    found = (tmp_path / "lines/audio/fold1/seed2/lines.txt").read_text()
    assert found == "audio/fold1/seed2 {'lr': 0.1} [(1, {'val_uar': 0.5})]"
