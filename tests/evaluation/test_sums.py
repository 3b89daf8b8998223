"""Sums per seed and group give the metrics of the rows; who the groups are; what speakers and baselines show."""

import numpy as np
import polars as pl
import pytest

from pipeline import metrics
from pipeline.evaluation import baselines, intervals, summary
from pipeline.evaluation.sums import Groups, clip_parts, frame_parts

CLASSES = ("anger", "joy", "neutral")


def predictions(rng, clips=60, seeds=2, *, speakers=6, fold=lambda i: i % 2):
    tables = []
    truth = [CLASSES[i % 3] if i % 7 else None for i in range(clips)]
    for seed in range(seeds):
        p = rng.dirichlet(np.ones(3), clips)
        tables.append(
            pl.DataFrame(
                {
                    "fold": [fold(i) for i in range(clips)],
                    "seed": [seed] * clips,
                    "id": [f"c{i:03d}" for i in range(clips)],
                    "speaker": [f"s{i % speakers}" for i in range(clips)],
                    "dialogue": [f"d{i % 10}" for i in range(clips)],
                    "truth": truth,
                    "truth_valence": [None if name is None else np.sin(i) for i, name in enumerate(truth)],
                    "predicted": [CLASSES[k] for k in p.argmax(1)],
                    **{f"p_{name}": p[:, k] for k, name in enumerate(CLASSES)},
                    "valence": np.sin(np.arange(clips)) * 0.5 + rng.normal(0, 0.3, clips),
                }
            )
        )
    return tables


def test_sums_give_the_metrics_of_the_rows():
    tables = predictions(np.random.default_rng(0))
    groups = Groups.of(pl.concat(tables))
    found = intervals.estimate(clip_parts(tables, groups, CLASSES, ("valence",)))
    expected = []
    for table in tables:
        known = table.drop_nulls("truth")
        truth, predicted = ([CLASSES.index(n) for n in known[c]] for c in ("truth", "predicted"))
        one = metrics.classification(truth, predicted, 3)
        one["ece"] = metrics.calibration(truth, known.select("^p_.*$").to_numpy())[0]
        one |= {f"valence_{k}": v for k, v in metrics.regression(known["truth_valence"], known["valence"]).items()}
        expected.append(one | {"ccc": one["valence_ccc"]})
    assert {name: one.mean for name, one in found.items()} == pytest.approx(
        {name: np.mean([one[name] for one in expected]) for name in expected[0]}
    )


@pytest.mark.parametrize(
    "columns, unit, count", [(("speaker", "dialogue"), "speaker", 6), (("dialogue",), "dialogue", 10), ((), "clip", 51)]
)
def test_groups_are_speakers_else_dialogues_else_clips(columns, unit, count):
    table = predictions(np.random.default_rng(0), seeds=1)[0]
    table = table.drop([name for name in ("speaker", "dialogue") if name not in columns])
    groups = Groups.of(table)
    assert (groups.unit, len(groups.names), groups.alone) == (unit, count, 0)
    assert "c000" not in groups.place, "a clip without truth is of no group"


def test_clips_of_no_known_speaker_stand_alone():
    table = predictions(np.random.default_rng(0), seeds=1)[0]
    table = table.with_columns(pl.when(pl.col("speaker") == "s1").then(None).otherwise("speaker").alias("speaker"))
    groups = Groups.of(table)
    lone = table.filter(pl.col("speaker").is_null() & pl.col("truth").is_not_null()).height
    assert (groups.unit, groups.alone, len(groups.names)) == ("speaker", lone, 5 + lone)


def test_a_unit_that_only_unlabelled_clips_have_is_none():
    table = predictions(np.random.default_rng(0), seeds=1)[0]
    table = table.with_columns(pl.when(pl.col("truth").is_null()).then("speaker").otherwise(None).alias("speaker"))
    assert Groups.of(table).unit == "dialogue"


def test_frames_are_drawn_with_their_speaker():
    rng = np.random.default_rng(1)
    table = predictions(rng, seeds=1)[0]
    groups = Groups.of(table)
    traces = pl.DataFrame(
        [
            {"id": clip, "time": t / 4, "truth_valence": np.sin(k + t), "pred_valence": np.sin(k + t) + rng.normal(0, 0.4)}
            for k, clip in enumerate(groups.place)
            for t in range(8)
        ]
    )
    found = intervals.estimate(frame_parts([traces], groups, ("valence",)))
    assert found["frame_valence_ccc"].mean == pytest.approx(metrics.ccc(traces["truth_valence"], traces["pred_valence"]))
    each = [metrics.ccc(part["truth_valence"], part["pred_valence"]) for part in traces.partition_by("id")]
    assert found["frame_valence_ccc_per_clip"].mean == pytest.approx(np.mean(each))
    for one in found.values():
        assert one.bounded and one.low < one.mean < one.high


def test_speakers_are_ordered_by_what_their_clips_leave_open():
    rows = []
    for speaker, clips, right in (("one", 1, 0), ("many", 40, 10), ("good", 40, 36)):
        rows += [(f"{speaker}{i}", speaker, "joy", "joy" if i < right else "anger") for i in range(clips)]
    table = pl.DataFrame(rows, schema=["id", "speaker", "truth", "predicted"], orient="row")
    table = table.with_columns(*(pl.lit(1 / 3).alias(f"p_{name}") for name in CLASSES))
    found = {row["speaker"]: row for row in summary.per_speaker([table], CLASSES, ())}
    assert found["one"]["accuracy"] == 0 and found["many"]["accuracy"] == 0.25
    assert sorted(found, key=lambda name: found[name]["at_most"]) == ["many", "one", "good"]
    assert (found["one"]["clips"], found["many"]["at_most"]) == (1, pytest.approx(0.4019, abs=1e-3))


def test_a_ccc_of_few_clips_is_none():
    table = predictions(np.random.default_rng(2), clips=21, seeds=1, speakers=9)[0].filter(pl.col("truth").is_not_null())
    rows = summary.per_speaker([table], (), ("valence",))
    for row in rows:
        assert np.isnan(row["valence_ccc"]) == (row["clips"] < 3)
        assert row["at_most"] == 1 or row["clips"] > 3


@pytest.mark.parametrize("value, count", [(1.0, 50), (-1.0, 4), (0.5, 3), (float("nan"), 9)])
def test_bounds_of_speakers_stay_in_range(value, count):
    assert -1 <= summary.bound_concordance(value, count) <= 1
    assert 0 <= summary.bound_share(abs(value), count) <= 1


def test_chance_and_majority_are_what_a_guesser_gets():
    table = predictions(np.random.default_rng(3), clips=84, seeds=1)[0]
    manifest = pl.DataFrame(
        {
            "id": [*table["id"], "t0", "t1", "t2", "t3"],
            "emotion": [*table["truth"], "joy", "joy", "neutral", "anger"],
            "valence": [*table["truth_valence"], 0.5, 0.5, 0.5, 0.5],
        }
    )
    folds = pl.DataFrame(
        [{"fold": f, "id": f"t{k}", "role": "train"} for f, k in ((0, 0), (0, 1), (0, 2), (1, 2), (1, 3), (1, 3))]
    )
    found = baselines.find_baselines(table, manifest, folds, CLASSES, ("valence",))
    known = table.drop_nulls("truth")
    constant = known["fold"].replace_strict({0: "joy", 1: "anger"}, return_dtype=pl.String)
    assert found["majority"]["accuracy"] == pytest.approx((known["truth"] == constant).mean(), abs=1e-6)
    assert found["majority"]["valence_rmse"] == pytest.approx(((known["truth_valence"] - 0.5) ** 2).mean() ** 0.5, abs=1e-6)
    assert found["chance"]["uar"] == found["chance"]["accuracy"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["chance"]["valence_ccc"] == found["majority"]["valence_ccc"] == found["majority"]["ccc"] == 0
    assert "ece" not in found["chance"]
