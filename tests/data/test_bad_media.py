"""A bad medium costs that medium: a clip of two files keeps the one that is good."""

from __future__ import annotations

import os

import av
import numpy as np
import polars as pl
import pytest

from pipeline.data import build
from pipeline.data.check import check_corpus
from pipeline.errors import QuarantineError

STUB = b"version https://git-lfs.github.com/spec/v1\noid sha256:9269ed5e\nsize 414429\n"
EMOTIONS = ("ANG", "NEU")


def film(path, seconds=0.5, shade=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flv", rate=16)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for _ in range(round(16 * seconds)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade, np.uint8), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def crema(tmp_path, tone):
    """Six actors, two takes each, sound and film of both."""
    root = tmp_path / "CREMA-D"
    for actor in range(1001, 1007):
        for at, emotion in enumerate(EMOTIONS):
            tone(root / f"AudioWAV/{actor}_DFA_{emotion}_XX.wav", frequency=actor - 800 + 31 * at)
            film(root / f"VideoFlash/{actor}_DFA_{emotion}_XX.flv", shade=10 * (actor - 1000) + 100 * at)
    return root


@pytest.fixture
def made(crema, tmp_path, settings):
    """Manifest and quarantine of the corpus as it lies there."""

    def make(**groups):
        build.build_manifest(
            settings("crema_d", crema, protocol={"kind": "kfold", "folds": 2, "val": 0.2}, **groups), tmp_path / "data"
        )
        return (pl.read_parquet(tmp_path / f"data/{name}.parquet") for name in ("manifest", "quarantine"))

    return make


def test_films_that_are_pointers_cost_no_sound(crema, made, settings, caplog):
    for path in (crema / "VideoFlash").iterdir():
        path.write_bytes(STUB)
    table, lost = made(quarantine={"max_rate": 0.0})
    assert table.height == 12 and table["audio"].null_count() == 0 and table["video"].null_count() == 12
    assert table["duration"].to_list() == [0.5] * 12
    assert lost["reason"].to_list() == ["stub"] * 12 and lost["id"].to_list() == table["id"].to_list()
    assert lost["detail"][0] == "video: fetch the files themselves with `git lfs pull`; the clip stays without it"
    assert lost["media"][0] == "VideoFlash/1001_DFA_ANG_XX.flv"
    assert "12 of 12 clips lost their video" in caplog.text
    found = check_corpus(settings("crema_d", crema, protocol={"kind": "kfold", "folds": 2, "val": 0.2}))
    assert found["modalities"] == {
        "video": {"clips": 0, "lost": 12, "in_use": False},
        "audio": {"clips": 12, "lost": 0, "in_use": True},
        "text": {"clips": 12, "lost": 0, "in_use": False},
    }
    assert (found["clips"], found["failed"], found["quarantine"]) == (12, 0, {"stub": 12})


def test_films_that_are_links_to_nowhere_cost_no_sound(crema, made):
    """As git-annex leaves what nobody fetched."""
    for path in (crema / "VideoFlash").iterdir():
        path.unlink()
        path.symlink_to(f"../.git/annex/objects/{path.name}")
    table, lost = made(quarantine={"max_rate": 0.0})
    assert table.height == 12 and table["audio"].null_count() == 0 and table["video"].null_count() == 12
    assert lost.select("id", "reason").rows() == [(clip, "missing") for clip in table["id"]]


@pytest.mark.parametrize("modality", ["audio", "video"])
@pytest.mark.parametrize("harm", ["empty", "missing", "unreadable", "stub", "pipe", "loop", "too_short"])
def test_either_medium_by_itself(crema, made, tone, modality, harm):
    folder, suffix = {"audio": ("AudioWAV", "wav"), "video": ("VideoFlash", "flv")}[modality]
    path = crema / f"{folder}/1003_DFA_ANG_XX.{suffix}"
    path.unlink()
    if harm == "empty":
        path.touch()
    elif harm == "missing":
        path.symlink_to("nowhere")
    elif harm == "unreadable":
        path.write_bytes(b"not what the name says")
    elif harm == "stub":
        path.write_bytes(STUB)
    elif harm == "pipe":
        os.mkfifo(path)
    elif harm == "loop":
        path.symlink_to(path.name)
    elif harm == "too_short":
        tone(path, seconds=0.02) if modality == "audio" else film(path, seconds=1 / 16)
    table, lost = made()
    (row,) = table.filter(pl.col("id") == "crema_d/1003_DFA_ANG_XX").to_dicts()
    other = {"audio": "video", "video": "audio"}[modality]
    kept = {"audio": "AudioWAV/1003_DFA_ANG_XX.wav", "video": "VideoFlash/1003_DFA_ANG_XX.flv"}[other]
    assert table.height == 12 and row[other] == kept and row["duration"] == pytest.approx(0.5, abs=0.02)
    assert row[f"{other}_hash"] and row[modality] != f"{folder}/1003_DFA_ANG_XX.{suffix}"
    (told,) = lost.to_dicts()
    assert told["media"] == f"{folder}/1003_DFA_ANG_XX.{suffix}"
    assert told["reason"] == {"pipe": "unreadable", "loop": "missing"}.get(harm, harm)


def test_a_clip_is_lost_when_both_are(crema, made, settings):
    take = "1002_DFA_NEU_XX"
    (crema / f"VideoFlash/{take}.flv").write_bytes(STUB)
    (crema / f"AudioWAV/{take}.wav").write_bytes(b"")
    table, lost = made()
    assert table.height == 11 and lost.select("id", "reason").rows() == [
        (f"crema_d/{take}", "empty"),
        (f"crema_d/{take}", "stub"),
    ]
    found = check_corpus(settings("crema_d", crema, protocol={"kind": "kfold", "folds": 2, "val": 0.2}))
    # One clip, whatever the number of its files.
    assert (found["failed"], found["clips"], found["rate"]) == (1, 11, 1 / 12)
    with pytest.raises(QuarantineError, match=r"1 of 12 clips \(8.3%\) failed"):
        made(quarantine={"max_rate": 0.05})


def test_a_film_that_lasts_too_long_costs_the_film(crema, made):
    film(crema / "VideoFlash/1001_DFA_ANG_XX.flv", seconds=6.0)
    table, lost = made(integrity={"max_duration": 5.0})
    row = table.row(0, named=True)
    assert (row["video"], row["audio"], row["duration"]) == (None, "AudioWAV/1001_DFA_ANG_XX.wav", 0.5)
    assert lost["reason"].to_list() == ["too_long"] and lost["detail"][0].startswith("video: 6.0")
