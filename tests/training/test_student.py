"""The student: one network that the ensemble of its fold teaches."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import ParamsError
from pipeline.models.losses.distil import name_answers
from pipeline.runs.answers import read_answers
from pipeline.runs.run import load_run
from pipeline.storage import tables
from pipeline.training.answers.clips import predict_test
from pipeline.training.data.dataset import Dataset
from pipeline.training.jobs import Job, Sources, is_finished, list_members, run_job
from pipeline.training.loop import fit
from pipeline.training.schedule import run_jobs
from pipeline.training.stage import train
from pipeline.training.student import average_answers, settle_student
from pipeline.training.variants import list_variants, specify_model

TRAINING = {"epochs": 2, "seeds": 2, "unimodal": False, "linear": {}, "ensemble": {"linear": True}, "student": {}}


def sources(corpus, params):
    return Sources(str(corpus.index(params)), *(str(p) for p in corpus.files.values()))


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def student_of(params, fold=0):
    return Job(next(one for one in list_variants(params) if one.student), fold, 0)


def test_the_student_is_trained_after_its_members_and_stands_beside_them(fabricate):
    corpus = fabricate(clips=30, folds=2)
    params = corpus.params(training=TRAINING | {"epochs": 1})
    index, out = corpus.index(params), corpus.path("models/runs")
    folders = train(params, index, **corpus.files, out=out)
    names = ("fused/fold{}/seed0", "fused/fold{}/seed1", "linear/fold{}/seed0", "student/fold{}/seed0")
    assert [f.relative_to(out).as_posix() for f in folders] == [name.format(fold) for fold in (0, 1) for name in names]
    answers = [read_answers(folder).whole for folder in folders]
    assert answers[3].columns[:2] == answers[0].columns[:2] and answers[3]["id"].equals(answers[0]["id"])
    runs = corpus.folder.parent / "cache/runs"
    made = {path.name: json.loads((path / "identity.json").read_text()) for path in runs.iterdir()}
    for one in (one for one in made.values() if one["variant"] == "student"):
        # The runs of its own fold, and what each is worth in the ensemble.
        learned = {(made[key]["variant"], made[key]["seed"], made[key]["fold"]): worth for key, worth in one["members"].items()}
        assert learned == {("fused", 0, one["fold"]): 0.25, ("fused", 1, one["fold"]): 0.25, ("linear", 0, one["fold"]): 0.5}
    assert not any("members" in one for one in made.values() if one["variant"] != "student")
    train(params, index, **corpus.files, out=out)
    assert len(list(runs.iterdir())) == len(made)


def test_members_come_first_in_whatever_order_the_runs_are_asked_for(fabricate):
    corpus = fabricate(clips=30)
    params = corpus.params(training=TRAINING | {"epochs": 1})
    tasks = [(params, student_of(params)), *((params, one) for one, _ in list_members(params, student_of(params)))]
    seen = []
    for place, _ in run_jobs(tasks, sources(corpus, params), lambda *a: seen.append(a[2].name.path) or run_job(*a)):
        assert tasks[place][1].name.path == seen[-1]
    assert seen == ["fused/fold0/seed0", "fused/fold0/seed1", "linear/fold0/seed0", "student/fold0/seed0"]


def test_what_the_ensemble_says_is_the_weighted_mean_and_nobody_is_asked_of_held_out_clips(fabricate):
    corpus = fabricate(clips=40)
    params = corpus.params(training=TRAINING)
    made = sources(corpus, params)
    members = {run_job(params, made, one)[0]: worth for one, worth in list_members(params, student_of(params))}
    data = Dataset.load(made.index, params=params, fold=0, **corpus.files)
    told = average_answers(members, data)
    for name in ("emotion", "dimensions"):
        said = []
        for folder in members:
            found = predict_test(load_run(folder), data, torch.arange(len(data.ids)))[name]
            said.append((found.softmax(1) if name == "emotion" else found).numpy())
        wanted = np.average(said, 0, list(members.values()))
        rows = np.isin(data.roles, ("train", "val"))
        assert rows.any() and not rows.all()
        np.testing.assert_allclose(told[name_answers(name)].numpy()[rows], wanted[rows], atol=1e-6)
        assert np.isnan(told[name_answers(name)].numpy()[~rows]).all()


def test_the_student_learns_what_it_is_told_and_not_the_labels_alone(fabricate):
    """An ensemble that takes each class for the next one: with all the loss on it the student does, too."""
    corpus = fabricate(clips=40)
    params = corpus.params(
        training={
            "epochs": 40,
            "batch_size": 8,
            "lr": 5e-3,
            "select": "last",
            "ensemble": {"linear": False},
            "student": {"share": 1.0},
        }
    )
    own, job = settle_student(params), student_of(params)
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    likely = 0.1 + 0.6 * torch.eye(4)[(data.emotion + 1) % 4]
    told = {"ensemble.emotion": likely, "ensemble.dimensions": torch.full_like(data.dimensions, 0.5)}
    data = replace(data, told=told)
    model, _ = fit(specify_model(own, job.variant, data), data, own, 0)
    rows = data.rows("train")
    with torch.no_grad():
        found = model(data.batch(rows, model.spec.streams))
    assert float((found["emotion"].argmax(1) == (data.emotion[rows] + 1) % 4).float().mean()) > 0.9
    assert float((found["emotion"].softmax(1) - likely[rows]).abs().mean()) < 0.1
    assert float((found["dimensions"] - 0.5).abs().mean()) < 0.15


def test_labels_of_held_out_clips_change_no_bit_of_a_student(fabricate, monkeypatch, tmp_path):
    corpus = fabricate(folds=5, clips=40)
    params = corpus.params(training=TRAINING)
    made, job = sources(corpus, params), student_of(params, 1)
    first = files(run_job(params, made, job)[0])
    roles = dict(corpus.roles.filter(corpus.roles["fold"] == 1).select("id", "role").iter_rows())
    rows = tables.read(corpus.files["manifest"]).to_dicts()
    held = [row for row in rows if roles[row["id"]] == "test"]
    for row, other in zip(held, [row["emotion"] for row in held[1:] + held[:1]], strict=True):
        row |= {"emotion": other, "valence": -1.0}
    tables.write(tables.frame(rows), corpus.files["manifest"])
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "second"))
    assert files(run_job(params, made, job)[0]) == first


@pytest.mark.parametrize(
    "changed", [{"seeds": 3}, {"ensemble": {"linear": False}}, {"student": {"temperature": 3.0}}, {"lr": 2e-3}]
)
def test_another_member_makes_another_student(fabricate, changed):
    corpus = fabricate(clips=30)
    params = corpus.params(training=TRAINING | {"epochs": 1})
    other = corpus.params(training=TRAINING | {"epochs": 1} | changed)
    made = sources(corpus, params)
    run_job(params, made, student_of(params))
    assert is_finished(params, made, student_of(params)) and not is_finished(other, made, student_of(other))
    fused = Job(list_variants(other)[0], 0, 0)
    assert is_finished(other, made, fused) == ("lr" not in changed)  # what the student is asked to do is nothing to a member


def test_a_student_of_its_own_size(fabricate):
    corpus = fabricate(clips=30)
    params = corpus.params(training=TRAINING | {"epochs": 1, "student": {"width": 8, "layers": 0}})
    folder = run_job(params, sources(corpus, params), student_of(params))[0]
    spec = load_run(folder).model.spec
    assert (spec.width, spec.layers) == (8, 0) and params.temporal.width == 16


def test_terms_of_the_student(fabricate):
    corpus = fabricate(clips=30)
    loss = {
        "emotion": {"name": "cross_entropy", "weight": 2.0},
        "dice": {"name": "dice", "on": "emotion", "weight": 1.0},
        "projection": {"name": "supervised_contrastive", "weight": 0.5},
    }
    phases = [{"loss": {"projection": loss["projection"]}}, {}]
    own = settle_student(
        corpus.params(loss=loss, training=TRAINING | {"student": {"share": 0.25, "temperature": 4.0}, "phases": phases})
    )
    assert {name: (term.name, term.on, term.weight) for name, term in own.loss.items()} == {
        "emotion": ("cross_entropy", None, 1.5),
        "dice": ("dice", "emotion", 0.75),
        "projection": ("supervised_contrastive", None, 0.5),
        "ensemble_emotion": ("distil", "emotion", 0.75),
    }
    assert own.loss["ensemble_emotion"].options == {"temperature": 4.0}
    assert list(own.training.phases[0].loss) == ["projection"] and own.training.phases[1].loss is None


def test_a_student_needs_an_ensemble_and_distil_a_student(fabricate):
    corpus = fabricate(clips=30)
    with pytest.raises(ParamsError, match="student learns from the ensemble, which is null"):
        corpus.params(training={"student": {}})
    params = corpus.params(loss={"emotion": {"name": "distil"}}, training={"epochs": 1})
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    with pytest.raises(ParamsError, match=r"loss.emotion: distil is the loss of the variant student; set training.student"):
        fit(specify_model(params, list_variants(params)[0], data), data, params, 0)
    with pytest.raises(ParamsError, match=r"training.student.width 9 is not a multiple of temporal.heads 2"):
        corpus.params(training=TRAINING | {"student": {"width": 9}})
