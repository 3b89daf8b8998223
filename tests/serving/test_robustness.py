"""Clips made worse: by exactly as much as is said, encoded again on the road of training."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline import cli
from pipeline.errors import StoreError, UserError
from pipeline.evaluation import robustness as figures
from pipeline.evaluation.evaluate import evaluate
from pipeline.features.encoders.extractor import Clip
from pipeline.runs.answers import write_answers
from pipeline.runs.predict import predict_clip
from pipeline.runs.run import load_run
from pipeline.serving.disturb import DISTURBANCES, GREY, Disturbance, add_noise, blur, cover
from pipeline.serving.robustness import predict_disturbed
from pipeline.storage import jpeg, tables
from pipeline.storage.atomic import write_json
from pipeline.storage.feature_store import Status, Store
from pipeline.training.answers.ask import ask, name_code
from pipeline.training.data.dataset import Dataset

# Disturbances


@pytest.mark.parametrize("snr", [20.0, 10.0, 0.0, -5.0])
@pytest.mark.parametrize("loud", [1e-3, 0.2, 1.0])
def test_noise_is_as_loud_as_is_said(snr, loud):
    wave = (loud * np.sin(np.arange(8000) / 20)).astype(np.float32)
    found = add_noise(wave, snr, np.random.default_rng(0))
    noise = found.astype(float) - wave
    measured = 10 * np.log10((wave.astype(float) ** 2).mean() / (noise**2).mean())
    assert measured == pytest.approx(snr, abs=1e-3)
    spectrum = np.abs(np.fft.rfft(noise)) ** 2
    assert spectrum[:2000].mean() == pytest.approx(spectrum[2000:].mean(), rel=0.15), "white"


def test_silence_stays():
    assert not add_noise(np.zeros(100, np.float32), 0, np.random.default_rng(0)).any()
    assert not len(add_noise(np.zeros(0, np.float32), 0, np.random.default_rng(0)))


def picture(size=(80, 60)):
    values = np.random.default_rng(0).integers(0, 2, (size[1] // 4, size[0] // 4, 3)) * 220
    return jpeg.encode(Image.fromarray(values.astype(np.uint8)).resize(size, Image.Resampling.NEAREST), 95)


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)


def test_blur_takes_edges_and_keeps_the_light():
    sharp = pixels(picture())
    spread = [sharp.std()]
    for share in (0.01, 0.03, 0.06):
        (found,) = blur([picture()], share)
        assert pixels(found).shape == sharp.shape
        assert pixels(found).mean() == pytest.approx(sharp.mean(), abs=3)
        spread.append(pixels(found).std())
    assert spread == sorted(spread, reverse=True) and spread[-1] < 0.6 * spread[0]


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("size", [(80, 60), (64, 64), (40, 100)])
def test_a_block_covers_its_share_at_one_place(share, size):
    dark = jpeg.encode(Image.new("RGB", size), 95)
    found = [pixels(one) for one in cover([dark, dark, dark], share, np.random.default_rng(1))]
    grey = [(np.abs(one - GREY[0]) < 40).all(2) for one in found]
    assert grey[0].mean() == pytest.approx(share, abs=0.03)
    assert (grey[0] == grey[1]).all() and (grey[0] == grey[2]).all()


def test_chance_hangs_on_the_clip_and_the_seed_alone():
    wave = np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32)
    noise = Disturbance("noise", 10.0)

    def apply(clip, seed, disturbance=noise):
        return disturbance.apply(Clip(clip, waveform=wave), seed).waveform - wave

    assert (apply("a", 0) == apply("a", 0)).all()
    assert (apply("a", 0) != apply("b", 0)).any() and (apply("a", 0) != apply("a", 1)).any()
    # Another level is the same noise, louder.
    np.testing.assert_allclose(apply("a", 0, Disturbance("noise", 0.0)), apply("a", 0) * 10**0.5, rtol=1e-2, atol=1e-4)


def test_a_disturbance_leaves_the_rest_of_the_clip():
    clip = Clip("a", waveform=np.ones(10, np.float32), text="Hi.")
    assert Disturbance("blur", 0.1).apply(clip, 0) is clip
    assert Disturbance("noise", 0.0).apply(Clip("a", text="Hi."), 0).text == "Hi."
    assert {(one.kind, one.level) for one in DISTURBANCES if one.kind == "noise"} == {("noise", n) for n in (20.0, 10.0, 0.0)}
    assert [Disturbance("noise", 0).reaches(m) for m in ("audio", "video", "face", "text")] == [True, False, False, False]
    assert [Disturbance("block", 0).reaches(m) for m in ("audio", "video", "face", "text")] == [False, True, True, False]


# On the road of training


@pytest.fixture(scope="module")
def place(trained, tmp_path_factory):
    """The trained pipeline, with four clips held out and evaluated; 5 has no sound, 6 no picture."""
    folder = tmp_path_factory.mktemp("robust") / "run"
    shutil.copytree(trained.folder, folder, ignore=shutil.ignore_patterns("cache"))
    roles = ["train"] * 4 + ["test"] * 4
    table = pl.DataFrame({"fold": [0] * 8, "id": [row["id"] for row in trained.rows], "role": roles})
    tables.write(table, folder / "data/folds.parquet", sort=("fold", "id"))
    truth = [{k: row[k] for k in ("id", "emotion", "valence", "arousal")} for row in trained.rows[4:]]
    tables.write(tables.frame(truth).select("id", *tables.LABELS), folder / "data/truth.parquet")
    write_json(folder / "params.yaml", trained.params.model_dump(mode="json", exclude_defaults=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data = Dataset.load("data/index.h5", "data/manifest.parquet", "data/folds.parquet", trained.params, 0)
        for seed in range(2):  # trained before there was a test part
            run = Path(f"models/runs/fused/fold0/seed{seed}")
            write_answers(run, ask(load_run(run), data), name_code())
        evaluate(trained.params)
    return folder


IDS = ["clip4", "clip5", "clip6", "clip7"]


@pytest.fixture(scope="module")
def disturbed(trained, place):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return predict_disturbed(trained.params, IDS)


def test_undisturbed_is_what_the_stores_give(trained, place, disturbed):
    table, reached = disturbed
    assert reached == {"noise": ["audio"], "blur": ["video"], "block": ["video"]}
    assert len(table) == (1 + len(DISTURBANCES)) * 2 * 4
    for row in table.filter(pl.col("kind").is_null()).iter_rows(named=True):
        features = {}
        for name in trained.params.streams:
            entry = Store(place / "features" / f"{name}.h5")[row["id"]]
            if entry.status == Status.OK:
                features[name] = (np.asarray(entry.values, np.float32), entry.times)
        expected = predict_clip(load_run(place / f"models/runs/fused/fold0/seed{row['seed']}"), features)
        assert [row[f"p_{c}"] for c in expected.classes] == pytest.approx(expected.probabilities.tolist(), abs=1e-4)
        assert row["predicted"] == expected.emotion and row["valence"] == pytest.approx(expected.dimensions[0], abs=1e-4)


def test_each_kind_moves_those_it_reaches_alone(disturbed):
    table, _ = disturbed
    plain = {(r["seed"], r["id"]): r["p_joy"] for r in table.filter(pl.col("kind").is_null()).iter_rows(named=True)}
    moved = {
        (row["kind"], row["id"])
        for row in table.drop_nulls("kind").iter_rows(named=True)
        if row["p_joy"] != plain[row["seed"], row["id"]]
    }
    pictures = {(kind, clip) for kind in ("blur", "block") for clip in ("clip4", "clip5", "clip7")}
    assert moved == {("noise", clip) for clip in ("clip4", "clip6", "clip7")} | pictures


def test_the_command_writes_figures_and_the_page(place, trained, monkeypatch):
    monkeypatch.chdir(place)
    done = CliRunner().invoke(cli.app, ["robustness", "--clips", "3", "--seed", "1"], catch_exceptions=False)
    assert done.exit_code == 0 and "reports/index.html" in done.output
    found = json.loads((place / "reports/robustness.json").read_text())
    assert found["clips"] == 3 and len(found["figures"]) == 1 + len(DISTURBANCES) and found["metric"] == "uar"
    page = (place / "reports/index.html").read_text().split('<section id="robustness"')[1].split("</section>")[0]
    assert "White noise on the sound" in page and "noise, 0 dB" in page and "block, 50 %" in page and "3 held-out clips" in page
    first = (place / "reports/robustness.json").read_bytes()
    CliRunner().invoke(cli.app, ["robustness", "--clips", "3", "--seed", "1"], catch_exceptions=False)
    assert (place / "reports/robustness.json").read_bytes() == first
    write_json(place / "reports/metrics.json", json.loads((place / "reports/metrics.json").read_text()) | {"other": {}})
    from pipeline.evaluation.report import write_report

    assert "Measured for other models than these" in write_report(trained.params).read_text()


def test_mistakes_are_one_line(place, trained, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    with pytest.raises(UserError, match="give --clips 1 or more"):
        figures.choose_clips("data/folds.parquet", "data/truth.parquet", 0, 0)
    with pytest.raises(StoreError, match="dvc repro evaluate"):
        figures.name_evaluation(tmp_path)
    with pytest.raises(StoreError, match="no trained model of all streams"):
        predict_disturbed(trained.params, IDS, models=tmp_path)
    runs = tmp_path / "runs"
    shutil.copytree("models/runs", runs)

    def change(**values):
        for config in runs.glob("*/*/*/config.json"):
            write_json(config, json.loads(config.read_text()) | values)

    change(normalise="speaker")
    with pytest.raises(UserError, match="normalised per speaker"):
        predict_disturbed(trained.params, IDS, models=runs)
    encoders = json.loads(next(runs.glob("*/*/*/config.json")).read_text())["encoders"]
    change(normalise="train", encoders={"text": encoders["text"]})
    with pytest.raises(UserError, match="no stream reads sound or pictures"):
        predict_disturbed(trained.params, IDS, models=runs)


# Figures


def test_clips_are_chosen_among_those_held_out_with_a_label(tmp_path):
    ids = [f"c{i:02d}" for i in range(40)]
    folds = pl.DataFrame({"fold": 0, "id": ids, "role": ["test" if i % 2 else "train" for i in range(40)]})
    tables.write(folds, tmp_path / "folds.parquet", sort=("fold", "id"))
    truth = tables.frame([{"id": c, "emotion": "joy" if i > 9 else None} for i, c in enumerate(ids)]).select("id", *tables.LABELS)
    tables.write(truth, tmp_path / "truth.parquet")
    files = tmp_path / "folds.parquet", tmp_path / "truth.parquet"
    found = figures.choose_clips(*files, 5, 0)
    assert len(found) == 5 and found == sorted(found) == figures.choose_clips(*files, 5, 0) != figures.choose_clips(*files, 5, 1)
    assert figures.choose_clips(*files, 99, 0) == [c for i, c in enumerate(ids) if i % 2 and i > 9]


def test_figures_are_beside_those_of_the_same_clips(tmp_path):
    ids, labels = [f"c{i:02d}" for i in range(24)], ["joy" if i % 2 else "anger" for i in range(24)]
    manifest = [{"id": c, "corpus": "x", "speaker": f"s{i % 6}", "duration": 1.0} for i, c in enumerate(ids)]
    tables.write(tables.frame(manifest), tmp_path / "manifest.parquet")
    truth = tables.frame([{"id": c, "emotion": e} for c, e in zip(ids, labels, strict=True)]).select("id", *tables.LABELS)
    tables.write(truth, tmp_path / "truth.parquet")
    rows = []
    for kind, level, wrong in ((None, None, 0), ("noise", 20.0, 0), ("noise", 0.0, 12)):
        for seed in (0, 1):
            for i, (clip, label) in enumerate(zip(ids, labels, strict=True)):
                said = "joy" if i < wrong else label
                chances = {"p_anger": float(said == "anger"), "p_joy": float(said == "joy")}
                about = {"kind": kind, "level": level, "variant": "fused", "fold": 0, "seed": seed, "id": clip}
                rows.append({**about, "predicted": said, **chances})
    table = pl.DataFrame(rows, infer_schema_length=None)
    metric, found = figures.score(table, tmp_path / "truth.parquet", tmp_path / "none.parquet", tmp_path / "manifest.parquet")
    assert metric == "uar" and [row["mean"] for row in found] == [1.0, 1.0, 0.75]
    assert found[1]["difference"]["mean"] == 0 and found[1]["p"] == 1 and "difference" not in found[0]
    worse = found[2]["difference"]
    assert worse["mean"] == -0.25 and worse["low"] <= -0.25 <= worse["high"] < 0.01
