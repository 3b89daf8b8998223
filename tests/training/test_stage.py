"""Stage `train`: selection, resume, reuse, and that held-out truth decides nothing."""

import csv
import json
import shutil
import threading

import pytest
import torch

from pipeline.errors import ParamsError, StoreError
from pipeline.runs.run import load_run
from pipeline.storage import tables
from pipeline.storage.atomic import atomic_folder
from pipeline.storage.folder_lock import use_alone
from pipeline.training import every, jobs, learner, stage
from pipeline.training.data.dataset import Dataset
from pipeline.training.jobs import Job, run_job
from pipeline.training.loop import fit
from pipeline.training.sources import Sources
from pipeline.training.stage import train
from pipeline.training.variants import choose_time_base, list_variants, specify_model


class Killed(Exception):
    pass


def sources(corpus, params):
    return Sources(str(corpus.index(params)), *(str(p) for p in corpus.files.values()))


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def load(corpus, params):
    return Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)


@pytest.mark.parametrize("name", ["concat", "adaptive"])
@pytest.mark.parametrize("level", ["clip", "frame"])
def test_a_killed_run_continues_to_the_same_bits(fabricate, monkeypatch, tmp_path, name, level):
    corpus = fabricate(clips=40)
    params = corpus.params(fusion={"name": name}, task={"level": level}, training={"epochs": 5})
    job, made = Job(list_variants(params)[0], 0, 3), sources(corpus, params)
    whole, _ = run_job(params, made, job, every=0)
    expected = files(whole)
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "second"))

    def kill(progress):
        if progress.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        run_job(params, made, job, every=0, on_epoch=kill)
    assert len(list((tmp_path / "second").rglob("state.pt"))) == 1
    torch.rand(5)  # what happens in between is of no matter
    seen = []
    resumed, _ = run_job(params, made, job, every=0, on_epoch=lambda p: seen.append(p.epoch))
    assert seen == [3, 4, 5]
    assert files(resumed) == expected
    assert not list((tmp_path / "second").rglob("state.pt"))


def test_a_broken_state_starts_over(fabricate, tmp_path):
    corpus = fabricate(clips=30)
    params = corpus.params(training={"epochs": 2})
    data = load(corpus, params)
    model_spec = specify_model(params, list_variants(params)[0], data)
    state = tmp_path / "state.pt"
    state.write_bytes(b"torn")
    model, progress = fit(model_spec, data, params, 0, state=state)
    other, _ = fit(model_spec, data, params, 0)
    assert progress.epoch == 2
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


def test_runs_differ_by_seed_and_leave_the_callers_random_state(fabricate):
    corpus = fabricate(clips=30)
    params = corpus.params(training={"epochs": 1})
    data = load(corpus, params)
    before = torch.get_rng_state()
    first, second = (fit(specify_model(params, list_variants(params)[0], data), data, params, s)[0].state_dict() for s in (0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first["heads.emotion.net.1.weight"], second["heads.emotion.net.1.weight"])


def test_layout_reuse_and_history(fabricate):
    corpus = fabricate(clips=40)
    params = corpus.params(training={"epochs": 2, "seeds": 2, "unimodal": True})
    index, out = corpus.index(params), corpus.path("models/runs")
    calls = []
    folders = train(params, index, **corpus.files, out=out, on_run=lambda *a: calls.append(a))
    assert [f.relative_to(out).as_posix() for f in folders] == [
        f"{v}/fold0/seed{s}" for v in ("fused", "audio", "text", "video") for s in (0, 1)
    ]
    assert calls[-1][1:] == (8, 8)
    rows = list(csv.DictReader(out.joinpath("history.csv").read_text().splitlines()))
    assert list(rows[0]) == ["variant", "fold", "seed", "epoch", "phase", "train_loss", "val_loss", "val_uar"] and len(rows) == 16
    config = json.loads((folders[0] / "config.json").read_text())
    assert config["streams"]["audio"]["random"] is True and config["model"]["classes"] == ["anger", "joy", "neutral", "sadness"]
    assert load_run(folders[0]).streams == ("audio", "text", "video")
    before = files(out)
    gated = corpus.params(training={"epochs": 2, "seeds": 1, "unimodal": True}, fusion={"name": "gated"})
    train(gated, index, **corpus.files, out=out)
    assert sorted(p.parent.relative_to(out).as_posix() for p in out.rglob("config.json")) == [
        f"{v}/fold0/seed0" for v in ("audio", "fused", "text", "video")
    ]
    runs = len(list(corpus.folder.parent.joinpath("cache/runs").iterdir()))
    assert runs == 9  # the streams alone were not trained again
    train(params, index, **corpus.files, out=out)
    assert files(out) == before
    assert len(list(corpus.folder.parent.joinpath("cache/runs").iterdir())) == runs


def test_a_run_that_was_collected_before_it_was_copied_is_trained_again(fabricate, monkeypatch):
    corpus = fabricate(clips=30)
    params = corpus.params(training={"epochs": 1, "seeds": 2})
    index, out = corpus.index(params), corpus.path("models/runs")
    train(params, index, **corpus.files, out=out)
    before = files(out)

    def then_collect(*arguments):
        for place, outcome in run_jobs(*arguments):
            shutil.rmtree(outcome[0].parent)
            yield place, outcome

    run_jobs = every.run_jobs
    monkeypatch.setattr(every, "run_jobs", then_collect)
    monkeypatch.setattr(stage, "recall_runs", lambda _: None)
    train(params, index, **corpus.files, out=out)
    assert files(out) == before


def test_clones_at_once_ask_a_run_one_after_the_other_and_copy_what_is_whole(fabricate, monkeypatch):
    corpus = fabricate(clips=30)
    params = corpus.params(training={"epochs": 1, "seeds": 1})
    index, out = corpus.index(params), corpus.path("models/runs")
    train(params, index, **corpus.files, out=out)
    monkeypatch.setattr(stage, "recall_runs", lambda _: None)
    before, asked = files(out), []
    lock, begun = next(corpus.folder.parent.joinpath("cache/runs").iterdir()) / "answers.lock", threading.Event()
    with use_alone(lock):  # another clone asks it
        with atomic_folder(lock.parent / "run" / "answers") as half:
            monkeypatch.setattr(jobs, "use_alone", lambda path: (begun.set(), use_alone(path))[1])
            monkeypatch.setattr(jobs, "keep_answers", lambda *_: asked.append((half / "clips.parquet").exists()))
            other = threading.Thread(target=train, args=(params, index), kwargs=corpus.files | {"out": out})
            other.start()
            assert begun.wait(60) and not asked
            shutil.copytree(out / "fused/fold0/seed0/answers", half, dirs_exist_ok=True)
    other.join(60)
    assert len(asked) == 1 and files(out) == before
    (lock.parent / "run" / ".answers.elsewhere-1.x.tmp").mkdir()
    train(params, index, **corpus.files, out=out)
    assert files(out) == before and not list(out.rglob(".*"))


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes(fabricate, monkeypatch, tmp_path):
    corpus = fabricate(clips=30)
    groups = {"training": {"epochs": 1, "seeds": 5}, "temporal": {"layers": 0}}
    alone = corpus.params(**groups)
    index = corpus.index(alone)
    train(alone, index, **corpus.files, out=tmp_path / "alone")
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "second"))
    train(corpus.params(**groups, run={"workers": 2}), index, **corpus.files, out=tmp_path / "many")
    assert files(tmp_path / "many") == files(tmp_path / "alone")


def test_truth_of_held_out_clips_changes_no_bit(fabricate, monkeypatch, tmp_path):
    """k-fold: the manifest holds all labels; those of the fold's test clips must not matter."""
    corpus = fabricate(folds=5, clips=40)
    params = corpus.params(training={"epochs": 2}, task={"level": "frame"})
    job, made = Job(list_variants(params)[0], 1, 0), sources(corpus, params)
    first = files(run_job(params, made, job)[0])
    roles = dict(corpus.roles.filter(corpus.roles["fold"] == 1).select("id", "role").iter_rows())
    table = tables.read(corpus.files["manifest"]).to_dicts()
    for row in table:
        if roles[row["id"]] == "test":
            row |= {"emotion": "joy", "valence": -1.0, "arousal": None}
    tables.write(tables.frame(table), corpus.files["manifest"])
    marks = tables.read(corpus.files["annotations"]).to_dicts()
    marks = [{**m, "valence": 1.0} if roles[m["id"]] == "test" else m for m in marks]
    tables.write(tables.frame(marks, tables.ANNOTATIONS), corpus.files["annotations"], sort=("id", "time"))
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "second"))
    assert files(run_job(params, made, job)[0]) == first


def test_train_has_no_way_to_the_truth():
    assert not any("truth" in name for name in (*Sources.__dataclass_fields__, *stage.train.__kwdefaults__))


def test_best_epoch_is_kept_and_patience_ends_the_run(fabricate, monkeypatch):
    corpus = fabricate(clips=30)
    params = corpus.params(training={"epochs": 20, "patience": 3})
    data = load(corpus, params)
    scores = iter([0.1, 0.5, 0.4, 0.45, 0.3])
    monkeypatch.setattr(learner, "score", lambda *a: next(scores))
    states = []
    real = learner.Learner._validate

    def spy(self, loss):
        real(self, loss)
        states.append({k: v.clone() for k, v in self.model.state_dict().items()})

    monkeypatch.setattr(learner.Learner, "_validate", spy)
    model, progress = fit(specify_model(params, list_variants(params)[0], data), data, params, 0)
    assert (progress.best_epoch, progress.epoch) == (2, 5)
    assert all(torch.equal(v, states[1][k]) for k, v in model.state_dict().items())


def test_equal_scores_are_decided_by_the_loss(fabricate, monkeypatch):
    corpus = fabricate(clips=30)
    params = corpus.params(training={"epochs": 6})
    data = load(corpus, params)
    monkeypatch.setattr(learner, "score", lambda *a: 0.5)
    _, progress = fit(specify_model(params, list_variants(params)[0], data), data, params, 0)
    assert progress.best_epoch == min(progress.history, key=lambda row: row["val_loss"])["epoch"]


@pytest.mark.parametrize("select", ["uar", "macro_f1", "weighted_f1", "accuracy", "ccc", "loss"])
def test_every_selection_metric(fabricate, select):
    corpus = fabricate(clips=30)
    params = corpus.params(
        training={"epochs": 1, "select": select}, loss={"emotion": {"name": "focal", "options": {"class_weights": True}}}
    )
    data = load(corpus, params)
    _, progress = fit(specify_model(params, list_variants(params)[0], data), data, params, 0)
    assert f"val_{select}" in progress.history[0]


def test_learns_what_fusion_alone_can_know(fabricate):
    """Audio holds one bit of the class, video the other."""
    corpus = fabricate(clips=150, noise=0.3)
    params = corpus.params(training={"epochs": 30, "lr": 3e-3}, fusion={"name": "cross_attention"})
    data = load(corpus, params)
    _, progress = fit(specify_model(params, list_variants(params)[0], data), data, params, 0)
    assert progress.key[0] > 0.8


def test_no_validation_clip(fabricate):
    corpus = fabricate(clips=30)
    tables.write(corpus.roles.filter(corpus.roles["role"] != "val"), corpus.files["folds"], sort=("fold", "id"))
    params = corpus.params()
    with pytest.raises(StoreError, match="no labelled validation clip"):
        train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))


def test_selection_needs_its_head(fabricate):
    corpus = fabricate(clips=30)
    params = corpus.params(task={"emotion": False})
    with pytest.raises(ParamsError, match="training.select is 'uar'"):
        train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))


def test_time_base(fabricate):
    params = fabricate(clips=10).params(task={"level": "frame"})
    assert choose_time_base(params, ("audio", "text", "video")) == "video"
    assert choose_time_base(params, ("audio",)) == "audio"
    wrong = params.model_copy(update={"task": params.task.model_copy(update={"time_base": "vido"})})
    with pytest.raises(ParamsError, match="task.time_base 'vido'"):
        choose_time_base(wrong, ("audio",))


def test_what_no_clip_has_over_time_is_not_predicted_over_time(fabricate, caplog):
    corpus = fabricate(clips=20)
    given = tables.read(corpus.files["annotations"])
    params = corpus.params(task={"level": "frame"}, training={"epochs": 1})
    empty = (given.clear(), given.with_columns(valence=None, arousal=float("nan")))
    for table in empty:
        tables.write(table, corpus.files["annotations"], sort=("id", "time"))
        with pytest.raises(ParamsError, match="task.level is frame, but no clip to learn from has valence or arousal over time"):
            train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))
    tables.write(given.with_columns(valence=None), corpus.files["annotations"], sort=("id", "time"))
    train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))
    assert "no clip has valence over time" in caplog.text
