"""The stage from a frame store to crops, and the face of a real speaker."""

from __future__ import annotations

import base64
import json

import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageDraw

from pipeline import code
from pipeline.data.decode import video
from pipeline.data.faces import detect, stage
from pipeline.errors import DeviceError, QuarantineError, StoreError
from pipeline.params import DecodeVideo, Faces, Params
from pipeline.reasons import BENIGN
from pipeline.storage import flac, jpeg, media_store, tables
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


def notes(folder) -> dict[str, tuple[str, str]]:
    table = pl.read_parquet(folder / "faces.quarantine.parquet")
    assert set(table["stage"]) <= {"faces"} and set(table["reason"]) <= {"few_faces"} <= BENIGN
    return {row["id"]: (row["media"], row["detail"]) for row in table.to_dicts()}


def test_a_clip_that_shows_few_faces_is_noted_and_stays(corpus):
    """The share is that of `gone`: 3 of 8."""
    found = run(corpus, faces={"min_share": 0.4}, quarantine={"max_rate": 0.0})
    assert notes(corpus) == {
        "gone": ("gone.mp4", "the face is in 3 of 8 frames; the clip stays in use"),
        "nobody": ("nobody.mp4", "no face in 2 frames"),
    }
    assert found["gone"].status == Status.OK and len(found["gone"].items) == 3
    before = (corpus / "faces.h5").read_bytes()
    run(corpus, faces={"min_share": 0.375})
    assert notes(corpus).keys() == {"nobody"}
    run(corpus, faces={"min_share": 0.0})
    assert not notes(corpus)
    # A note decides nothing of what is stored.
    assert (corpus / "faces.h5").read_bytes() == before


def test_the_summary_counts_frames_with_a_face(corpus):
    run(corpus)
    told = json.loads((corpus / "faces.json").read_text())
    assert told == {
        "detector": "mtcnn",
        "clips": 4,
        "frames": 3 + 8 + 4 + 2,
        "with_face": 3 + 3 + 4,
        "few": 1,
        "min_share": 0.25,
        "choice": "persistent",
        "heard": 0,
        "crops": [],
    }


@pytest.mark.parametrize(("most", "clips"), [(1, ["a"]), (2, ["a", "moves"]), (6, ["a", "gone", "moves"])])
def test_crops_for_the_report_only_when_asked_for(corpus, most, clips):
    found = run(corpus, faces={"crops": most})
    crops = json.loads((corpus / "faces.json").read_text())["crops"]
    assert len(crops) == len(clips)
    for text, clip in zip(crops, clips, strict=True):
        small = jpeg.decode(base64.b64decode(text))
        items = found[clip].items
        whole = jpeg.decode(bytes(items[len(items) // 2])).resize(small.size)
        assert small.size == (96, 96) and np.abs(np.asarray(small, float) - np.asarray(whole, float)).mean() < 4


def test_nothing_is_searched_when_no_stream_looks(corpus, monkeypatch):
    stream = {"modality": "video", "source": "x", "encoder": "clip", "weights": "random:0"}
    monkeypatch.setattr(detect, "MTCNN", ("package:facenet_nowhere/data/pnet.pt",))  # nor has the detector to be installed
    found = run(corpus, streams={"video": stream}, faces={"crops": 3, "choice": "speaking"})
    assert {found[clip].status for clip in found.ids} == {Status.MISSING} and not notes(corpus)
    told = json.loads((corpus / "faces.json").read_text())
    assert told["clips"] == told["frames"] == 0 and told["crops"] == []


def sound(folder, clips: dict[str, np.ndarray | None], rate: int = 8000) -> None:
    """`audio.h5` of waveforms; None = no sound."""
    rows = [
        {"id": clip, "content": f"c-{clip}", "audio": None if wave is None else f"{clip}.wav"}
        for clip, wave in sorted(clips.items())
    ]
    identity = {"kind": "audio", "rate": rate}
    with ClipCache("audio", identity) as cache:
        for clip, wave in clips.items():
            if wave is not None:
                times = np.array([[0, len(wave) / rate]], np.float32)
                cache.put({f"c-{clip}": media_store.join_files([flac.encode(wave, rate)], times)})
        media_store.pack(folder / "audio.h5", rows, "audio", cache, identity, {})


@pytest.fixture
def talk(tmp_path, astronaut):
    """Two faces, a large and a small one; the large one moves its mouth in the first half, the small one in the second.
    `first` and `second` are heard then, `mute` is not."""
    large, small = astronaut.crop((120, 20, 330, 250)), astronaut.crop((120, 20, 330, 250)).resize((140, 153))
    pictures = []
    for i in range(24):
        picture = Image.new("RGB", (400, 240), (90, 110, 100))
        for face, x, speaks in ((large, 5, i < 12), (small, 240, i >= 12)):
            face, unit = face.copy(), face.width / 210
            height = (2 + (12 * (i % 2) if speaks else 0)) * unit
            middle, y = 105 * unit, 122 * unit
            ImageDraw.Draw(face).ellipse((middle - 20 * unit, y - height, middle + 20 * unit, y + height), fill=(70, 10, 20))
            picture.paste(face, (x, 5))
        pictures.append(picture)
    store(tmp_path, {"first": pictures, "mute": pictures, "second": pictures})
    wave = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
    early = np.arange(48000) < 24000
    sound(tmp_path, {"first": wave * early, "mute": None, "second": wave * ~early})
    return tmp_path


def listen(folder, **faces) -> dict[str, tuple[str, bool]]:
    out, audio = folder / "faces.h5", folder / "audio.h5"
    stage.extract_faces(params(faces=faces), folder / "manifest.parquet", folder / "frames.h5", out, audio)
    table = pl.read_parquet(folder / "faces.parquet").with_columns(
        pl.when(pl.col("left") < 200).then(pl.lit("large")).otherwise(pl.lit("small")).alias("who")
    )
    return {clip: (part["who"].unique().item(), part["heard"].unique().item()) for (clip,), part in sorted(table.group_by("id"))}


def test_the_mouth_that_moves_with_the_sound_is_followed(talk):
    assert listen(talk, choice="speaking") == {"first": ("large", True), "mute": ("large", False), "second": ("small", True)}
    assert json.loads((talk / "faces.json").read_text())["heard"] == 2


def test_sound_is_identity_only_when_it_is_listened_to(talk):
    listen(talk, choice="speaking")
    spoken = media_store.Media(talk / "faces.h5").identity
    assert spoken["sound"] == {"kind": "audio", "rate": 8000}
    (talk / "audio.h5").unlink()
    with pytest.raises(StoreError, match="audio.h5 is not there"):
        listen(talk, choice="speaking")
    assert listen(talk, choice="largest") == dict.fromkeys(("first", "mute", "second"), ("large", False))
    assert "sound" not in media_store.Media(talk / "faces.h5").identity


def test_a_device_that_is_not_there_is_said_before_the_search(corpus):
    with pytest.raises(DeviceError, match="cuda:99"):
        run(corpus, run={"device": "cuda:99", "workers": 0})
    run(corpus, run={"device": "cuda:99", "workers": 0}, faces={"detector": "whole"})  # makes no use of it


def test_workers_give_the_same_as_this_process(corpus, monkeypatch, tmp_path):
    run(corpus)
    before = (corpus / "faces.h5").read_bytes()
    monkeypatch.setenv("AFFECTORY_CACHE", str(tmp_path / "another"))
    run(corpus, run={"device": "cpu", "workers": 2})
    assert (corpus / "faces.h5").read_bytes() == before


def test_the_crop_follows_the_face(corpus):
    table = run(corpus) and pl.read_parquet(corpus / "faces.parquet").filter(pl.col("id") == "moves")
    assert len(table) == 4
    steps = np.diff(table["left"].to_numpy())
    assert (steps > 1).all() and 6 < table["left"][3] - table["left"][0] < 15
    found = media_store.Media(corpus / "faces.h5")["moves"]
    crops = [np.asarray(jpeg.decode(bytes(item))).astype(float) for item in found.items]
    assert np.corrcoef(crops[0].ravel(), crops[3].ravel())[0, 1] > 0.7


def test_the_store_says_where_in_the_frame_each_crop_was(corpus):
    """The square around the box, 1.25 times its longer side, in shares of 160 pixels."""
    found = run(corpus, faces={"margin": 1.25})
    table = pl.read_parquet(corpus / "faces.parquet")
    for clip, frames in (("gone", 3), ("moves", 4), ("silent", 0)):
        boxes = table.filter(pl.col("id") == clip).select("left", "top", "right", "bottom").to_numpy().astype(float)
        middle, side = (boxes[:, :2] + boxes[:, 2:]) / 2, 1.25 * (boxes[:, 2:] - boxes[:, :2]).max(1, initial=0, keepdims=True)
        assert found[clip].places.shape == (frames, 4)
        np.testing.assert_allclose(found[clip].places, np.hstack([middle - side / 2, middle + side / 2]) / 160, atol=1e-6)
    assert media_store.Media(corpus / "frames.h5")["gone"].places is None


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
    def broken(spec, frames, audio, task):
        if task.clip == "a":
            raise ValueError("cannot")
        return search(spec, frames, audio, task)

    search = stage.search
    monkeypatch.setattr(stage, "search", broken)
    with pytest.raises(QuarantineError, match="1 of 5 clips failed.*a: "):
        run(corpus)
    table = pl.read_parquet(corpus / "faces.quarantine.parquet")
    assert table.select("id", "stage", "reason").rows() == [("a", "faces", "error"), ("nobody", "faces", "few_faces")]
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
    assert len(found.items) == len(frames.jpegs)
    table = pl.read_parquet(tmp_path / "faces.parquet")
    # One person in the middle of the picture, who hardly moves.
    middle = ((table["left"] + table["right"]) / 2 / jpeg.decode(frames.jpegs[0]).width).to_numpy()
    assert (np.abs(middle - 0.5) < 0.1).all() and np.ptp(middle) < 0.05
    assert stage.search(Faces(), str(tmp_path / "frames.h5"), None, stage.Task("speaker", None, None)).status == Status.OK
