"""CMU-MOSI and CMU-MOSEI as CMU distributes them, and the emotions of MOSEI."""

from __future__ import annotations

import json

import h5py
import numpy as np
import polars as pl
import pytest

from pipeline.data import build
from pipeline.data.corpora import open_corpus
from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Corpus


def read(name, root, **options):
    return open_corpus(Corpus(name=name, root=str(root), options=options)).read()


def sequence(path, title, videos):
    """Video → (intervals, features), as the SDK writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for video, (intervals, features) in videos.items():
            group = file.create_group(f"{title}/data/{video}")
            group["intervals"], group["features"] = np.asarray(intervals), features
        file.create_group(f"{title}/metadata")["version"] = "1"


FOLDS = "#comment\nstandard_train_fold=['v1', 'v2']\nstandard_valid_fold=['v3']\nstandard_test_fold=['v4']\n"


@pytest.fixture
def mosei(tmp_path, tone):
    root = tmp_path / "CMU-MOSEI"
    labels = {}
    for at, video in enumerate(("v1", "v2", "v3", "v4", "v5")):
        #         sentiment happy sad anger surprise disgust fear
        labels[video] = (
            [[2.0, 3.5], [0.5, 2.0], [3.5, 4.0]],
            np.array([[-3, 0, 2 / 3, 0, 0, 1 / 3, 0], [1, 1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 0]], np.float32),
        )
        tone(root / f"Raw/Audio/Full/WAV_16000/{video}.wav", seconds=4.0, frequency=200 + 40 * at)
        lines = [
            f"{video}___0___0.5___2.0___FIRST of {video}",
            f"{video}___1___2.0___3.5___SECOND___half",
            f"{video}___7___9___9.5___x",
        ]
        place = root / f"Raw/Transcript/Segmented/Combined/{video}.txt"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("\n".join(lines))
    sequence(root / "CMU_MOSEI_Labels.csd", "All Labels", labels)
    (root / "cmu_mosei_std_folds.py").write_text(FOLDS)
    return root


def test_mosei_from_the_package(mosei, tmp_path, settings):
    params = settings("mosei", mosei, {"view": "emotions"}, protocol={"kind": "official", "on_leak": "report"})
    build.build_manifest(params, tmp_path / "data")
    table, lost = (pl.read_parquet(tmp_path / f"data/{name}.parquet") for name in ("manifest", "quarantine"))
    assert table["id"].to_list() == [f"mosei/v{video}/{i}" for video in (1, 2, 3, 4) for i in (0, 1, 2)]
    assert table["split"].unique(maintain_order=True).to_list() == ["train", "val", "test"]
    # In the order of time, whatever the order of the file.
    first = table.head(3)
    assert first.select("start", "end", "duration", "turn").rows() == [(0.5, 2.0, 1.5, 0), (2.0, 3.5, 1.5, 1), (3.5, 4.0, 0.5, 2)]
    assert first["audio"].to_list() == ["Raw/Audio/Full/WAV_16000/v1.wav"] * 3
    assert first["text"].to_list() == ["FIRST of v1", "SECOND___half", None]
    assert first["valence"].to_list() == pytest.approx([1 / 3, -1, 0]) and first["sentiment"].to_list() == [
        "positive",
        "negative",
        "neutral",
    ]
    # Happy and afraid alike: neither; sad above disgusted: sad; nothing: nothing.
    assert first["emotion"].to_list() == [None, "sad", None]
    assert json.loads(first["labels"][1])["disgust"] == pytest.approx(1 / 3, abs=1e-6)
    assert [(row["reason"], row["detail"]) for row in lost.to_dicts()] == [("surplus", "video v5 is in none of the folds")]
    truth = pl.read_parquet(tmp_path / "data/truth.parquet")
    assert truth["id"].to_list() == [f"mosei/v4/{i}" for i in (0, 1, 2)] and truth["emotion"].to_list() == [None, "sad", None]


@pytest.mark.parametrize(
    ("options", "emotions"),
    [
        ({"view": "emotions", "ties": "first"}, ["happy", "sad", None]),
        ({"view": "emotions", "unfelt": "neutral"}, [None, "sad", "neutral"]),
        ({"view": "three"}, ["positive", "negative", "neutral"]),
        ({}, [None, None, None]),
    ],
)
def test_views_of_mosei(mosei, options, emotions):
    assert [clip["emotion"] for clip in read("mosei", mosei, **options).clips[:3]] == emotions


def test_emotions_of_a_table(tmp_path):
    rows = ["video_id,clip_id,text,label,mode,happy,sad,anger,surprise,disgust,fear"]
    rows += ["v,1,a,1.5,train,0.67,0,0,0,0,1.33", "v,2,b,0,train,0,0,0,0,0,0", "v,3,c,0,train,9,0,0,0,0,0", "v,4,d,,train,,,,,,"]
    (tmp_path / "label.csv").write_text("\n".join(rows))
    found = read("mosei", tmp_path, view="emotions", media="none")
    assert [(clip["emotion"], clip["valence"]) for clip in found.clips] == [
        ("fear", 0.5),
        (None, 0.0),
        (None, None),
        (None, None),
    ]
    assert [clip.get("target", True) for clip in found.clips] == [True, True, False, False]
    assert [row["detail"] for row in found.problems] == ["line 4: 9 is not between 0 and 3; the turn stays as context"]
    with pytest.raises(ParamsError):
        read("mosi", tmp_path, view="emotions")


def test_mosi_from_the_package(tmp_path):
    """A column of labels, films, numbered transcripts; words of the sequence where a transcript lacks or has other lines."""
    sequence(
        tmp_path / "labels/CMU_MOSI_Opinion_Labels.csd",
        "Opinion Segment Labels",
        {
            "v1": ([[1.0, 2.0], [2.0, 3.0]], np.array([[2.4], [-0.6]])),
            "v2": ([[1.0, 2.0]], np.array([[9.0]])),
            "v3": ([[0.0, 1.0], [1.0, 2.0]], np.array([[1.0], [np.nan]])),
        },
    )
    words = np.array([[b"sp"], [b"so"], [b"what"], [b"else"]])
    sequence(tmp_path / "CMU_MOSI_TimestampedWords.csd", "words", {"v3": ([[0, 0.1], [0.1, 0.5], [0.8, 1.1], [1.2, 1.6]], words)})
    for name in ("Raw/Video/Full/v1.mp4", "Raw/Video/Segmented/v1_1.mp4", "Raw/Audio/WAV_16000/Full/v1.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    place = tmp_path / "Raw/Transcript/Segmented"
    place.mkdir(parents=True)
    (place / "v1.annotprocessed").write_text("1_DELIM_LOVED IT\n2_DELIM_NOT SO MUCH\n")
    (place / "v3.annotprocessed").write_text("1_DELIM_ONE LINE FOR TWO\n")
    found = read("mosi", tmp_path)
    assert [(c["id"], c["valence"], c["text"]) for c in found.clips] == [
        ("mosi/v1/0", pytest.approx(0.8), "LOVED IT"),
        ("mosi/v1/1", pytest.approx(-0.2), "NOT SO MUCH"),
        ("mosi/v2/0", None, None),
        ("mosi/v3/0", pytest.approx(1 / 3), "so what"),
        ("mosi/v3/1", None, "else"),
    ]
    assert found.clips[0]["video"] == "Raw/Video/Full/v1.mp4" and found.clips[0]["audio"] == "Raw/Audio/WAV_16000/Full/v1.wav"
    assert (found.clips[1]["start"], found.clips[1]["end"], found.clips[1]["dialogue"]) == (2.0, 3.0, "v1")
    assert [c.get("target", True) for c in found.clips] == [True, True, False, True, False]
    assert [(row["id"], row["reason"]) for row in found.problems] == [("mosi/v2/0", "row")]
    assert found.notes["no *std_folds.py"] == "the clips have no official split"


def test_a_table_with_times_cuts_the_whole_video(tmp_path):
    (tmp_path / "label.csv").write_text(
        "video_id,clip_id,text,label,mode,start_time,end_time\nv,1,a,1,train,2.5,0:04\nw,1,b,1,train,1,2\nw,2,c,1,train,,\n"
    )
    for name in ("Raw/w/1.mp4", "videos/v.mp4", "videos/w.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    media = [(c["video"], c.get("start"), c.get("end")) for c in read("mosi", tmp_path).clips]
    # A film of its own is taken first; without times nothing can be cut.
    assert media == [("videos/v.mp4", 2.5, 4.0), ("Raw/w/1.mp4", None, None), ("Raw/w/2.mp4", None, None)]


@pytest.mark.parametrize("damage", ["bytes", "half", "link", "storage", "columns", "words"])
def test_damaged_sequences_are_one_line(tmp_path, damage):
    path, secret = tmp_path / "CMU_MOSEI_Labels.csd", tmp_path / "secret"
    secret.write_bytes(bytes(1000))
    sequence(path, "All Labels", {"v1": ([[0, 1]], np.zeros((1, 7)))})
    if damage == "bytes":
        path.write_bytes(b"no HDF5")
    elif damage == "half":
        path.write_bytes(path.read_bytes()[:900])
    with h5py.File(path, "a") if damage in ("link", "storage", "columns", "words") else open(path, "rb") as file:
        if damage == "link":
            del file["All Labels"]
            file["All Labels"] = h5py.ExternalLink(str(secret), "/x")
        elif damage == "storage":
            del file["All Labels/data/v1/features"]
            file.create_dataset("All Labels/data/v1/features", (1, 7), "f4", external=[(str(secret), 0, 28)])
        elif damage in ("columns", "words"):
            del file["All Labels/data/v1/features"]
            file["All Labels/data/v1/features"] = np.zeros((1, 5)) if damage == "columns" else np.array([[b"a"]])
    if damage == "storage":
        # One video is one row.
        found = read("mosei", tmp_path)
        (row,) = found.problems
        assert found.clips == [] and row["reason"] == "row" and "another file" in row["detail"]
        return
    with pytest.raises(CorpusError, match="CMU_MOSEI_Labels.csd") as caught:
        read("mosei", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["standard_train_fold = [open('x')]", "standard_train_fold = 3", "standard_train_fold = [", "\0"]
)
def test_folds_are_read_and_not_run(mosei, text):
    (mosei / "cmu_mosei_std_folds.py").write_text(text)
    with pytest.raises(CorpusError, match="std_folds.py"):
        read("mosei", mosei)


def test_a_damaged_video_is_one_row(mosei):
    with h5py.File(mosei / "CMU_MOSEI_Labels.csd", "a") as file:
        del file["All Labels/data/v2/intervals"]
        del file["All Labels/data/v3/features"]
        file["All Labels/data/v3/features"] = np.zeros((2, 7))
    found = read("mosei", mosei)
    assert {clip["dialogue"] for clip in found.clips} == {"v1", "v4"}
    assert [row["detail"].split(":")[0] for row in found.problems if row["reason"] == "row"] == ["video v2", "video v3"]
