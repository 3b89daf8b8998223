"""Rotation: every seed selects on its own validation part; what is held out stays so; identities say the part."""

import json

import numpy as np
import polars as pl
import pytest

from pipeline.errors import ParamsError, StoreError
from pipeline.runs.run import load_run
from pipeline.storage import tables
from pipeline.training.data.dataset import Dataset
from pipeline.training.jobs import Job, identify, load_job
from pipeline.training.sources import Sources
from pipeline.training.stage import train
from pipeline.training.variants import list_variants, specify_model


def sources(corpus, params):
    return Sources(str(corpus.index(params)), *(str(p) for p in corpus.files.values()))


def parts_of(corpus, fold):
    return {row["id"]: row["part"] for row in corpus.roles.filter(pl.col("fold") == fold).to_dicts()}


@pytest.mark.parametrize("folds", [1, 2])
def test_each_part_is_selected_on_once_in_as_many_seeds_and_the_rest_is_learned_from(fabricate, folds):
    corpus = fabricate(clips=60, folds=folds)
    params = corpus.params(training={"rotate": True, "seeds": 4}, task={"level": "frame"})
    index, fold = corpus.index(params), folds - 1
    drawn = Dataset.load(index, params=params, fold=fold, **corpus.files)
    part, seen = np.array([-1 if p is None else p for p in map(parts_of(corpus, fold).get, drawn.ids)]), []
    for seed in range(6):
        data = drawn.rotate(seed)
        assert data.part == seed % 4
        assert (data.roles[part == seed % 4] == "val").all() and (data.roles[(part >= 0) & (part != seed % 4)] == "train").all()
        assert (data.roles[part < 0] == "test").all() and (data.emotion[part < 0] == -1).all()
        assert np.isnan(data.dimensions[part < 0].numpy()).all()
        assert data.streams is drawn.streams and data.emotion is drawn.emotion
        learned = {f"s{int(clip[-3:]) % 6}" for clip, role in zip(data.ids, data.roles, strict=True) if role == "train"}
        assert set(data.domains["speaker"]) == learned
        seen += data.rows("val").tolist() if seed < 4 else []
    assert sorted(seen) == np.flatnonzero(part >= 0).tolist()
    first = drawn.rotate(0)
    assert (first.roles == drawn.roles).all() and first.domains == drawn.domains
    assert (first.domain["speaker"] == drawn.domain["speaker"]).all()


def test_speakers_that_only_validation_has_are_unknown_to_the_adversary(fabricate):
    corpus = fabricate(clips=60)
    by_speaker = corpus.roles.with_columns(part=(pl.col("id").str.tail(3).cast(pl.Int32) % 6) - 1)
    by_speaker = by_speaker.with_columns(
        role=pl.col("part").replace_strict({-1: "test", 0: "val"}, default="train"), part=pl.col("part").replace(-1, None)
    )
    tables.write(by_speaker, corpus.files["folds"], sort=("fold", "id"))
    data = Dataset.load(corpus.index(), params=corpus.params(), fold=0, **corpus.files)
    for turn in range(5):
        rotated = data.rotate(turn)
        assert rotated.domains["speaker"] == tuple(f"s{i}" for i in range(1, 6) if i != turn + 1)
        assert (rotated.domain["speaker"][rotated.rows("val")] == -1).all()
        assert (rotated.domain["speaker"][rotated.rows("train")] >= 0).all()


def test_an_identity_differs_by_part_and_by_nothing_else(fabricate):
    corpus = fabricate(clips=60)
    found = {}
    for rotate in (False, True):
        params = corpus.params(training={"rotate": rotate, "seeds": 5, "linear": {"penalty": 0.1}})
        made = sources(corpus, params)
        for variant in list_variants(params):
            for seed in range(5):
                job = Job(variant, 0, seed)
                data = load_job(params, made, job, "cpu")
                found[rotate, variant.name, seed] = identify(params, job, data, specify_model(params, variant, data), "cpu")
    assert [found[True, "fused", seed]["part"] for seed in range(5)] == [0, 1, 2, 3, 0]
    for seed in range(5):
        same = found[True, "fused", seed] == found[False, "fused", seed]
        assert same == (seed in (0, 4)), "a run that selects on the fold's own part is the one that was there"
        assert found[True, "linear", seed] == found[False, "linear", seed], "the linear model selects nothing"
    assert json.dumps(found[True, "fused", 1])  # is written as JSON


def test_a_run_says_its_part_and_learned_from_the_rest(fabricate):
    corpus = fabricate(clips=60)
    params = corpus.params(training={"rotate": True, "seeds": 2, "epochs": 2, "linear": {"penalty": 0.1}})
    out = corpus.path("models/runs")
    train(params, corpus.index(params), **corpus.files, out=out)
    configs = {p.parent.relative_to(out).as_posix(): json.loads(p.read_text()) for p in out.rglob("config.json")}
    assert {name: config["part"] for name, config in configs.items()} == {
        "fused/fold0/seed0": 0,
        "fused/fold0/seed1": 1,
        "linear/fold0/seed0": 0,
    }
    other = corpus.params(training={"rotate": False, "seeds": 2, "epochs": 2, "linear": {"penalty": 0.1}})
    again = corpus.path("again")
    train(other, corpus.index(other), **corpus.files, out=again)
    same = {
        name: (out / name / "model.safetensors").read_bytes() == (again / name / "model.safetensors").read_bytes()
        for name in configs
    }
    assert same == {"fused/fold0/seed0": True, "fused/fold0/seed1": False, "linear/fold0/seed0": True}
    # Raw features are normalised as in every other seed.
    one, two = (load_run(out / f"fused/fold0/seed{s}").normalisation["audio"] for s in (0, 1))
    np.testing.assert_array_equal(one, two)


def test_what_cannot_be_rotated_is_one_line_before_the_first_run(fabricate):
    corpus = fabricate(clips=40)
    params = corpus.params(training={"rotate": True, "seeds": 3})
    index = corpus.index(params)
    folds = corpus.roles.with_columns(part=pl.lit(None, pl.Int32))
    tables.write(folds, corpus.files["folds"], sort=("fold", "id"))
    with pytest.raises(ParamsError, match=r"training\.rotate: fold 0 has no validation parts") as caught:
        train(params, index, **corpus.files, out=corpus.path("models/runs"))
    assert "\n" not in str(caught.value)
    tables.write(folds.drop("part"), corpus.files["folds"], sort=("fold", "id"))
    with pytest.raises(StoreError, match="older version.*dvc repro manifest"):
        train(params, index, **corpus.files, out=corpus.path("models/runs"))
    assert not corpus.path("models/runs").exists()
    # Not asked for, old folds are as good as ever.
    plain = corpus.params(training={"epochs": 1})
    assert train(plain, index, **corpus.files, out=corpus.path("models/runs"))


def test_a_class_that_only_one_part_has_is_found_before_the_seed_that_lacks_it(fabricate):
    corpus = fabricate(clips=60)
    rare = corpus.roles.with_columns(pl.Series("emotion", [("anger", "joy", "joy")[int(c[-3:]) % 3] for c in corpus.roles["id"]]))
    manifest = tables.read(corpus.files["manifest"]).drop("emotion").join(rare.select("id", "emotion", "part"), on="id")
    # Sadness is in part 1 alone: seed 1 selects on it and never learns it.
    manifest = manifest.with_columns(emotion=pl.when(pl.col("part") == 1).then(pl.lit("sadness")).otherwise("emotion"))
    tables.write(manifest.drop("part"), corpus.files["manifest"])
    asked = {"task": {"classes": ["anger", "joy", "sadness"]}}
    for rotate in (False, True):
        params = corpus.params(training={"rotate": rotate, "seeds": 2, "epochs": 1}, **asked)
        index = corpus.index(params)
        if not rotate:
            train(params, index, **corpus.files, out=corpus.path("models/runs"))
            continue
        with pytest.raises(ParamsError, match=r"fold 0, seed 1, has no labelled training clip with features of 'sadness'"):
            train(params, index, **corpus.files, out=corpus.path("models/runs"))
