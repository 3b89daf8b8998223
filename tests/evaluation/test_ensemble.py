"""The ensemble is its members' mean, everywhere: in the tables, the figures, the page, and on one clip's features."""

import json
import shutil

import numpy as np
import polars as pl
import pytest

from pipeline.errors import ParamsError, StoreError
from pipeline.evaluation.ensemble import add_ensemble
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.report import render_page
from pipeline.evaluation.sentences import judge_ensemble, tell_ensemble
from pipeline.runs.ensemble import find_members
from pipeline.runs.folders import RunName
from pipeline.runs.predict import Estimate, average
from pipeline.serving.predictor import Predictor
from pipeline.storage.feature_store import Status, Store
from pipeline.training.stage import train
from pipeline.training.variants import list_variants

CLASSES = ("anger", "joy", "neutral", "sadness")
#: What only a network has.
ALONE = {"ece_scaled", "temporal_consistency", "temporal_consistency_sd"}
LINEAR = {"linear": {"penalty": 0.1}}


def run(corpus, params, out="reports", runs="models/runs"):
    train(params, corpus.index(params), **corpus.files, out=corpus.path(runs))
    return judge(corpus, params, out, runs)


def judge(corpus, params, out="reports", runs="models/runs"):
    return evaluate(
        params,
        corpus.path("data/index.h5"),
        truth=corpus.path("data/truth.parquet"),
        truth_annotations=corpus.path("data/truth_annotations.parquet"),
        manifest=corpus.files["manifest"],
        folds=corpus.files["folds"],
        runs=corpus.path(runs),
        out=corpus.path(out),
    )


def by_hand(table, linear):
    """(N, …) of fold and id in order, from the members' rows alone."""
    columns = [*(f"p_{c}" for c in CLASSES), "valence", "arousal"]
    fused = table.filter(pl.col("variant") == "fused").sort("fold", "id", "seed")
    keys = fused.select("fold", "id").unique(maintain_order=True)
    mean = fused.select(columns).to_numpy().astype(float).reshape(len(keys), -1, 6).mean(1)
    if linear:
        mean = (mean + table.filter(pl.col("variant") == "linear").sort("fold", "id").select(columns).to_numpy()) / 2
    return keys, mean


@pytest.mark.parametrize("linear", [True, False])
def test_it_is_the_mean_of_its_members_and_is_shown_beside_them(fabricate, linear):
    corpus = fabricate(clips=60, folds=2, noise=1.5)
    shown = {"seeds": 3, "epochs": 2, "rotate": True, **LINEAR}
    task = {"level": "frame"}
    params = corpus.params(training={**shown, "ensemble": {"linear": linear}}, task=task)
    result = run(corpus, params)
    table = pl.read_parquet(corpus.path("reports/predictions.parquet"))
    mine = table.filter(pl.col("variant") == "ensemble").sort("fold", "id")
    keys, mean = by_hand(table, linear)
    assert mine.select("fold", "id").equals(keys) and mine["seed"].unique().to_list() == [0]
    found = mine.select(*(f"p_{c}" for c in CLASSES), "valence", "arousal").to_numpy()
    np.testing.assert_allclose(found, mean, atol=1e-6)
    assert mine["predicted"].to_list() == [CLASSES[k] for k in mean[:, :4].argmax(1)]
    # The figures are those of these rows, strictly recomputed.
    right = (mine["predicted"] == mine["truth"]).to_numpy()
    recalls = [right[(mine["truth"] == name).to_numpy()].mean() for name in mine["truth"].unique()]
    assert result["ensemble"]["uar"]["mean"] == pytest.approx(np.mean(recalls), abs=1e-6)
    assert set(result["ensemble"]) == set(result["fused"]) - ALONE, (
        "frames are judged as well; a mean has no temperature and no embedding"
    )
    read = {name: json.loads(corpus.path(f"reports/{name}.json").read_text()) for name in ("comparisons", "summary", "per_class")}
    assert read["summary"]["uar_ensemble"] == result["ensemble"]["uar"]["mean"]
    assert read["summary"]["uar_linear"] == result["linear"]["uar"]["mean"] and "uar_best_alone" not in read["summary"]
    assert set(read["per_class"]["ensemble"]) == set(CLASSES)
    apart = {name: result[name]["uar"]["mean"] for name in result}
    assert read["comparisons"]["ensemble"]["difference"] == pytest.approx(apart["fused"] - apart["ensemble"], abs=2e-6)
    over = read["comparisons"]["ensemble"]["over_linear"]
    assert over["difference"] == pytest.approx(apart["ensemble"] - apart["linear"], abs=2e-6)
    assert over["difference_low"] <= over["difference"] <= over["difference_high"] and 0 < over["p"] <= 1
    speakers = pl.read_parquet(corpus.path("reports/per_speaker.parquet"))
    assert speakers.group_by("variant").len().sort("variant")["len"].to_list() == [6, 6, 6]
    assert "ensemble" in pl.read_csv(corpus.path("reports/plots/variants.csv"))["variant"].to_list()
    missing = pl.read_csv(corpus.path("reports/plots/missing.csv"))
    assert missing["variant"].to_list() == ["fused"] * 7 + ["ensemble"] * 7
    assert missing["mean"][7] == pytest.approx(result["ensemble"]["uar"]["mean"])
    page = render_page(params, corpus.path("data"), corpus.path("reports"), corpus.path("features"))
    who = "3 networks that select on one validation part after the other"
    assert (f"The ensemble is half the mean of {who}, half the linear model" if linear else f"is the mean of {who}") in page
    assert "Ensemble less linear model, UAR: " in page and "of the ensemble with only these streams kept" in page
    if linear:
        # What the others reach and how sure it is do not change with it.
        alone = run(corpus, corpus.params(training=shown, task=task), out="without")
        assert alone == {variant: values for variant, values in result.items() if variant != "ensemble"}
        assert not corpus.path("models/runs/ensemble.json").exists()
        without = render_page(params, corpus.path("data"), corpus.path("without"), corpus.path("features"))
        assert "nsemble" not in without.partition('id="parameters"')[0]


def test_a_student_is_a_variant_beside_the_others_and_changes_none(fabricate):
    corpus = fabricate(clips=40)
    shown = {"seeds": 2, "epochs": 1, **LINEAR, "ensemble": {"linear": True}}
    plain = run(corpus, corpus.params(training=shown), out="without")
    params = corpus.params(training=shown | {"student": {}})
    result = run(corpus, params)
    assert {name: values for name, values in result.items() if name != "student"} == plain
    table = pl.read_parquet(corpus.path("reports/predictions.parquet")).filter(pl.col("variant") == "student")
    right = (table["predicted"] == table["truth"]).to_numpy()
    recalls = [right[(table["truth"] == name).to_numpy()].mean() for name in table["truth"].unique()]
    assert result["student"]["uar"]["mean"] == pytest.approx(np.mean(recalls), abs=1e-6) and len(table) == 8
    read = {name: json.loads(corpus.path(f"reports/{name}.json").read_text()) for name in ("comparisons", "summary")}
    assert read["summary"]["uar_student"] == result["student"]["uar"]["mean"] and "uar_best_alone" not in read["summary"]
    apart = result["fused"]["uar"]["mean"] - result["student"]["uar"]["mean"]
    assert read["comparisons"]["student"]["difference"] == pytest.approx(apart, abs=2e-6)
    page = render_page(params, corpus.path("data"), corpus.path("reports"), corpus.path("features"))
    assert "student" in page.partition('id="parameters"')[0] and "best alone" not in page
    predictor = Predictor.load(params, corpus.path("models/runs"), variant="student")
    stores = {name: Store(corpus.path(f"features/{name}.h5")) for name in predictor.encoders}
    for row in table.to_dicts():
        entries = {name: store[row["id"]] for name, store in stores.items()}
        said = predictor.estimate({name: (e.values, e.times) for name, e in entries.items() if e.status == Status.OK})
        np.testing.assert_allclose(said.probabilities, [row[f"p_{c}"] for c in CLASSES], atol=1e-5)


@pytest.mark.parametrize("linear", [True, False])
def test_prediction_of_one_clip_is_what_was_evaluated(fabricate, linear):
    corpus = fabricate(clips=60)
    params = corpus.params(training={"seeds": 2, "epochs": 2, **LINEAR, "ensemble": {"linear": linear}}, task={"level": "frame"})
    run(corpus, params)
    predictor = Predictor.load(params, corpus.path("models/runs"), variant="ensemble")
    assert predictor.weights == pytest.approx([0.25, 0.25, 0.5] if linear else [0.5, 0.5]) and len(predictor.runs) == 2 + linear
    assert sorted(predictor.encoders) == ["audio", "text", "video"]
    stores = {name: Store(corpus.path(f"features/{name}.h5")) for name in predictor.encoders}
    rows = pl.read_parquet(corpus.path("reports/predictions.parquet")).filter(pl.col("variant") == "ensemble")
    assert len(rows) == 12
    for row in rows.to_dicts():
        entries = {name: store[row["id"]] for name, store in stores.items()}
        features = {name: (e.values, e.times) for name, e in entries.items() if e.status == Status.OK}
        said = predictor.estimate(features)
        np.testing.assert_allclose(said.probabilities, [row[f"p_{c}"] for c in CLASSES], atol=1e-5)
        np.testing.assert_allclose(said.dimensions, [row["valence"], row["arousal"]], atol=1e-5)
        assert (said.trace is not None) == ("video" in features), "the networks' own, for the linear model has none"
        assert said.times is None or np.array_equal(said.times, features["video"][1])


def test_what_some_members_lack_is_the_mean_of_the_others():
    def estimate(chance, trace):
        return Estimate(("a", "b"), (), np.array([chance, 1 - chance]), None, trace, None)

    said = average([estimate(0.2, np.ones((3, 1))), estimate(0.4, np.zeros((3, 1))), estimate(0.9, None)], [0.1, 0.3, 0.6])
    np.testing.assert_allclose(said.probabilities, [0.68, 0.32])
    np.testing.assert_allclose(said.trace, np.full((3, 1), 0.25))
    assert said.dimensions is None
    weights = {RunName("fused", 0, 0): 0.1, RunName("fused", 0, 1): 0.3, RunName("linear", 0, 0): 0.6}
    table = pl.DataFrame(
        {"variant": ["fused"] * 3 + ["audio"], "fold": [0] * 4, "seed": [0, 1, 1, 0], "id": ["a", "a", "b", "a"]}
        | {"time": [0.5] * 4, "truth_valence": [0.1, 0.1, 0.2, 0.1], "pred_valence": [1.0, 0.0, 0.5, 9.0]}
    )
    mine = add_ensemble(table, weights, ())[4:]
    assert mine.select("variant", "id", "seed").rows() == [("ensemble", "a", 0), ("ensemble", "b", 0)]
    assert mine["pred_valence"].to_list() == pytest.approx([0.25, 0.5]) and mine["truth_valence"].to_list() == [0.1, 0.2]


def test_mistakes_are_one_line(fabricate):
    corpus = fabricate(clips=60)
    with pytest.raises(ParamsError, match=r"ensemble\.linear is true, but linear is null") as caught:
        corpus.params(training={"ensemble": {"linear": True}})
    assert "\n" not in str(caught.value)
    with pytest.raises(ParamsError, match="liner"):
        corpus.params(training={**LINEAR, "ensemble": {"liner": True}})
    with pytest.raises(ParamsError, match="a stream is named 'ensemble', as the mean of several models is"):
        list_variants(corpus.params(streams={"ensemble": corpus.params().streams["audio"].model_dump()}))
    params = corpus.params(training={"epochs": 1})
    train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))
    with pytest.raises(StoreError, match=r"without an ensemble; set training\.ensemble"):
        Predictor.load(params, corpus.path("models/runs"), variant="ensemble")
    with pytest.raises(StoreError, match="holds no trained model"):
        find_members(corpus.path("nothing"), "ensemble")
    params = corpus.params(training={"epochs": 1, **LINEAR, "ensemble": {"linear": True}})
    train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))
    shutil.rmtree(corpus.path("models/runs/linear"))
    with pytest.raises(StoreError, match="Unknown trained variant 'linear'"):
        judge(corpus, params)


def test_what_the_page_says():
    assert tell_ensemble({}, True) == tell_ensemble({"ensemble": None}, True) == ""
    one = tell_ensemble({"ensemble": {"networks": 1, "linear": True}}, True)
    assert one.startswith("The ensemble is half the mean of one network, half the linear model:")
    assert "mean of 5 networks:" in tell_ensemble({"ensemble": {"networks": 5, "linear": False}}, False)

    def say(mean, low, high, p):
        over = {"difference": mean, "difference_low": low, "difference_high": high, "p": p}
        return judge_ensemble({"ensemble": {"metric": "uar", "difference": 9.0, "p": 0.9, "over_linear": over}})

    assert say(0.017, 0.003, 0.033, 0.01) == (
        "Ensemble less linear model, UAR: +0.017 (95 % CI +0.003 to +0.033, p 0.010): the ensemble is better."
    )
    assert say(-0.017, -0.033, -0.003, 0.0001).endswith("CI −0.033 to −0.003, p < 0.001): the linear model is better.")
    assert say(0.017, -0.003, 0.033, 0.2).endswith("p 0.200): not shown.")
    assert say(0.017, None, None, None) == (
        "Ensemble less linear model, UAR: +0.017; with so few groups that cannot be told from chance."
    )
    assert judge_ensemble({"linear": {}}) == judge_ensemble({"ensemble": {"metric": "uar"}}) == judge_ensemble(None) == ""
