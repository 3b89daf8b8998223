"""Features that a language model makes of films: from raw files, from stores, on to a trained probe."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from pipeline import params as parameters
from pipeline.cli import app
from pipeline.data import media
from pipeline.errors import ParamsError, StoreError, UserError
from pipeline.evaluation.evaluate import evaluate
from pipeline.features.extract import extract
from pipeline.params import Stream
from pipeline.serving.composed import items, settings
from pipeline.serving.composed.extraction import Extraction
from pipeline.serving.composed.items import Item
from pipeline.serving.composed.write import Gathered, gather
from pipeline.storage import inspect, output_store, tables
from pipeline.storage.feature_store import Status, Store
from pipeline.training.stage import train

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "conf/features/emotion_llama_tiny.yaml"
WIDTHS = {"image": (16, 128), "facemae": (1, 64), "videomae": (1, 64), "audio": (1, 192), "cls": (1, 32)}
NAMES = [f"{name}_projected" for name in WIDTHS]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with conf/ and parameters, where commands run."""
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert "  workers: 2\n" in text
    (tmp_path / "params.yaml").write_text(text.replace("  workers: 2\n", "  workers: 0\n"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fabricate_item(name, seed=0, without=(), text="I am so glad.", **told):
    rng = np.random.default_rng(seed)
    rows = {one: rng.normal(size=shape).astype(np.float32) for one, shape in WIDTHS.items() if one not in without}
    rows |= {one: value for one, value in told.items()}
    return Item(name, rows, {one: (Status.MISSING, "none") for one in without}, text, 2.0)


def open_tiny(*changes):
    return Extraction(settings.read_settings(TINY, changes))


def run(*words):
    done = CliRunner().invoke(app, ["features", "emotion_llama", *map(str, words)])
    if isinstance(done.exception, UserError):
        return done.output, str(done.exception)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output, ""


def test_each_output_is_the_projection_of_its_own_stream(project):
    extraction = open_tiny()
    item = fabricate_item("a")
    (found,) = extraction([item])
    for name, rows in item.rows.items():
        projector = extraction.model.projectors[name]
        expected = torch.nn.functional.linear(torch.from_numpy(rows), projector.weight, projector.bias).detach().numpy()
        values = found[f"{name}_projected"].values
        assert values.shape == ((1, 16, 64) if name == "image" else (1, 64))
        assert np.array_equal(values.reshape(expected.shape), expected)
    assert found["llama_features"].values.shape == (1, 1, 64)


def test_the_picture_may_be_kept_as_its_mean(project):
    item = fabricate_item("a")
    (whole,), (mean,) = (open_tiny(f"image={kind}")([item]) for kind in ("all", "mean"))
    assert mean["image_projected"].values.shape == (1, 64)
    np.testing.assert_allclose(mean["image_projected"].values[0], whole["image_projected"].values[0].mean(0), atol=1e-6)
    np.testing.assert_array_equal(mean["llama_features"].values, whole["llama_features"].values)


def test_films_in_a_batch_are_as_alone(project):
    extraction = open_tiny("readout.layer=[2, -1]", "readout.rows=[0, -1]")
    films = [fabricate_item("a"), fabricate_item("b", 1, without=("facemae", "audio"), text=None), fabricate_item("c", 2)]
    for film, together in zip(films, extraction(films), strict=True):
        (alone,) = extraction([film])
        for name, entry in together.items():
            assert entry.status == alone[name].status
            np.testing.assert_allclose(entry.values, alone[name].values, atol=1e-5)
    assert extraction(films)[0]["llama_features"].values.shape == (1, 4, 64)


def test_what_a_film_lacks_is_missing_and_said(project):
    extraction = open_tiny("readout.rows=mean", "readout.span=facemae")
    lacking, empty = fabricate_item("a", without=("facemae",)), fabricate_item("b", without=tuple(WIDTHS))
    first, second = extraction([lacking, empty])
    assert first["facemae_projected"].status == Status.MISSING and first["image_projected"].status == Status.OK
    assert (first["llama_features"].status, first["llama_features"].reason) == (Status.MISSING, "the clip has no facemae")
    assert {one.status for one in second.values()} == {Status.MISSING}
    assert extraction([]) == []


def test_too_long_a_text_fails_alone(project):
    extraction = open_tiny()
    found = extraction([fabricate_item("a", text="so " * 600), fabricate_item("b")])
    assert found[0]["llama_features"].status == Status.FAILED and "takes 512; shorten" in found[0]["llama_features"].reason
    assert found[0]["image_projected"].status == found[1]["llama_features"].status == Status.OK


def test_rows_of_another_width_are_refused(project):
    extraction = open_tiny()
    extraction([fabricate_item("a")])
    with pytest.raises(ParamsError, match="stream audio gives rows of 3"):
        extraction([fabricate_item("b", audio=np.ones((1, 3), np.float32))])


def test_raw_films_by_one_command(project, make_film):
    make_film(project / "one.mp4", seed=1)
    make_film(project / "two.mp4", seed=2, audio=False)
    (project / "bad.mp4").write_bytes(b"no film")
    given = ("one.mp4", "two.mp4", "bad.mp4", "--settings", TINY, "--npy", "npy")
    said, wrong = run(*given, *(word for text in ("Yes.", "No!", "Well.") for word in ("--text", text)))
    assert not wrong and "bad: unreadable" in said and "these features mean nothing" in said
    outputs, attributes = output_store.read("data/emotion_llama.h5")
    assert sorted(outputs) == sorted([*NAMES, "llama_features"])
    assert attributes["random"] == ["language", "projectors", *WIDTHS]
    assert attributes["identity"]["loaded"]["projectors"]["random"]
    for name, rows in outputs.items():
        expected = [2, 0, 1 if name == "audio_projected" else 0]
        assert rows.ids == ["bad", "one", "two"] and rows.status.tolist() == expected, name
        assert len(rows.values) == expected.count(0)
        for i, clip in enumerate(rows.ids):
            file = project / "npy" / name / f"{clip}.npy"
            assert file.exists() == (expected[i] == 0)
            if file.exists():
                assert np.array_equal(np.load(file), rows.read(i)[0][0])
    assert outputs["image_projected"].values.shape == (2, 16, 64)
    assert (project / "npy/names.txt").read_text().split() == ["bad", "one", "two"]
    index = json.loads((project / "npy/index.json").read_text())["films"]
    assert index["bad"]["llama_features"]["status"] == "failed" and "unreadable" in index["bad"]["image_projected"]["reason"]
    assert index["one"]["facemae_projected"]["shape"] == [64]
    assert inspect.verify("data/emotion_llama.h5") == 3
    before = Path("data/emotion_llama.h5").read_bytes()
    run(*given[:3], "--settings", TINY, *(word for text in ("Yes.", "No!", "Well.") for word in ("--text", text)))
    assert Path("data/emotion_llama.h5").read_bytes() == before
    assert not list(project.glob("data/.gathered*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name films, or give --corpus"),
        (("a.mp4", "--corpus"), "one of the two"),
        (("--corpus", "--text", "hi"), "--text is for films"),
        (("a.mp4", "b.mp4", "--text", "hi", "--settings", "emotion_llama_tiny"), "2 films and 1 texts"),
        (("a.mp4", "a.mp4", "--settings", "emotion_llama_tiny"), "a is named twice"),
        (("a.mp4", "--settings", "emotion_lama"), "Did you mean 'emotion_llama'"),
        (("a.mp4", "--settings", "emotion_llama_tiny", "-S", "readout.row=last"), "row.*Did you mean 'rows'"),
        (("a.mp4", "--settings", "emotion_llama_tiny", "-S", "readout.span=face"), "Did you mean 'facemae'"),
        (("a.mp4", "--settings", "emotion_llama_tiny", "-S", "streams.audio=hubert_tny"), "Did you mean 'hubert_tiny'"),
        (("a.mp4", "--settings", "emotion_llama_tiny", "-S", "projectors=local:none.pth"), "none.pth is not there"),
        (("a.mp4", "--settings", "emotion_llama_tiny"), "not one film can be read; a: missing"),
    ],
)
def test_mistakes_are_one_line(project, words, message):
    _, wrong = run(*words)
    assert re.search(message, wrong) and "\n" not in wrong, wrong
    assert not Path("data/emotion_llama.h5").exists()


def test_the_published_settings_are_whole(project):
    found = settings.read_settings("conf/features/emotion_llama.yaml")
    streams = found.find_streams()
    assert list(streams) == ["image", "facemae", "videomae", "audio", "cls"]
    assert (found.language.lora.r, found.language.lora.alpha, found.language.lora.names) == (64, 16, ("q_proj", "v_proj"))
    encoders, taken = items.share_towers(streams)
    assert "cls" not in encoders and taken == {"image": ("image", "merged"), "cls": ("image", "cls")}


def test_a_tower_that_runs_once_gives_what_two_gave(project, make_film):
    film, given = make_film(project / "film.mp4", seed=3), parameters.read("params.yaml")
    tiny = settings.read_settings(TINY, ["streams={image: eva_tiny}"])
    cls = settings.read_settings(TINY).streams["cls"]
    both = tiny.model_copy(update={"streams": {"image": "eva_tiny", "cls": cls}})
    shared = next(items.read_films([film], [], both, given)).rows
    for name, one in both.streams.items():
        alone = next(items.read_films([film], [], tiny.model_copy(update={"streams": {name: one}}), given)).rows[name]
        np.testing.assert_array_equal(shared[name], alone)


def test_a_corpus_gives_what_its_films_give(project, make_film):
    own = {"facemae": settings.find_stream("clip_tiny"), "audio": settings.find_stream("hubert_tiny")}
    given = parameters.read("params.yaml").model_copy(update={"streams": {f"my_{name}": one for name, one in own.items()}})
    given = given.model_copy(update={"corpus": given.corpus.model_copy(update={"root": str(project)})})
    clips = []
    for i, audio in enumerate((True, True, False)):
        film = make_film(project / f"film{i}.mp4", seed=i, audio=audio)
        sound = film.name if audio else None
        clips.append(
            {"id": film.stem, "corpus": "c", "video": film.name, "audio": sound, "duration": 1.0, "content": f"{i:032x}"}
        )
    tables.write(tables.frame([clip | {"text": "Well."} for clip in clips]), Path("data/manifest.parquet"))
    media.extract_frames(given)
    media.extract_audio(given)
    for name in given.streams:
        extract(given, name)
    chosen = settings.read_settings(TINY).model_copy(update={"streams": own})
    stored = list(items.read_corpus(chosen, given))
    raw = list(items.read_films([project / f"{clip['id']}.mp4" for clip in clips], ["Well."] * 3, chosen, given))
    extraction = Extraction(chosen)
    for one, other in zip(stored, raw, strict=True):
        assert one.id == other.id and set(one.rows) == set(other.rows)
        (first,), (second,) = extraction([one]), extraction([other])
        for name, entry in first.items():
            assert entry.status == second[name].status
            np.testing.assert_allclose(entry.values, second[name].values, atol=1e-4)
    assert set(stored[2].lacks) == {"audio"}
    other = own["facemae"].model_copy(update={"weights": "random:1"})
    with pytest.raises(StoreError, match="no store of the stream facemae"):
        items.read_corpus(chosen.model_copy(update={"streams": {"facemae": other}}), given)


def test_a_probe_learns_from_the_features(project, fabricate):
    """Two classes, told by the faces alone: hidden states of a language model that learned nothing carry them on."""
    corpus = fabricate(clips=40, folds=2)
    kinds = corpus.classes % 2
    for file in ("manifest", "truth"):
        table = tables.read(corpus.path(f"data/{file}.parquet"))
        names = dict(zip(corpus.ids, np.where(kinds, "wandering", "focused").tolist(), strict=True))
        table = table.with_columns(pl.col("id").replace_strict(names).alias("emotion"))
        if file == "manifest":
            table = table.with_columns(pl.col("id").alias("content"))
        tables.write(table, corpus.path(f"data/{file}.parquet"))
    films = [
        fabricate_item(clip, i, facemae=np.full((1, 64), 2.0 * kinds[i] - 1, np.float32)) for i, clip in enumerate(corpus.ids)
    ]
    extraction = open_tiny("readout.span=facemae")
    with Gathered(project) as gathered:
        assert not [reason for _, reason in gather(films, extraction, gathered) if reason]
        gathered.write_store(project / "made.h5", extraction)
        gathered.write_files(project / "npy", extraction)
    places = {
        "llama": ("file:made.h5", {"key": "llama_features", "axis": "space"}),
        "npy": ("file:npy/llama_features", {"axis": "space"}),
    }
    probes = {
        name: Stream(modality="face", source="x", encoder="import", weights=address, options=options)
        for name, (address, options) in places.items()
    }
    params = corpus.params(
        task={"dimensions": []},
        loss={"emotion": {"name": "cross_entropy", "options": {"class_weights": True}}},
        training={"epochs": 1, "linear": {}},
    ).model_copy(update={"streams": probes})
    for name in probes:
        extract(params, name, manifest=corpus.files["manifest"], out=corpus.path(f"features/{name}.h5"))
    stored, filed = (Store(corpus.path(f"features/{name}.h5")) for name in probes)
    assert stored.ids == filed.ids == corpus.ids
    assert np.array_equal(stored.values.reshape(40, -1), filed.values.reshape(40, -1))
    params = params.model_copy(update={"streams": {"llama": probes["llama"]}})
    train(params, corpus.index(params), **corpus.files, out=corpus.path("models/runs"))
    found = evaluate(
        params,
        corpus.path("data/index.h5"),
        truth=corpus.path("data/truth.parquet"),
        truth_annotations=corpus.path("data/truth_annotations.parquet"),
        manifest=corpus.files["manifest"],
        folds=corpus.files["folds"],
        runs=corpus.path("models/runs"),
        out=corpus.path("reports"),
    )
    assert found["linear"]["uar"]["mean"] > 0.9
    folds = json.loads(corpus.path("reports/per_fold.json").read_text())["linear"]["folds"]
    assert [fold["fold"] for fold in folds] == [0, 1] and all(fold["uar"] > 0.9 for fold in folds)
