"""What changes on the way, in real runs: counts, exact resume, identity."""

import json

import polars as pl
import pytest
import torch

from pipeline.errors import ParamsError, StoreError
from pipeline.storage import tables
from pipeline.training import loop
from pipeline.training.course import Course
from pipeline.training.curricula.base import CURRICULA
from pipeline.training.curricula.pacing import share_seen
from pipeline.training.curricula.roll import call_roll
from pipeline.training.data.dataset import Dataset
from pipeline.training.jobs import Job, identify
from pipeline.training.schedules import SCHEDULES
from pipeline.training.variants import list_variants, specify_model

ADVERSARY = {
    "loss": {"emotion": {"name": "cross_entropy"}, "speaker": {"name": "cross_entropy", "weight": 0.1}},
    "heads": {"speaker": {"name": "adversary", "options": {"schedule": "progressive"}}},
}


def load(corpus, **groups):
    """One small stream: what is tested does not depend on the model."""
    params = corpus.params(temporal={"width": 8, "layers": 0}, **groups)
    params = params.model_copy(update={"streams": {"audio": params.streams["audio"]}})
    data = Dataset.load(corpus.index(params), params=params, fold=0, **corpus.files)
    return specify_model(params, list_variants(params)[0], data), data, params


def same(first, second):
    return all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


@pytest.fixture
def batches(monkeypatch):
    """Per epoch, the places trained on, batch by batch."""
    seen, real = [], Course.sample

    def sample(self, order, weight):
        seen.append([])
        for places in real(self, order, weight):
            seen[-1].append(places.tolist())
            yield places

    monkeypatch.setattr(Course, "sample", sample)
    return seen


def test_a_run_sees_as_many_clips_as_the_pace_says(fabricate, batches):
    curriculum = {"name": "random", "options": {"epochs": 4, "guarantee": 0}}
    spec, data, params = load(fabricate(clips=120), training={"epochs": 5, "batch_size": 16, "curriculum": curriculum})
    loop.fit(spec, data, params, 0)
    n = int((data.labelled() & data.present(spec.streams))[data.rows("train")].sum())
    wanted = [round(share_seen("sqrt", epoch, 4) * n) for epoch in range(5)]
    assert [sum(map(len, epoch)) for epoch in batches] == wanted and wanted[3:] == [n] * 2
    # Full batches of what is seen, the last apart; every clip of an epoch once.
    assert all(
        {len(one) for one in epoch[:-1]} == {16} and len({p for one in epoch for p in one}) == sum(map(len, epoch))
        for epoch in batches
    )


def test_difficulty_is_read_from_the_manifest_whatever_the_task_predicts(fabricate, batches):
    """Also a dimension that is not learnt; and a clip whose emotion is a test clip's secret is in no order."""
    corpus = fabricate(clips=60)
    table = tables.read(corpus.files["manifest"])
    dominance = [0.0 if i % 3 == 0 else 0.9 for i in range(60)]
    tables.write(
        table.with_columns(dominance=pl.Series(dominance), valence=pl.lit(0.0), arousal=pl.lit(-0.25)), corpus.files["manifest"]
    )
    options = {"epochs": 3, "guarantee": 0, "pace": {"name": "step", "start": 0.3}, "dimensions": ["dominance"]}
    prototypes = {name: {"dominance": 3.0} for name in ("anger", "joy", "neutral", "sadness")}
    curriculum = {"name": "difficulty", "options": {**options, "prototypes": prototypes}}
    spec, data, params = load(corpus, task={"dimensions": []}, training={"epochs": 1, "batch_size": 8, "curriculum": curriculum})
    loop.fit(spec, data, params, 0)
    train = data.rows("train")
    seen = {int(train[place]) % 3 for batch in batches[0] for place in batch}
    assert (
        seen == {0}
        and len(data.table) == len(data.ids)
        and data.table.filter(pl.col("role") == "test")["emotion"].is_null().all()
    )


def test_frame_truth_stands_in_for_dimensions_the_manifest_lacks(fabricate):
    corpus = fabricate(clips=40)
    table = tables.read(corpus.files["manifest"])
    tables.write(table.with_columns(valence=pl.lit(None, pl.Float64)), corpus.files["manifest"])
    _, data, _ = load(corpus)
    roll = call_roll(data, data.rows("train"), 8, 0)
    assert roll.affect["valence"].isfinite().all() and roll.affect["dominance"].isnan().all()


COURSES = [
    ("difficulty", "cosine", {}),
    ("inverse", "step", {"every": 1}),
    ("class_balance", "exponential", {}),
    ("confidence", "plateau", {"patience": 1}),
    ("loss", "one_cycle", {}),
    ("random", "curriculum", {}),
    ("preset", "constant", {}),
    ("disagreement", "cosine", {}),
]


def test_every_curriculum_and_schedule_is_among_those_resumed():
    assert {name for name, *_ in COURSES} == set(CURRICULA)
    assert {name for _, name, _ in COURSES} == SCHEDULES.keys() - {"none"}


@pytest.mark.parametrize(("curriculum", "schedule", "options"), COURSES)
def test_a_killed_run_continues_to_the_same_bits(fabricate, tmp_path, curriculum, schedule, options):
    training = {
        "epochs": 4,
        "curriculum": {"name": curriculum, "options": {"epochs": 3, "scaling": {"by": "sample", "until": 4, "learned": True}}},
        "schedule": {"name": schedule, "options": options},
        "dropout": [{"part": "heads.emotion", "value": 0.6, "from_epoch": 1}, {"part": "encoders", "value": 0.3}],
        "optimiser": {"step": "sgd", "plateau": "adam"}.get(schedule, "adamw"),
    }
    if curriculum == "preset":
        training["curriculum"]["options"]["column"] = "valence"
    corpus = fabricate(clips=40)
    if curriculum == "disagreement":
        table = tables.read(corpus.files["manifest"])
        votes = [json.dumps({"votes": {"joy": 3, "anger": i % 3}}) for i in range(len(table))]
        tables.write(table.with_columns(labels=pl.Series(votes)), corpus.files["manifest"])
    spec, data, params = load(corpus, training=training, **ADVERSARY)
    whole, record = loop.fit(spec, data, params, 0)

    def kill(progress):
        if progress.epoch == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        loop.fit(spec, data, params, 0, state=tmp_path / "state.pt", every=0, on_epoch=kill)
    resumed, again = loop.fit(spec, data, params, 0, state=tmp_path / "state.pt", every=0)
    assert record.history == again.history and len(again.history) == 4 and same(whole, resumed)


def test_what_is_chosen_changes_what_is_learned_and_what_shows_all_changes_nothing(fabricate):
    corpus = fabricate(clips=40)

    def learn(**training):
        return loop.fit(*load(corpus, training={"epochs": 1, **training}), 0)[0]

    plain = learn()
    for training in (
        {"schedule": {"name": "constant"}},
        {"optimiser": "adam"},
        {"optimiser": "sgd"},
        {"dropout": [{"part": "encoders", "value": 0.6, "from_epoch": 0}]},
        {"curriculum": {"name": "random", "options": {"epochs": 2}}},
    ):
        assert not same(plain, learn(**training)), training
    assert same(plain, learn(curriculum={"name": "random", "options": {"pace": "none"}}))


def test_patience_may_begin_after_the_curriculum(fabricate):
    """No epoch is ever better than the first, whose rate alone is not nought."""
    corpus = fabricate(clips=40)
    curriculum = {"name": "random", "options": {"epochs": 5}}
    training = {"epochs": 12, "patience": 2, "lr": 1e-30, "weight_decay": 0.0, "curriculum": curriculum}
    done = {}
    for start in ("start", "curriculum"):
        _, progress = loop.fit(*load(corpus, training={**training, "patience_from": start}), 0)
        done[start] = progress.epoch
    assert done == {"start": 3, "curriculum": 7}


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"dropout": [{"part": "head", "value": 0.5, "from_epoch": 1}]}, "Unknown part in training.dropout 'head'"),
        (
            {"dropout": [{"part": "encoders.audio.project", "value": 0.5, "from_epoch": 1}]},
            "there is no dropout in encoders.audio.project",
        ),
        ({"dropout": [{"part": "fusion", "value": 0.5}]}, "waits for the end of a curriculum"),
        ({"schedule": {"name": "cosin"}}, "Unknown schedule 'cosin'"),
        ({"curriculum": {"name": "preset"}}, "Unknown column of numbers"),
    ],
)
def test_mistakes_are_one_line(fabricate, training, said):
    with pytest.raises(ParamsError) as caught:
        loop.fit(*load(fabricate(clips=30), training=training), 0)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_curriculum_of_the_emotion_needs_one(fabricate):
    groups = {"task": {"emotion": False}, "training": {"select": "ccc", "curriculum": {"name": "confidence"}}}
    with pytest.raises(ParamsError, match="confidence goes by the emotion"):
        loop.fit(*load(fabricate(clips=30), **groups), 0)
    groups["training"]["curriculum"] = {"name": "difficulty"}
    with pytest.raises(StoreError, match="difficulty needs an emotion"):
        loop.fit(*load(fabricate(clips=30), **groups), 0)


def test_what_a_curriculum_reads_is_in_the_identity(fabricate, tmp_path):
    corpus = fabricate(clips=30)
    order = tmp_path / "order.csv"
    order.write_text("id,curriculum_order\ndemo/clip002,1\n")
    curriculum = {"name": "preset", "options": {"path": str(order)}}

    def identity(chosen):
        spec, data, params = load(corpus, training={"curriculum": chosen})
        return identify(params, Job(list_variants(params)[0], 0, 0), data, spec, "cpu")

    plain, first = identity(None), identity(curriculum)
    order.write_text("id,curriculum_order\ndemo/clip002,2\n")
    assert plain["curriculum"] is None and identity(curriculum)["curriculum"] != first["curriculum"]
    table = tables.read(corpus.files["manifest"]).with_columns(dominance=pl.lit(0.5))
    before = identity({"name": "difficulty"})
    tables.write(table, corpus.files["manifest"])
    after = identity({"name": "difficulty"})
    assert before["curriculum"] != after["curriculum"] and identity(None) == plain
    order.unlink()
    with pytest.raises(ParamsError, match="order.csv is not there"):
        identity(curriculum)
