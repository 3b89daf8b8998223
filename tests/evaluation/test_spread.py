"""How sure a model is over time, from the run to the report; films in windows: every annotated frame once, twice the same."""

import re

import numpy as np
import polars as pl
import pytest

from pipeline.evaluation.ensemble import add_ensemble
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.panels import show_traces
from pipeline.evaluation.plots import Line, draw_lines
from pipeline.evaluation.predictions import mean_trace
from pipeline.evaluation.results import choose_traces
from pipeline.runs.folders import RunName
from pipeline.training.stage import train

LOSS = {"frames": {"name": "concordance"}, "sure": {"name": "gaussian", "on": "frames"}}


def test_traces_of_windows_have_every_annotated_frame_once_with_its_spread_and_twice_the_same(fabricate, tmp_path):
    corpus = fabricate(clips=30)
    params = corpus.params(
        task={"level": "frame", "emotion": False},
        temporal={"kind": "tcn", "window": {"tokens": 3, "stride": 2}},
        loss=LOSS,
        training={"seeds": 2, "epochs": 2, "select": "ccc"},
    )
    index = corpus.index(params)
    train(params, index, **corpus.files, out=corpus.path("models/runs"))
    files = {name: corpus.path(f"data/{name}.parquet") for name in ("truth", "truth_annotations", "manifest", "folds")}
    found = []
    for name in ("one", "two"):
        evaluate(params, index, **files, runs=corpus.path("models/runs"), out=tmp_path / name)
        found.append(pl.read_parquet(tmp_path / name / "traces.parquet"))
    assert found[0].equals(found[1])
    truth = pl.read_parquet(files["truth_annotations"])
    table = found[0].sort("id", "time")
    assert table.select("id", "time").equals(truth.sort("id", "time").select("id", "time"))
    assert table.columns[-2:] == ["sd_valence", "sd_arousal"]
    seen = table.filter(pl.col("sd_valence").is_not_null())
    lost = {clip for i, clip in enumerate(corpus.ids) if i % 13 == 7}  # these have no picture to be sure of
    assert set(table["id"]) - set(seen["id"]) == lost & set(table["id"])
    assert seen["sd_valence"].min() > 0.01 and seen["sd_valence"].max() < 3
    drawn = show_traces(choose_traces(tmp_path / "one")[0])
    assert any(one["band"] and 'class="band"' in svg for one in drawn for svg in one["svgs"])


def rows():
    return pl.DataFrame(
        {
            "variant": ["fused", "fused"],
            "fold": [0, 0],
            "seed": [0, 1],
            "id": ["a", "a"],
            "time": [0.5, 0.5],
            "truth_valence": [0.3, 0.3],
            "pred_valence": [0.2, 0.6],
            "sd_valence": [0.1, 0.3],
        }
    )


def test_the_spread_of_seeds_and_of_an_ensemble_is_that_of_their_mixture():
    values, spread = np.array([0.2, 0.6]), np.array([0.1, 0.3])
    mean = mean_trace(rows(), ("valence",))
    assert mean["sd_valence"][0] == pytest.approx(np.sqrt((spread**2).mean() + values.var()))
    worth = {RunName("fused", 0, 0): 0.25, RunName("fused", 0, 1): 0.75}
    both = add_ensemble(rows(), worth, ()).filter(pl.col("variant") == "ensemble")
    centre = 0.25 * 0.2 + 0.75 * 0.6
    variance = 0.25 * (0.01 + (0.2 - centre) ** 2) + 0.75 * (0.09 + (0.6 - centre) ** 2)
    assert both["pred_valence"][0] == pytest.approx(centre) and both["sd_valence"][0] == pytest.approx(np.sqrt(variance))
    unknown = rows().with_columns(sd_valence=pl.Series([0.1, float("nan")]))
    assert mean_trace(unknown, ("valence",))["sd_valence"][0] is None


def test_a_band_stays_inside_the_frame_and_leaves_gaps():
    svg = draw_lines([Line([0, 1, 2], [0.9, None, 0.0], "s0")], "", "", "", y_range=(-1, 1), spread=[0.5, 0.1, 0.25])
    band = re.search(r'd="([^"]*)" class="band"', svg)[1]
    corners = [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", band)]
    assert len(corners) == 4 and min(y for _, y in corners) == 12.0  # the top of the frame
