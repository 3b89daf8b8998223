"""The stage from a frame store to crops, and the face of a real speaker."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

from pipeline import code
from pipeline.data.decode import video
from pipeline.data.faces import stage
from pipeline.errors import QuarantineError, StoreError
from pipeline.params import DecodeVideo, Faces, Params
from pipeline.storage import jpeg, media_store, tables
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Status


def params(root=".", faces=None, **kwargs) -> Params:
    stream = {"modality": "face", "source": "x", "encoder": "mae", "weights": "random:0"}
    return Params.model_validate(
        {
            "recipe": "t",
            "corpus": {"name": "folder", "root": str(root)},
            "streams": {"face": stream},
            "fusion": {"name": "concat"},
            "run": {"device": "cpu", "workers": 0},
            "faces": {"size": 64} | (faces or {}),
        }
        | kwargs
    )


def store(folder, clips: dict[str, list[Image.Image] | None]) -> None:
    """`tables.parquet` and `frames.h5` of pictures at four per second; None = no video."""
    rows = [
        {"id": clip, "content": f"c-{clip}", "video": None if pictures is None else f"{clip}.mp4"}
        for clip, pictures in sorted(clips.items())
    ]
    tables.write(tables.frame(rows), folder / "manifest.parquet")
    identity = {"kind": "frames", "test": True}
    with ClipCache("frames", identity) as cache:
        for clip, pictures in clips.items():
            if pictures is not None:
                edges = np.arange(len(pictures) + 1) / 4
                times = np.stack([edges[:-1], edges[1:]], 1)
                cache.put({f"c-{clip}": media_store.join_files([jpeg.encode(p, 95) for p in pictures], times)})
        media_store.pack(folder / "frames.h5", rows, "video", cache, identity, {})


def run(folder, **kwargs):
    out = stage.extract_faces(params(**kwargs), folder / "manifest.parquet", folder / "frames.h5", folder / "faces.h5")
    return media_store.Media(out)


@pytest.fixture
def corpus(tmp_path, astronaut, wall):
    moved = [astronaut.crop((60 - 8 * i, 0, 380 - 8 * i, 320)).resize((160, 160)) for i in range(4)]
    face, empty = moved[0], wall.resize((160, 160))
    store(
        tmp_path,
        {"a": [face] * 3, "gone": [face, face, *[empty] * 5, face], "moves": moved, "nobody": [empty] * 2, "silent": None},
    )
    return tmp_path


def test_crops_times_and_masks(corpus):
    found = run(corpus)
    assert found.modality == "face"
    assert [found[clip].status for clip in ("a", "gone", "moves", "nobody", "silent")] == [
        Status.OK,
        Status.OK,
        Status.OK,
        Status.MISSING,
        Status.MISSING,
    ]
    np.testing.assert_array_equal(found["a"].times, [[0, 0.25], [0.25, 0.5], [0.5, 0.75]])
    # Five empty frames are longer than faces.gap: they are masked, and the rows say which moments are there.
    np.testing.assert_array_equal(found["gone"].times, [[0, 0.25], [0.25, 0.5], [1.75, 2]])
    assert jpeg.decode(bytes(found["a"].items[0])).size == (64, 64)
    assert stage.coverage(corpus / "frames.h5", corpus / "faces.h5") == {
        "a": 1,
        "gone": pytest.approx(3 / 8),
        "moves": 1,
        "nobody": 0,
    }


def test_the_crop_follows_the_face(corpus):
    table = run(corpus) and pl.read_parquet(corpus / "faces.parquet").filter(pl.col("id") == "moves")
    assert len(table) == 4
    steps = np.diff(table["left"].to_numpy())
    assert (steps > 1).all() and 6 < table["left"][3] - table["left"][0] < 15
    found = media_store.Media(corpus / "faces.h5")["moves"]
    crops = [np.asarray(jpeg.decode(bytes(item))).astype(float) for item in found.items]
    assert np.corrcoef(crops[0].ravel(), crops[3].ravel())[0, 1] > 0.7


def test_same_input_same_bytes_and_nothing_is_searched_twice(corpus, monkeypatch):
    run(corpus)
    before = {name: (corpus / name).read_bytes() for name in ("faces.h5", "faces.parquet", "faces.quarantine.parquet")}
    monkeypatch.setattr(stage, "search", lambda *_: pytest.fail("searched twice"))
    run(corpus)
    assert before == {name: (corpus / name).read_bytes() for name in before}


def test_a_change_of_choice_is_another_search(corpus):
    first = bytes(run(corpus)["a"].items[0])
    assert bytes(run(corpus, faces={"margin": 2.0})["a"].items[0]) != first


def test_edited_code_is_another_search(corpus, monkeypatch):
    before = run(corpus).identity
    genuine = code._file_digest
    monkeypatch.setattr(code, "_file_digest", lambda path, time: "edited" if path.name == "track.py" else genuine(path, time))
    after = run(corpus).identity
    assert after["code"] != before["code"] and after | {"code": 0} == before | {"code": 0}


def test_failures_are_quarantined_and_not_cached(corpus, monkeypatch):
    def broken(spec, frames, task):
        if task.clip == "a":
            raise ValueError("cannot")
        return search(spec, frames, task)

    search = stage.search
    monkeypatch.setattr(stage, "search", broken)
    with pytest.raises(QuarantineError, match="1 of 5 clips failed.*a: "):
        run(corpus)
    table = pl.read_parquet(corpus / "faces.quarantine.parquet")
    assert table["id"].to_list() == ["a"] and table["stage"].to_list() == ["faces"]
    assert media_store.Media(corpus / "faces.h5")["a"].status == Status.FAILED
    monkeypatch.setattr(stage, "search", search)
    assert run(corpus)["a"].status == Status.OK


def test_landmarks_of_the_corpus_are_used(tmp_path, wall):
    """No detector would find a face on a wall."""
    store(tmp_path, {"001": [wall] * 4})
    folder = tmp_path / "001.mp4"
    folder.mkdir()
    (folder / "fps.txt").write_text("4")
    frames = {}
    for i in range(4):
        wall.save(folder / f"{i:05d}.png")
        frames[f"{i:05d}"] = {"landmarks": [[100 + (p % 2) * 50, 80 + (p % 3) * 30] for p in range(68)]}
    del frames["00003"]
    (folder / f"{folder.name}.json").write_text(json.dumps({"frames": frames}))
    found = run(tmp_path, root=tmp_path)["001"]
    np.testing.assert_array_equal(found.times, [[0, 0.25], [0.25, 0.5], [0.5, 0.75]])
    assert run(tmp_path, root=tmp_path, faces={"landmarks": False})["001"].status == Status.MISSING


def test_frames_must_be_there(tmp_path):
    tables.write(tables.frame([]), tmp_path / "manifest.parquet")
    with pytest.raises(StoreError, match="dvc repro"):
        run(tmp_path)


def test_the_face_of_a_ravdess_speaker_is_in_almost_all_frames(tmp_path, real):
    clip = next((real / "ravdess" / "video").glob("*.mp4"))
    frames = video.read_frames(clip, DecodeVideo())
    store(tmp_path, {"speaker": [jpeg.decode(data) for data in frames.jpegs]})
    found = run(tmp_path)["speaker"]
    assert len(found.items) >= 0.95 * len(frames.jpegs)
    table = pl.read_parquet(tmp_path / "faces.parquet")
    # One person in the middle of the picture, who hardly moves.
    middle = ((table["left"] + table["right"]) / 2 / jpeg.decode(frames.jpegs[0]).width).to_numpy()
    assert (np.abs(middle - 0.5) < 0.1).all() and np.ptp(middle) < 0.05
    assert stage.search(Faces(), str(tmp_path / "frames.h5"), stage.Task("speaker", None, None)).status == Status.OK
