"""Which frame represents which moment, whatever the file does to make that hard."""

from __future__ import annotations

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.data.decode import plain
from pipeline.data.decode.errors import DecodeError
from pipeline.data.decode.probe import probe
from pipeline.data.decode.timeline import segments
from pipeline.data.decode.video import read_frames
from pipeline.params import DecodeVideo

STEADY = [i / 25 for i in range(75)]
#: Slow, fast, a long hold, fast: 60 frames in three seconds.
UNEVEN = [*(i * 0.1 for i in range(10)), *(1 + i * 0.02 for i in range(25)), *(2 + i * 0.04 for i in range(25))]
SPEC = DecodeVideo(fps=4, size=None, max_frames=64)


def shown(times, moment):
    return max(i for i, t in enumerate(times) if t <= moment + 1e-3)


def numbers(frames, make):
    return [make.number(j) for j in frames.jpegs]


def tone(seconds, rate=44100):
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate, dtype=np.float32)[None]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts"])
@pytest.mark.parametrize("times", [STEADY, UNEVEN], ids=["steady", "uneven"])
def test_each_segment_shows_what_a_player_shows_at_its_middle(tmp_path, make, name, times):
    frames = read_frames(make.film(tmp_path / name, times), SPEC)
    assert frames.times.dtype == np.float32 and frames.times.shape == (12, 2)
    np.testing.assert_allclose(frames.times[:, 0], np.arange(12) / 4, atol=1e-6)
    assert frames.times[-1, 1] == pytest.approx(3.0, abs=0.05)
    assert numbers(frames, make) == [shown(times, (k + 0.5) / 4) for k in range(11)] + [
        shown(times, float(frames.times[-1].mean()))
    ]


def test_decord_gives_the_same_files_and_is_kept_from_what_it_gets_wrong(tmp_path, make):
    steady = make.film(tmp_path / "a.mp4", STEADY, sound=tone(3))
    assert read_frames(steady, SPEC, reader="decord").jpegs == read_frames(steady, SPEC, reader="pyav").jpegs
    for name, options in {"vfr.mp4": {}, "turned.mp4": {"rotation": 90}, "a.mkv": {}}.items():
        path = make.film(tmp_path / name, UNEVEN if name == "vfr.mp4" else STEADY, **options)
        with pytest.raises(ValueError, match="trusted"):
            read_frames(path, SPEC, reader="decord")


def test_a_decord_that_fails_is_replaced(tmp_path, make, monkeypatch):
    path = make.film(tmp_path / "a.mp4", STEADY)
    expected = read_frames(path, SPEC, reader="pyav").jpegs
    genuine = plain.read

    def gives_up(*args):
        for given, shot in enumerate(genuine(*args)):
            if given == after:
                raise plain.Refused
            yield shot

    monkeypatch.setattr(plain, "read", gives_up)
    for after in (0, 5):  # noqa: B007 - `gives_up` reads it
        assert read_frames(path, SPEC).jpegs == expected


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_honoured(tmp_path, make, rotation):
    def corner(number, width, height):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[: height // 2, : width // 2] = 255
        return picture

    path = make.film(tmp_path / "a.mp4", STEADY[:10], rotation=rotation, picture=corner)
    facts = probe(path)
    assert facts.rotation == rotation
    expected = np.rot90(corner(0, 128, 64), rotation // 90)
    picture = np.asarray(Image.open(io.BytesIO(read_frames(path, SPEC).jpegs[0])))
    assert picture.shape == expected.shape == (facts.height, facts.width, 3)
    assert np.abs(picture.astype(int) - expected).mean() < 8


def test_pixels_that_are_not_square(tmp_path, make):
    path = make.film(tmp_path / "a.mp4", STEADY[:10], shape=Fraction(2))
    assert (probe(path).width, probe(path).height) == (256, 64)
    assert Image.open(io.BytesIO(read_frames(path, SPEC).jpegs[0])).size == (256, 64)


def test_a_picture_that_starts_late_keeps_its_times(tmp_path, make):
    path = make.film(tmp_path / "a.mp4", [0.6 + t for t in STEADY], sound=tone(3.6))
    frames = read_frames(path, SPEC)
    np.testing.assert_allclose(frames.times[0], [0.5, 0.75], atol=1e-6)
    assert numbers(frames, make)[:3] == [shown(STEADY, m - 0.6) for m in (0.625, 0.875, 1.125)]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("gop", [5, 250])
def test_a_cut_is_the_same_moments_from_zero(tmp_path, make, name, gop):
    times = [i / 25 for i in range(250)]
    path = make.film(tmp_path / name, times, gop=gop)
    frames = read_frames(path, SPEC, 6.3, 8.05)
    np.testing.assert_allclose(frames.times[:, 0], np.arange(7) / 4, atol=1e-6)
    assert frames.times[-1, 1] == pytest.approx(1.75)
    assert numbers(frames, make) == [shown(times, 6.3 + (k + 0.5) / 4) for k in range(7)]
    tail = read_frames(path, SPEC, 9.0)
    assert numbers(tail, make)[0] == shown(times, 9.125) and tail.times[-1, 1] == pytest.approx(1.0, abs=0.05)
    with pytest.raises(DecodeError) as error:
        read_frames(path, SPEC, 11.0, 12.0)
    assert error.value.reason == "out_of_range"


def test_long_clips_are_thinned_evenly(tmp_path, make):
    path = make.film(tmp_path / "a.mp4", STEADY)
    frames = read_frames(path, DecodeVideo(fps=25, size=None, max_frames=6))
    np.testing.assert_allclose(frames.times, np.stack([np.arange(6), np.arange(1, 7)], 1) * 0.5, atol=1e-3)
    assert numbers(frames, make) == [shown(STEADY, 0.25 + 0.5 * k) for k in range(6)]


def test_size_is_the_shorter_side_and_bytes_repeat(tmp_path, make):
    path = make.film(tmp_path / "a.mp4", STEADY[:20])
    frames = read_frames(path, DecodeVideo(fps=4, size=32))
    assert Image.open(io.BytesIO(frames.jpegs[0])).size == (64, 32)
    assert read_frames(path, DecodeVideo(fps=4, size=32)).jpegs == frames.jpegs
    assert Image.open(io.BytesIO(read_frames(path, DecodeVideo(fps=4, size=256)).jpegs[0])).size == (128, 64)


def test_a_single_frame_is_a_clip(tmp_path, make):
    frames = read_frames(make.film(tmp_path / "a.mp4", [0.0]), SPEC)
    assert numbers(frames, make) == [0] and frames.times.shape == (1, 2)


def test_a_folder_of_pictures_is_a_film(tmp_path, make):
    folder = tmp_path / "clip"
    folder.mkdir()
    for i in range(50):
        Image.fromarray(make.coded(i)).save(folder / f"{i}.png")  # 10.png sorts before 9.png by letters
    assert numbers(read_frames(folder, SPEC), make) == [shown(STEADY, (k + 0.5) / 4) for k in range(8)]
    (folder / "fps.txt").write_text("10")
    assert probe(folder).duration == 5.0
    assert numbers(read_frames(folder, SPEC, 1.0, 2.0), make) == [11, 13, 16, 18]


def test_reasons(tmp_path, make):
    def reason(path):
        with pytest.raises(DecodeError) as error:
            read_frames(path, SPEC)
        assert "\n" not in str(error.value)
        return error.value.reason

    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("This is not a film.\n" * 100)
    (tmp_path / "folder").mkdir()
    whole = make.film(tmp_path / "a.mp4", STEADY, container_options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 6 // 10])
    late = make.film(tmp_path / "b.mp4", STEADY).read_bytes()  # index at the end
    (tmp_path / "headless.mp4").write_bytes(late[: len(late) // 2])
    assert reason(tmp_path / "nowhere.mp4") == "missing"
    assert reason(tmp_path / "empty.mp4") == reason(tmp_path / "folder") == "empty"
    assert reason(tmp_path / "text.mp4") == reason(tmp_path / "headless.mp4") == "unreadable"
    assert reason(tmp_path / "cut.mp4") == "truncated"


@pytest.mark.parametrize("playlist", ["#EXTM3U\n#EXTINF:1,\n{}\n", "ffconcat version 1.0\nfile {}\n"])
def test_playlists_open_no_other_file(tmp_path, make, playlist):
    film = make.film(tmp_path / "a.mp4", STEADY[:5])
    path = tmp_path / "list.mp4"
    path.write_text(playlist.format(film.name))
    with pytest.raises(DecodeError):
        probe(path)


def test_segments():
    np.testing.assert_allclose(segments(1.1, 4, 64), [[0, 0.25], [0.25, 0.5], [0.5, 0.75], [0.75, 1.1]])
    np.testing.assert_allclose(segments(0.9, 4, 64)[-1], [0.75, 0.9])
    assert segments(0.0, 4, 64).tolist() == [[0.0, 0.0]]
    assert len(segments(1000, 25, 10)) == 10


def test_a_real_film(real):
    path = next((real / "ravdess" / "video").glob("*.mp4"))
    facts = probe(path)
    assert (facts.width, facts.height, facts.audio_rate, facts.channels) == (1280, 720, 48000, 2)
    decord, pyav = (read_frames(path, DecodeVideo(fps=1), reader=r) for r in ("decord", "pyav"))
    assert decord.jpegs == pyav.jpegs and len(pyav.jpegs) == 3


#: Display matrices (a, b, c, d) and what a player shows of a stored picture.
SHOWN = {
    (1, 0, 0, 1): lambda p: p,
    (-1, 0, 0, 1): lambda p: p[:, ::-1],
    (1, 0, 0, -1): lambda p: p[::-1],
    (-1, 0, 0, -1): lambda p: p[::-1, ::-1],
    (0, 1, 1, 0): lambda p: p.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda p: p.transpose(1, 0, 2)[::-1, ::-1],
    (0, 1, -1, 0): lambda p: np.rot90(p, 3),
    (0, -1, 1, 0): lambda p: np.rot90(p, 1),
}


@pytest.mark.parametrize("matrix", sorted(SHOWN))
def test_a_display_matrix_turns_and_mirrors(tmp_path, make, matrix):
    """A mirrored picture has the angle of a turned one; only the signs tell them apart."""

    def corner(number, width, height):
        picture = np.zeros((height, width, 3), np.uint8)
        picture[: height // 2, : width // 4] = 255
        return picture

    path = make.film(tmp_path / "a.mp4", STEADY[:10], picture=corner)
    content = path.read_bytes()
    plain = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    at = content.index(plain, content.index(b"tkhd"))  # the film's own, not the movie's
    a, b, c, d = (65536 * value for value in matrix)
    path.write_bytes(content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + len(plain) :])
    expected = SHOWN[matrix](corner(0, 128, 64))
    picture = np.asarray(Image.open(io.BytesIO(read_frames(path, SPEC).jpegs[0])))
    facts = probe(path)
    assert picture.shape == expected.shape == (facts.height, facts.width, 3)
    assert np.abs(picture.astype(int) - expected).mean() < 8
    assert facts.mirrored == (matrix[0] * matrix[3] - matrix[1] * matrix[2] < 0)


def test_of_several_streams_the_longest_is_the_film(tmp_path):
    """A camera's thumbnail, one picture of another size, stands before the film; of two as long the first is taken."""
    for name, films in {"thumb.mov": [(64, 48, 1), (128, 64, 50)], "two.mov": [(128, 64, 50), (64, 48, 50)]}.items():
        with av.open(str(tmp_path / name), "w") as container:
            streams = []
            for width, height, count in films:
                stream = container.add_stream("libx264", rate=25)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                streams.append((stream, count))
            for stream, count in streams:
                for i in range(count):
                    frame = av.VideoFrame.from_ndarray(np.full((stream.height, stream.width, 3), 4 * i, np.uint8), format="rgb24")
                    frame.pts = i
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
        facts, found = probe(tmp_path / name), read_frames(tmp_path / name, SPEC)
        assert (facts.width, facts.height) == (128, 64) and facts.duration == pytest.approx(2.0, abs=0.05)
        assert Image.open(io.BytesIO(found.jpegs[0])).size == (128, 64) and len(found.jpegs) == 8
