"""What is judged of a clip before and after its media are looked at."""

from __future__ import annotations

import math

import av
import numpy as np
import polars as pl
import pytest
import soundfile

from pipeline.data.checked import check_media
from pipeline.data.fact import Fact
from pipeline.data.integrity import judge, precheck
from pipeline.params import Integrity

LIMITS = Integrity(min_duration=0.5, max_duration=10.0, max_drift=2.0, silence=-60.0)
FILM = Fact(duration=4.0, video=True, audio=True, level=-20.0)


@pytest.mark.parametrize(
    ("start", "end", "fine"),
    [(None, None, True), (1.0, None, True), (None, 1.0, True), (1.0, 2.0, True), (1.0, 1.0, False), (2.0, 1.0, False)]
    + [(None, 0.0, False), (0.0, 0.0, False), (0.0, 0.001, True), (1.0, math.nan, False)],
)
def test_a_cut_has_a_length(tmp_path, start, end, fine):
    (tmp_path / "a.wav").write_bytes(b"sound")
    row, lost = precheck({"id": "a", "audio": "a.wav", "start": start, "end": end}, tmp_path)
    assert [(p["reason"], p["media"]) for p in lost] == ([] if fine else [("empty", "a.wav")])
    assert row["audio"] == ("a.wav" if fine else None)


def verdict(fact=FILM, limits=LIMITS, **row):
    row, rows, keep = judge({"id": "a", "audio": "a.mp4", **row}, {"a.mp4": fact, "b.wav": FILM}, limits)
    return row.get("duration"), [r["reason"] for r in rows], keep


@pytest.mark.parametrize(
    ("length", "reason"), [(0.5, None), (0.499, "too_short"), (0.0, "too_short"), (10.0, None), (10.001, "too_long")]
)
def test_lengths_have_bounds_that_are_allowed_themselves(length, reason):
    fact = Fact(duration=length, audio=True, level=-20.0)
    assert verdict(fact) == (length, [reason] if reason else [], reason is None)


@pytest.mark.parametrize(
    ("expected", "reason"), [(4.0, None), (6.0, None), (2.0, None), (6.001, "drift"), (1.999, "drift"), (None, None)]
)
def test_drift_is_counted_both_ways(expected, reason):
    assert verdict(expected=expected) == (4.0, [reason] if reason else [], reason is None)


@pytest.mark.parametrize(
    ("cut", "length", "reason"),
    [
        ((1.0, 3.0), 2.0, None),
        ((None, 3.0), 3.0, None),
        ((3.0, None), 1.0, None),
        ((2.0, 6.0), 2.0, None),
        ((2.0, 6.1), 2.0, "drift"),
        ((4.5, 5.0), 0.0, "too_short"),
        ((3.6, 4.0), pytest.approx(0.4), "too_short"),
    ],
)
def test_a_cut_lasts_as_long_as_its_medium_lets_it(cut, length, reason):
    assert verdict(start=cut[0], end=cut[1]) == (length, [reason] if reason else [], reason is None)


def test_the_cut_is_what_is_expected_unless_the_annotation_says_more():
    assert verdict(start=1.0, end=3.0, expected=4.5)[1] == ["drift"]
    assert verdict(start=1.0, end=9.0, expected=3.0) == (3.0, [], True)


@pytest.mark.parametrize(("level", "fine"), [(-60.0, True), (-59.9, True), (-60.1, False), (-200.0, False), (None, True)])
def test_silence(level, fine):
    fact = Fact(duration=4.0, video=True, audio=True, level=level)
    assert verdict(fact)[1:] == ([] if fine else ["silent"], fine)
    row, rows, keep = judge({"id": "a", "audio": "a.mp4", "video": "a.mp4"}, {"a.mp4": fact}, LIMITS)
    assert keep and row["video"] == "a.mp4" and row["audio"] == ("a.mp4" if fine else None)
    assert [r["reason"] for r in rows] == ([] if fine else ["silent"])


@pytest.mark.parametrize("track", ["audio", "video"])
def test_a_lost_track_leaves_a_row_and_the_other_stays(track):
    other = {"audio": "video", "video": "audio"}[track]
    fact = Fact(duration=4.0, **{other: True}, level=-20.0, lost={track: ("corrupt", "5 of 5 packets failed")})
    row, (problem,), keep = judge({"id": "a", "audio": "a.mp4", "video": "a.mp4"}, {"a.mp4": fact}, LIMITS)
    assert keep and row[track] is None and row[other] == "a.mp4"
    assert (problem["id"], problem["media"], problem["reason"]) == ("a", "a.mp4", "corrupt")
    assert problem["detail"] == f"{track}: 5 of 5 packets failed; the clip stays without it"
    row, (problem,), keep = judge({"id": "a", track: "a.mp4"}, {"a.mp4": fact}, LIMITS)
    assert not keep and (problem["reason"], problem["detail"]) == ("corrupt", f"{track}: 5 of 5 packets failed")
    assert Fact.load(fact.dump()) == fact


def test_a_film_without_sound_is_no_fault_unless_sound_is_all():
    mute = Fact(duration=4.0, video=True)
    assert judge({"id": "a", "audio": "a", "video": "a"}, {"a": mute}, LIMITS)[1:] == ([], True)
    assert verdict(mute) == (None, ["no_modality"], False)


def test_frame_folders_last_as_long_as_the_annotation_says():
    folder = Fact(video=True)
    assert judge({"id": "a", "video": "f", "expected": 3.0}, {"f": folder}, LIMITS)[0]["duration"] == 3.0
    assert judge({"id": "a", "video": "f"}, {"f": folder}, LIMITS)[0]["duration"] is None
    assert judge({"id": "a", "video": "f", "audio": "b"}, {"f": folder, "b": FILM}, LIMITS)[0]["duration"] == 4.0


def film(path, *, damage: str = ""):
    """Two seconds of picture and sound; the codec named `damage` becomes one that nobody knows."""
    with av.open(str(path), "w") as container:
        picture, voice = container.add_stream("mpeg4", rate=25), container.add_stream("pcm_s16le", rate=8000, layout="mono")
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        for i in range(50):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), i, np.uint8), format="rgb24")))
        container.mux(picture.encode(None))
        wave = (3000 * np.sin(np.arange(16000) * 0.2)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(voice.encode(frame))
        container.mux(voice.encode(None))
    if damage:
        content = path.read_bytes()
        assert damage.encode() in content
        path.write_bytes(content.replace(damage.encode(), damage[:2].encode() + b"NOBODY/KNOWS/IT"[: len(damage) - 2]))
    return path


def test_tracks_nobody_can_decode_become_rows_of_the_manifest(tmp_path, settings):
    root = tmp_path / "corpus"
    root.mkdir()
    film(root / "whole.mkv")
    film(root / "deaf.mkv", damage="A_PCM/INT/LIT")
    film(root / "blind.mkv", damage="V_MPEG4/ISO/ASP")
    rate = 16000
    soundfile.write(root / "calm.wav", 0.003 * np.sin(np.arange(rate) * 0.1) * (np.arange(rate) > rate / 2), rate)
    lines = [f"{name},{name}.mkv,{name}.mkv,joy" for name in ("whole", "deaf", "blind")]
    (root / "clips.csv").write_text("\n".join(["id,video,audio,emotion", *lines, "calm,,calm.wav,sadness"]) + "\n")
    found = check_media(settings("generic", root, {"table": "clips.csv", "levels": ["emotion"]}))
    rows = {r["id"].removeprefix("generic/"): (r["reason"], r["detail"].split(":")[0]) for r in found.quarantine.to_dicts()}
    assert rows == {"deaf": ("unreadable", "audio"), "blind": ("unreadable", "video")} and not found.failures
    table = {r["id"].removeprefix("generic/"): (r["video"], r["audio"], round(r["duration"], 1)) for r in found.table.to_dicts()}
    assert table == {
        "blind": (None, "blind.mkv", 2.0),
        "calm": (None, "calm.wav", 1.0),
        "deaf": ("deaf.mkv", None, 2.0),
        "whole": ("whole.mkv", "whole.mkv", 2.0),
    }
    assert found.table.schema["duration"] == pl.Float64
