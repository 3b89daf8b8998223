"""Stage `evaluate` on trained runs of fabricated features."""

import json

import numpy as np
import polars as pl
import pytest

from pipeline import metrics
from pipeline.errors import StoreError
from pipeline.evaluation.evaluate import evaluate
from pipeline.runs.predict import predict_clip
from pipeline.runs.run import load_run
from pipeline.storage import tables
from pipeline.storage.feature_store import Store
from pipeline.training.stage import train


def run(corpus, params, out="reports"):
    index = corpus.index(params)
    train(params, index, **corpus.files, out=corpus.path("models/runs"))
    return evaluate(
        params,
        index,
        truth=corpus.path("data/truth.parquet"),
        manifest=corpus.files["manifest"],
        truth_annotations=corpus.path("data/truth_annotations.parquet"),
        folds=corpus.files["folds"],
        runs=corpus.path("models/runs"),
        out=corpus.path(out),
    )


def test_everything_a_report_needs(fabricate):
    corpus = fabricate(clips=50)
    params = corpus.params(
        training={"seeds": 2, "epochs": 8, "unimodal": True}, task={"level": "frame"}, fusion={"name": "adaptive"}
    )
    result = run(corpus, params)
    assert set(result) == {"fused", "audio", "text", "video"}
    assert json.loads(corpus.path("reports/metrics.json").read_text()) == result
    glance = json.loads(corpus.path("reports/summary.json").read_text())
    assert glance["uar_best_alone"] == max(result[v]["uar"]["mean"] for v in ("audio", "text", "video"))
    assert {"uar", "uar_high", "macro_f1", "ccc", "arousal_ccc"} < set(glance)
    assert glance["uar_low"] == result["fused"]["uar"]["low"]
    assert result["fused"]["uar"]["low"] <= result["fused"]["uar"]["mean"] <= result["fused"]["uar"]["high"]
    table = pl.read_parquet(corpus.path("reports/predictions.parquet"))
    test = set(corpus.roles.filter(pl.col("role") == "test")["id"])
    assert set(table["id"]) == test and table.height == 4 * 2 * len(test)
    seed0 = table.filter((pl.col("variant") == "fused") & (pl.col("seed") == 0))
    np.testing.assert_allclose(seed0.select(pl.sum_horizontal(pl.selectors.starts_with("p_"))).to_numpy(), 1, atol=1e-5)
    accuracy = [
        metrics.accuracy(
            metrics.confusion(
                *(
                    part[c].replace_strict({n: i for i, n in enumerate(("anger", "joy", "neutral", "sadness"))})
                    for c in ("truth", "predicted")
                ),
                4,
            )
        )
        for _, part in table.filter(pl.col("variant") == "fused").group_by("seed")
    ]
    assert result["fused"]["accuracy"]["mean"] == pytest.approx(np.mean(accuracy), abs=1e-6)
    traces = pl.read_parquet(corpus.path("reports/traces.parquet"))
    assert set(traces["id"]) == test and traces.height == 8 * len(test)
    assert traces.columns == ["id", "time", "truth_valence", "pred_valence", "truth_arousal", "pred_arousal"]
    assert traces["pred_valence"].is_not_null().all()
    assert "frame_valence_ccc" in result["fused"] and "frame_valence_ccc_per_clip" in result["fused"]
    confusion = pl.read_csv(corpus.path("reports/plots/confusion.csv"))
    assert confusion.columns == ["actual", "predicted"] and confusion.height == 2 * len(test)
    missing = pl.read_csv(corpus.path("reports/plots/missing.csv"))
    assert missing["kept"].to_list()[0] == "audio+text+video" and missing.height == 7
    assert missing["mean"][0] == pytest.approx(result["fused"]["uar"]["mean"])
    comparisons = json.loads(corpus.path("reports/comparisons.json").read_text())
    assert set(comparisons) == {"audio", "text", "video"} and 0 <= comparisons["audio"]["p"] <= 1
    assert set(json.loads(corpus.path("reports/per_class.json").read_text())["fused"]) == {"anger", "joy", "neutral", "sadness"}
    speakers = pl.read_parquet(corpus.path("reports/per_speaker.parquet"))
    assert speakers.filter(pl.col("variant") == "fused")["clips"].sum() == len(test)
    for name in ("history", "variants", "calibration"):
        assert pl.read_csv(corpus.path(f"reports/plots/{name}.csv")).height


def test_folds_are_pooled_and_every_clip_is_tested_once(fabricate):
    corpus = fabricate(folds=5, clips=40)
    result = run(corpus, corpus.params(training={"epochs": 2}, temporal={"layers": 0}))
    table = pl.read_parquet(corpus.path("reports/predictions.parquet"))
    assert sorted(table["id"]) == corpus.ids
    assert table["truth"].is_not_null().all()
    # One seed: the interval is over speakers.
    assert result["fused"]["accuracy"]["low"] is not None


def test_dimensions_alone(fabricate):
    corpus = fabricate(clips=40)
    params = corpus.params(task={"emotion": False}, training={"select": "ccc", "epochs": 2, "unimodal": True, "seeds": 2})
    result = run(corpus, params)
    assert set(result["fused"]) >= {"ccc", "valence_ccc", "arousal_rmse"} and "uar" not in result["fused"]
    assert json.loads(corpus.path("reports/comparisons.json").read_text())["audio"]["metric"] == "ccc"


def test_a_run_predicts_raw_features_as_the_stage_does(fabricate):
    corpus = fabricate(clips=40)
    params = corpus.params(task={"level": "frame"}, training={"epochs": 2})
    run(corpus, params)
    model = load_run(corpus.path("models/runs/fused/fold0/seed0"))
    table = pl.read_parquet(corpus.path("reports/predictions.parquet"))
    stores = {name: Store(corpus.path(f"features/{name}.h5")) for name in model.streams}
    for row in table.iter_rows(named=True):
        clip = {name: (store[row["id"]].values, store[row["id"]].times) for name, store in stores.items()}
        prediction = predict_clip(model, clip)
        np.testing.assert_allclose(prediction.probabilities, [row[f"p_{c}"] for c in prediction.classes], atol=1e-5)
        np.testing.assert_allclose(prediction.dimensions, [row["valence"], row["arousal"]], atol=1e-5)
        assert prediction.emotion == row["predicted"]
        assert (prediction.trace is None) == (len(clip["video"][0]) == 0)
    nothing = predict_clip(model, {})
    assert np.isfinite(nothing.probabilities).all() and nothing.trace is None
    with pytest.raises(StoreError, match="Unknown stream 'adio'"):
        predict_clip(model, {"adio": clip["audio"]})
    with pytest.raises(StoreError, match="trained on"):
        predict_clip(model, {"audio": (np.zeros((3, 7)), np.zeros((3, 2)))})


def test_mistakes_are_one_line(fabricate, tmp_path):
    corpus = fabricate(clips=30)
    params = corpus.params(training={"epochs": 1})
    with pytest.raises(StoreError, match="no trained model"):
        evaluate(params, corpus.index(), runs=tmp_path)
    truth = tables.read(corpus.path("data/truth.parquet"))
    tables.write(truth.with_columns(pl.lit("other/").add(pl.col("id")).alias("id")), corpus.path("data/truth.parquet"))
    corpus.path("data/truth_annotations.parquet").unlink()
    with pytest.raises(StoreError, match="no label of any test clip"):
        run(corpus, params)
