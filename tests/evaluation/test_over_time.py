"""What is predicted over time: figures of frames, the file to hand in, and how the embedding moves."""

import csv
import json

import numpy as np
import polars as pl
import pytest
import torch

from pipeline import metrics
from pipeline.evaluation import over_time, summary
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.report import render_page
from pipeline.evaluation.submission import write_submission
from pipeline.evaluation.sums import Groups
from pipeline.evaluation.undefined import tell_undefined
from pipeline.models.batch import Inputs, Tokens
from pipeline.models.model import EmotionModel
from pipeline.models.spec import ModelSpec, OutputSpec, StreamSpec
from pipeline.runs.embed import compare_halves, embed_tokens
from pipeline.storage import tables
from pipeline.storage.atomic import write_json
from pipeline.training.answers import over_time as asked
from pipeline.training.stage import train
from tests.fabricated import Fabricated

NAMES = ("valence", "arousal")
PROJECTED = {"projection": {"name": "supervised_contrastive", "options": {"labels": "dimensions"}}}


def judge(corpus, params):
    return evaluate(
        params,
        corpus.path("data/index.h5"),
        truth=corpus.path("data/truth.parquet"),
        truth_annotations=corpus.path("data/truth_annotations.parquet"),
        card=corpus.path("data/card.json"),
        runs=corpus.path("models/runs"),
        out=corpus.path("reports"),
        **{name: path for name, path in corpus.files.items() if name != "annotations"},
    )


@pytest.fixture(scope="module")
def judged(fabricated_module):
    """(corpus, params, metrics): labels on a scale of -10 to 10, frames numbered from 7 on, a projection."""
    corpus = fabricated_module
    held = tables.read(corpus.path("data/truth_annotations.parquet"))
    number = (pl.int_range(pl.len()).over("id") + 7).cast(pl.String).str.zfill(5)
    tables.write(held.with_columns(frame=number), corpus.path("data/truth_annotations.parquet"), sort=("id", "time"))
    write_json(corpus.path("data/card.json"), {"scale": [-10, 10]})
    task = {"level": "frame", "emotion": False}
    loss = {"frames": {"name": "concordance"}, "dimensions": {"name": "concordance"}, **PROJECTED}
    params = corpus.params(task=task, training={"seeds": 2, "epochs": 2, "select": "ccc"}, loss=loss)
    train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))
    return corpus, params, judge(corpus, params)


@pytest.fixture(scope="module")
def fabricated_module(tmp_path_factory):
    return Fabricated(tmp_path_factory.mktemp("frames"), clips=30, folds=5)


def test_every_annotated_frame_is_handed_in_once_in_the_units_of_the_labels(judged):
    corpus, _, _ = judged
    with corpus.path("reports/submission.csv").open() as file:
        rows = list(csv.DictReader(file))
    held = tables.read(corpus.path("data/truth_annotations.parquet"))
    assert list(rows[0]) == ["clip_id", "frame", "valence", "arousal"]
    assert [(f"demo/{r['clip_id']}", r["frame"]) for r in rows] == held.select("id", "frame").rows()
    traces = tables.read(corpus.path("reports/traces.parquet"))
    for name in NAMES:
        assert all(len(r[name].partition(".")[2]) == 6 for r in rows)
        np.testing.assert_allclose([float(r[name]) for r in rows], 10 * traces[f"pred_{name}"], atol=6e-7)


def test_the_same_again_is_the_same(judged):
    corpus, params, result = judged
    names = ("submission.csv", "trajectories.parquet", "metrics.json")
    before = {name: corpus.path(f"reports/{name}").read_bytes() for name in names}
    assert judge(corpus, params) == result
    assert {name: corpus.path(f"reports/{name}").read_bytes() for name in names} == before


def test_nothing_over_time_is_an_empty_file_with_its_heading(tmp_path):
    empty = pl.DataFrame(schema={"id": pl.String(), "time": pl.Float64(), "pred_valence": pl.Float64()})
    write_submission(empty, tmp_path / "none.parquet", ("valence",), (-1, 1), tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "clip_id,frame,valence\n"


def test_frames_without_a_number_have_their_place_and_several_corpora_keep_their_names(tmp_path):
    rows = [(f"{corpus}/a/1", t, None, 0.0, 0.0) for corpus in ("x", "y") for t in (0.1, 0.2, 0.2)]
    held = pl.DataFrame(rows, schema=tables.ANNOTATIONS, orient="row")
    tables.write(held, tmp_path / "a.parquet", sort=("id", "time"))
    traces = held.select("id", "time", pl.lit(0.25).alias("pred_valence")).unique()
    write_submission(traces, tmp_path / "a.parquet", ("valence",), (1, 5), tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert lines == [f"{corpus}/a/1,{n},3.500000" for corpus in "xy" for n in range(3)]


def make_traces(speakers=8, clips=6, length=12, seed=0):
    """Predictions that are off by as much for all clips of a speaker."""
    rng = np.random.default_rng(seed)
    rows = []
    for s in range(speakers):
        off = rng.normal(0, 0.4)
        for c in range(clips):
            truth = rng.normal(0, 0.5) + 0.3 * np.sin(np.arange(length))
            found = truth + off + rng.normal(0, 0.05, length)
            rows += [(f"d/{s}_{c}", float(t), *pair) for t, pair in enumerate(zip(truth, found, strict=True))]
    return pl.DataFrame(rows, schema=["id", "time", "truth_valence", "pred_valence"], orient="row")


def test_pooled_and_mean_of_clips_are_those_of_plain_loops():
    traces = make_traces()
    flat = pl.DataFrame({"id": ["d/flat"] * 3, "time": [0.0, 1, 2], "truth_valence": [0.2] * 3, "pred_valence": [0.1, 0.2, 0.3]})
    traces = pl.concat([traces, flat])
    groups = Groups.of_clips(traces)
    found = summary.intervals.estimate(summary.frame_parts([traces], groups, ("valence",)), None)
    pooled = metrics.regression(traces["truth_valence"], traces["pred_valence"])
    each = [metrics.regression(part["truth_valence"], part["pred_valence"]) for part in traces.partition_by("id")]
    for name, value in pooled.items():
        assert found[f"frame_valence_{name}"].mean == pytest.approx(value)
        taken = each[:-1] if name in ("ccc", "pcc", "icc") else each  # in the last clip truth does not vary
        assert found[f"frame_valence_{name}_per_clip"].mean == pytest.approx(np.mean([one[name] for one in taken]))
    assert found["frame_ccc_per_clip"].mean == pytest.approx(found["frame_valence_ccc_per_clip"].mean)


def test_clips_of_one_speaker_are_no_strangers():
    """Off alike within a speaker: drawing speakers is the wider interval, drawing clips that of a plain bootstrap of clips."""
    traces = make_traces()
    names = sorted(set(traces["id"]))
    speakers = {clip: int(clip[2:].partition("_")[0]) for clip in names}
    by_speaker = Groups("speaker", [str(s) for s in range(8)], speakers, 0)
    parts = summary.frame_parts([traces], by_speaker, ("valence",))
    result = {
        name: one.rounded() for name, one in summary.intervals.estimate(parts, summary.draws_of([traces], by_speaker, 0)).items()
    }
    summary.add_bounds_by_clip(result, [traces], ("valence",), 0)
    one = result["frame_valence_rmse"]
    assert one["low"] < one["low_by_clip"] < one["mean"] < one["high_by_clip"] < one["high"]
    rng = np.random.default_rng(3)
    gaps = {n: (p["pred_valence"] - p["truth_valence"]).to_numpy() ** 2 for (n,), p in traces.group_by("id")}
    drawn = [np.sqrt(np.mean([gaps[n] for n in rng.choice(names, len(names))])) for _ in range(2000)]
    np.testing.assert_allclose([one["low_by_clip"], one["high_by_clip"]], np.quantile(drawn, [0.025, 0.975]), atol=0.01)


def test_both_intervals_and_both_means_are_in_the_figures_and_on_the_page(judged):
    corpus, params, result = judged
    for name in ("ccc", "pcc", "icc", "rmse", "mse", "sagr"):
        for ending in ("", "_per_clip"):
            one = result["fused"][f"frame_valence_{name}{ending}"]
            assert one["low_by_clip"] <= one["mean"] <= one["high_by_clip"] and one["low"] <= one["mean"] <= one["high"]
    shown = json.loads(corpus.path("reports/summary.json").read_text())
    assert shown["frame_ccc"] == result["fused"]["frame_ccc"]["mean"]
    assert shown["frame_ccc_per_clip"] == result["fused"]["frame_ccc_per_clip"]["mean"]
    page = render_page(params, corpus.path("data"), corpus.path("reports"), corpus.path("features"))
    section = page.split('id="traces"')[1].split("</section>")[0]
    assert "Figures of frames" in section and "mean of clips, by speaker" in section and "pooled, by speaker" in section
    assert "−10 to 10" in section and ">−10<" in section, "the axes are in the units of the labels"
    assert section.count("A ring marks the start") == 1 and 0 < section.count('class="ring"') == 3 * section.count("axes hold")
    assert "Contrastive accuracy" in section and "Temporal consistency" in section


def test_truth_that_never_varies_is_told_and_is_no_number(judged):
    corpus, params, _ = judged
    # In this corpus the arousal of a clip does not vary over time.
    record = json.loads(corpus.path("reports/run.json").read_text())
    assert record["undefined"] == [
        "arousal: truth does not vary in 30 of 30 clips, which have no part in the mean of clips of CCC, PCC and ICC"
    ]
    assert over_time.show_figures(corpus.path("reports"), "fused", NAMES)["rows"][6]["inside"] == (None, None)
    held = corpus.path("data/truth_annotations.parquet")
    saved, truth = held.read_bytes(), tables.read(corpus.path("data/truth.parquet"))
    try:
        tables.write(tables.read(held).with_columns(valence=pl.lit(0.3)), held, sort=("id", "time"))
        found = judge(corpus, params)["fused"]
    finally:
        held.write_bytes(saved)
    assert found["frame_valence_ccc"]["mean"] is None and found["frame_valence_pcc"]["mean"] is None
    assert found["frame_ccc"]["mean"] is None, "no mean of what is not there"
    assert found["frame_valence_rmse"]["mean"] > 0 and found["valence_ccc"]["mean"] is not None and truth.height == 30
    record = json.loads(corpus.path("reports/run.json").read_text())
    assert record["undefined"][0] == (
        "valence: the truth of 240 held-out frames is 0.3 throughout: CCC, PCC and ICC over frames are undefined"
    )
    page = render_page(params, corpus.path("data"), corpus.path("reports"), corpus.path("features"))
    assert "the truth of 240 held-out frames is 0.3 throughout" in page
    judge(corpus, params)


def test_constant_truth_of_clips_is_told():
    table = pl.DataFrame({"id": ["a", "b"], "truth_valence": [0.5, 0.5], "truth_arousal": [0.1, None]})
    said = tell_undefined(table, pl.DataFrame(), NAMES)
    assert said == [
        "valence: the truth of 2 held-out clips is 0.5 throughout: CCC, PCC and ICC over clips are undefined",
        "arousal: the truth of 1 held-out clip is 0.1 throughout: CCC, PCC and ICC over clips are undefined",
    ]


def make_model(base="audio", outputs=("frames", "projection")):
    torch.manual_seed(0)
    spec = ModelSpec(
        streams={"audio": StreamSpec(width=6)},
        width=16,
        heads=2,
        dimensions=NAMES,
        outputs={name: OutputSpec(name=name, size=2 if name == "frames" else 16) for name in outputs},
        base=base,
    )
    return EmotionModel(spec).eval()


def make_inputs(values):
    values = torch.as_tensor(values, dtype=torch.float32)
    ends = torch.arange(values.shape[1] + 1) / 8
    times = torch.stack([ends[:-1], ends[1:]], 1).expand(len(values), -1, 2)
    return Inputs({"audio": Tokens(values, torch.ones(values.shape[:2], dtype=torch.bool), times)})


def test_what_is_embedded_is_what_the_heads_read():
    model, inputs = make_model(), make_inputs(np.random.default_rng(0).normal(size=(3, 5, 6)))
    (tokens,) = embed_tokens(model, [inputs])
    vector = model(inputs)["embedding"][:, None].expand_as(tokens.values)
    again = torch.tanh(model.heads["frames"].net(torch.cat([tokens.values, vector], -1)))
    torch.testing.assert_close(again, model(inputs)["frames"])
    assert not model.fusion._forward_hooks, "nothing stays behind"


def test_contrastive_accuracy_of_known_cases():
    rng = np.random.default_rng(0)
    half = rng.normal(size=(4, 3, 6))
    alike = make_inputs(np.concatenate([half, half], 1))  # halves are the same, clips are not
    assert compare_halves(make_model(), [alike]) == [1.0] * 4, "that they come later makes them no others"
    one = make_inputs(np.repeat(np.concatenate([half[:1], half[:1]], 1), 4, 0))
    assert compare_halves(make_model(), [one]) == [0.0] * 4, "as near to the others as to itself is not nearer"
    single = make_inputs(rng.normal(size=(2, 1, 6)))
    assert compare_halves(make_model(), [alike, single])[4:] == [None, None], "one token has no halves"
    assert compare_halves(make_model(outputs=("frames",)), [alike, single]) == [None] * 6


def test_consistency_and_paths_of_known_ways(judged):
    turn = np.array([[1.0, 0], [0, 2], [0, 5], [-1, 0]])  # cosines 0, 1, 0
    assert asked._consistency(turn) == pytest.approx(1 / 3) and asked._consistency(turn[:1]) is None
    rng = np.random.default_rng(0)
    plane, _ = np.linalg.qr(rng.normal(size=(16, 2)))
    flat = rng.normal(size=(9, 2)) * [3, 1]
    paths = [("a", np.arange(4.0), flat[:4] @ plane.T), ("b", np.arange(5.0), flat[4:] @ plane.T)]
    found = asked.reduce_paths(paths)
    assert found["id"].to_list() == ["a"] * 4 + ["b"] * 5 and found["share"].to_numpy() == pytest.approx(1)
    spots = found.select("x", "y").to_numpy()
    gaps = [np.linalg.norm(all_[:, None] - all_[None], axis=-1) for all_ in (spots, flat)]
    np.testing.assert_allclose(*gaps, atol=1e-9)
    corpus, _, result = judged
    assert -1 <= result["fused"]["temporal_consistency"]["mean"] <= 1
    assert 0 <= result["fused"]["contrastive_accuracy"]["mean"] <= 1
    seen = tables.read(corpus.path("reports/trajectories.parquet"))
    assert set(seen["id"]) <= set(corpus.ids) and seen.group_by("id").len()["len"].max() <= 6
