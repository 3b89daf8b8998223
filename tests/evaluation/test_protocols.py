"""From folds to the report: figures of every fold and corpus, and folds that lack something."""

from __future__ import annotations

import json
import logging

import numpy as np
import polars as pl
import pytest

from pipeline import metrics
from pipeline.data import split
from pipeline.errors import ParamsError, StoreError
from pipeline.evaluation import by_fold
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.report import write_report
from pipeline.features import index
from pipeline.params import Protocol
from pipeline.storage import feature_store, tables
from pipeline.training.stage import train

CLASSES = ("anger", "joy", "neutral", "sadness")
QUICK = {"epochs": 1, "seeds": 1, "unimodal": False, "linear": {}}


def arrange(corpus, protocol: Protocol | None = None, roles: dict[int, dict[str, str]] | None = None, /, **columns: list):
    """The corpus with other columns in its manifest, and the folds of a protocol (or roles by fold and clip)."""
    table = tables.read(corpus.path("data/manifest.parquet")).with_columns(
        pl.Series(name, values, dtype=tables.SCHEMA[name]) for name, values in columns.items()
    )
    if roles is None:
        folds = split.make_folds(table.with_columns(target=pl.lit(True)), protocol)
    else:
        rows = [{"id": clip, "fold": fold, "role": role} for fold, given in roles.items() for clip, role in given.items()]
        folds = pl.DataFrame(rows)
    tables.write(table, corpus.path("data/manifest.parquet"))
    tables.write(table.select("id", *tables.LABELS), corpus.path("data/truth.parquet"))
    tables.write(folds, corpus.path("data/folds.parquet"), sort=("fold", "id"))
    return folds


def run(corpus, params):
    """Index, train, evaluate and report; returns `metrics.json`, `per_fold.json` and the page."""
    index_file = corpus.index(params)
    train(params, index_file, **corpus.files, out=corpus.path("models/runs"))
    found = evaluate(
        params,
        index_file,
        truth=corpus.path("data/truth.parquet"),
        truth_annotations=corpus.path("data/truth_annotations.parquet"),
        manifest=corpus.files["manifest"],
        folds=corpus.files["folds"],
        runs=corpus.path("models/runs"),
        out=corpus.path("reports"),
    )
    page = write_report(params, corpus.path("data"), corpus.path("reports"), corpus.path("features"))
    return found, json.loads(corpus.path("reports/per_fold.json").read_text()), page.read_text(encoding="utf-8")


def simple(corpus, **groups):
    return corpus.params(task={"dimensions": []}, training=QUICK | groups.pop("training", {}), temporal={"layers": 0}, **groups)


def uar(table: pl.DataFrame) -> float:
    """Mean over the classes there are of the share that is right, the long way."""
    shares = [
        (part["predicted"] == name).mean() for (name,), part in table.drop_nulls("truth").group_by("truth", maintain_order=True)
    ]
    return float(np.mean(shares))


def test_cross_corpus_is_told_by_source_and_target(fabricate):
    corpus = fabricate(clips=48, folds=2)
    names = [("a", "b", "c")[i % 3] for i in range(48)]
    speakers = [f"{name}/{i // 3 % 4}" for i, name in enumerate(names)]
    folds = arrange(corpus, Protocol(kind="cross", val=0.25), corpus=names, speaker=speakers)
    for (name,), part in folds.join(pl.DataFrame({"id": corpus.ids, "corpus": names}), on="id").group_by("name"):
        source = name.partition(" → ")[0]
        assert set(part.filter(pl.col("role") != "test")["corpus"]) == {source}, "validation is nested in the source"
        assert set(part.filter(pl.col("role") == "test")["corpus"]) == {"a", "b", "c"} - {source}
    found, per_fold, page = run(corpus, simple(corpus, training={"seeds": 2}))
    table = pl.read_parquet(corpus.path("reports/predictions.parquet")).join(
        pl.DataFrame({"id": corpus.ids, "corpus": names}), on="id"
    )
    fused = table.filter(pl.col("variant") == "fused")
    assert fused.height == 2 * 2 * 48, "every clip is tested by each of the two other corpora"
    rows = per_fold["fused"]["folds"]
    assert [row["name"] for row in rows] == ["a → b, c", "b → a, c", "c → a, b"]
    for row in rows:
        mine = fused.filter(pl.col("fold") == row["fold"])
        assert row["clips"] == 32
        assert row["uar"] == pytest.approx(np.mean([uar(part) for _, part in mine.group_by("seed")]), abs=1e-6)
        for target, figures in row["corpora"].items():
            part = mine.filter(pl.col("corpus") == target)
            assert figures["uar"] == pytest.approx(np.mean([uar(one) for _, one in part.group_by("seed")]), abs=1e-6)
            assert f"{row['name'][0]} → {target}<" in page
    single = [row["uar"] for row in rows]
    both = found["fused"]
    assert both["uar_mean_of_folds"]["mean"] == pytest.approx(np.mean(single), abs=1e-6)
    assert both["uar_sd_of_folds"]["mean"] == pytest.approx(np.std(single, ddof=1), abs=1e-6)
    assert both["uar"]["mean"] == pytest.approx(np.mean([uar(part) for _, part in fused.group_by("seed")]), abs=1e-6)
    glance = json.loads(corpus.path("reports/summary.json").read_text())
    assert glance["uar_mean_of_folds"] == both["uar_mean_of_folds"]["mean"] and {"uar_on_a", "uar_on_b", "uar_on_c"} <= set(
        glance
    )
    pooled = fused.filter(pl.col("corpus") == "b")
    assert glance["uar_on_b"] == pytest.approx(np.mean([uar(part) for _, part in pooled.group_by("seed")]), abs=1e-6)
    assert "mean ± sd of folds" in page and "UAR, mean of folds" in page and "all of b<" in page
    speakers = pl.read_parquet(corpus.path("reports/per_speaker.parquet")).filter(pl.col("variant") == "fused")
    assert speakers["clips"].sum() == 48, "a clip tested twice is one clip of its speaker"


def test_pooled_and_mean_of_folds_are_two_numbers():
    """Folds of 1 and 9 clips, one right and all wrong: pooled accuracy 1/10, mean of folds 1/2, sd √½."""
    rows = [{"id": "x", "fold": 0, "truth": "a", "predicted": "a"}]
    rows += [{"id": f"y{i}", "fold": 1, "truth": "a", "predicted": "b"} for i in range(9)]
    table = pl.DataFrame(rows).with_columns(p_a=0.5, p_b=0.5, seed=0)
    folds = table.select("id", "fold", role=pl.lit("test"))
    clips = table.select("id", corpus=pl.lit("c"))
    (found,) = by_fold.score_folds({"fused": [table]}, folds, clips, ("a", "b"), ()).values()
    assert [row["clips"] for row in found["folds"]] == [1, 9] and [row["name"] for row in found["folds"]] == ["fold 0", "fold 1"]
    over = by_fold.over_folds(found)
    assert over["accuracy_mean_of_folds"]["mean"] == 0.5 and over["accuracy_sd_of_folds"]["mean"] == pytest.approx(0.707107)
    assert metrics.accuracy(metrics.confusion([0] * 10, [0] + [1] * 9, 2)) == 0.1
    # A class that is predicted and does not occur counts as 0 in the strict figure alone.
    assert found["folds"][0]["uar_strict"] == 1 and over["uar_strict_mean_of_folds"]["mean"] == 0.5
    assert "corpora" not in found, "one corpus is not told apart"


def test_one_split_has_no_figures_of_folds(fabricate):
    corpus = fabricate(clips=40)
    found, per_fold, page = run(corpus, simple(corpus))
    assert not [name for name in found["fused"] if "folds" in name] and len(per_fold["fused"]["folds"]) == 1
    assert "mean ± sd of folds" not in page


def roles_of(corpus, test: list[int], val: list[int]) -> dict[str, str]:
    return {clip: "test" if i in test else "val" if i in val else "train" for i, clip in enumerate(corpus.ids)}


def halves(corpus) -> dict[int, dict[str, str]]:
    count = len(corpus.ids)
    return {
        fold: roles_of(corpus, [i for i in range(count) if i % 2 == fold], [i for i in range(count) if i % 10 == 1 - fold])
        for fold in (0, 1)
    }


def test_a_class_that_one_fold_never_learns_counts_as_missed(fabricate, caplog):
    """Sadness is with the test clips of fold 0 alone: fold 0 cannot learn it, fold 1 does not test it."""
    corpus = fabricate(clips=60, folds=2)
    emotions = [CLASSES[i // 2 % 4] if i % 2 == 0 else CLASSES[i // 2 % 3] for i in range(60)]
    arrange(corpus, None, halves(corpus), emotion=emotions)
    params = simple(corpus, loss={"emotion": {"name": "cross_entropy", "options": {"class_weights": True}}})
    with caplog.at_level(logging.WARNING):
        found, per_fold, _ = run(corpus, params)
    assert "fold 0 has no labelled training clip with features of 'sadness'" in caplog.text
    table = pl.read_parquet(corpus.path("reports/predictions.parquet"))
    for variant in ("fused", "linear"):
        mine = table.filter(pl.col("variant") == variant)
        assert mine.select(pl.col("^p_.*$").is_finite().all()).row(0) == (True,) * 4
        missed = mine.filter(pl.col("truth") == "sadness")
        assert missed.height and set(missed["fold"]) == {0}
        assert found[variant]["uar"]["mean"] == pytest.approx(uar(mine), abs=1e-6)
        assert per_fold[variant]["folds"][1]["uar"] == pytest.approx(uar(mine.filter(pl.col("fold") == 1)), abs=1e-6)
    linear = table.filter((pl.col("variant") == "linear") & (pl.col("fold") == 0))
    assert "sadness" not in set(linear["predicted"]), "the linear model never says what nobody showed it"
    asked = params.model_copy(update={"task": params.task.model_copy(update={"classes": CLASSES})})
    with pytest.raises(ParamsError, match="fold 0 has no labelled training clip with features of 'sadness'; leave it out"):
        corpus.index(asked)


def test_validation_without_a_class_selects_on_those_it_has(fabricate):
    corpus = fabricate(clips=60, folds=2)
    emotions = [CLASSES[i % 2] if i % 10 in (0, 1) else CLASSES[i // 2 % 4] for i in range(60)]
    arrange(corpus, None, halves(corpus), emotion=emotions)
    found, _, _ = run(corpus, simple(corpus))
    assert 0 <= found["fused"]["uar"]["mean"] <= 1
    history = pl.read_csv(corpus.path("models/runs/history.csv")).filter(pl.col("variant") == "fused")
    assert np.isfinite(history.select("val_loss", "val_uar").to_numpy()).all()


def test_clips_without_any_stream_are_scored_and_not_learned_from(fabricate):
    """A tested clip that nothing is known of counts: leaving it out would flatter. A training clip teaches nothing."""
    corpus = fabricate(clips=40, folds=2)
    arrange(corpus, None, halves(corpus))
    lost = {corpus.ids[4], corpus.ids[7]}
    for name, shape in corpus.widths.items():
        corpus.store(name, shape, 0.4, ids=[clip for clip in corpus.ids if clip not in lost])
    found, _, _ = run(corpus, simple(corpus))
    table = pl.read_parquet(corpus.path("reports/predictions.parquet"))
    for variant in ("fused", "linear"):
        mine = table.filter((pl.col("variant") == variant) & pl.col("id").is_in(list(lost)))
        assert mine.height == 2 and mine.select(pl.col("^p_.*$").is_finite().all()).row(0) == (True,) * 4
        assert found[variant]["accuracy"]["mean"] == pytest.approx(
            (table.filter(pl.col("variant") == variant).select((pl.col("truth") == pl.col("predicted")).mean()).item()), abs=1e-6
        )
        config = json.loads(corpus.path(f"models/runs/{variant}/fold0/seed0/config.json").read_text())
        assert config["clips"]["train"] <= 16


def test_a_stream_of_one_token_per_clip(fabricate):
    corpus = fabricate(clips=40, folds=2)
    arrange(corpus, None, halves(corpus))
    rng = np.random.default_rng(0)
    for name, shape in corpus.widths.items():
        entries = [
            feature_store.Entry((rng.normal(size=(1, *shape)) + 2 * int(kind)).astype(np.float32), np.array([[0, 4]], np.float32))
            for kind in corpus.classes
        ]
        attributes = {"stream": name, "modality": name, "identity": {"weights": {"source": "local:x"}}}
        feature_store.write(
            corpus.path(f"features/{name}.h5"), corpus.ids, entries, rows=[1] * 40, shape=shape, attributes=attributes
        )
    found, _, _ = run(corpus, simple(corpus, fusion={"name": "cross_attention"}))
    assert np.isfinite(found["fused"]["uar"]["mean"]) and found["linear"]["uar"]["mean"] > 0.6


def test_a_fold_without_test_clips_is_one_line(fabricate):
    corpus = fabricate(clips=40, folds=2)
    roles = halves(corpus)
    roles[1] = {clip: role for clip, role in roles[1].items() if role != "test"}
    arrange(corpus, None, roles)
    with pytest.raises(StoreError, match="fold 1 has no test clip") as caught:
        run(corpus, simple(corpus))
    assert "\n" not in str(caught.value)


def test_truth_of_other_classes_alone_is_one_line(fabricate):
    """One split between corpora whose labels have nothing in common, which the stage before would have refused."""
    corpus = fabricate(clips=40)
    truth = tables.read(corpus.path("data/truth.parquet")).with_columns(emotion=pl.lit("boredom"))
    tables.write(truth, corpus.path("data/truth.parquet"))
    with pytest.raises(StoreError, match="no label of any test clip that the model predicts") as caught:
        run(corpus, simple(corpus))
    assert "\n" not in str(caught.value)


def test_the_index_refuses_a_store_with_nan(fabricate):
    """What somebody else wrote into a store is never trained on."""
    import h5py

    corpus = fabricate(clips=40)
    with h5py.File(corpus.path("features/audio.h5"), "r+") as file:
        file["values"][3, 0] = np.nan
    with pytest.raises(StoreError, match="NaN or infinity in row 3, of clip demo/clip") as caught:
        index.build(
            corpus.params(),
            features=corpus.path("features"),
            manifest=corpus.files["manifest"],
            folds=corpus.files["folds"],
            out=corpus.path("data/index.h5"),
        )
    assert "\n" not in str(caught.value)


def test_imported_features_that_are_no_numbers_are_missing_with_a_reason(fabricate, monkeypatch):
    """A row with NaN or infinity is left out, a clip of nothing else is masked; what is trained on is finite."""
    from pipeline import params as parameters
    from pipeline.features.extract import extract

    corpus = fabricate(clips=40, folds=2)
    arrange(corpus, None, halves(corpus), content=corpus.ids)
    rng = np.random.default_rng(0)
    rows = [
        {"id": clip, "a": f"{2 * (kind % 2) + rng.normal():.4f}", "b": "1"}
        for clip, kind in zip(corpus.ids, corpus.classes, strict=True)
    ]
    rows[3] |= {"a": "NaN"}
    rows[5] |= {"b": "inf"}
    rows.append({"id": corpus.ids[8], "a": "nan", "b": "2"})
    pl.DataFrame(rows).write_csv(corpus.path("mine.csv"))
    monkeypatch.chdir(corpus.folder)
    stream = {"modality": "audio", "source": "mine.csv", "encoder": "import", "weights": "file:mine.csv"}
    params = parameters.parse(simple(corpus).model_dump(mode="json") | {"streams": {"audio": stream}})
    extract(params, "audio")
    store = feature_store.Store(corpus.path("features/audio.h5"))
    lost = {clip for clip, state in zip(store.ids, store.status, strict=True) if state != feature_store.Status.OK}
    assert lost == {corpus.ids[3], corpus.ids[5]} and np.isfinite(store.values[:]).all()
    assert len(store[corpus.ids[8]].values) == 1
    found, _, _ = run(corpus, params)
    assert np.isfinite(found["fused"]["uar"]["mean"]) and np.isfinite(found["linear"]["uar"]["mean"])
