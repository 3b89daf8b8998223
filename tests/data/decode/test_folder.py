"""Folders of frames: which files, in which order, how fast."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipeline.data.decode import folder
from pipeline.data.decode.errors import DecodeError
from pipeline.data.decode.probe import probe
from pipeline.data.decode.video import read_frames
from pipeline.data.fact import examine_folder
from pipeline.data.hashing import hash_media
from pipeline.params import DecodeVideo

SPEC = DecodeVideo(fps=5, size=None, max_frames=64)


def reason(function, *args):
    with pytest.raises(DecodeError) as error:
        function(*args)
    return error.value.reason


@pytest.fixture
def frames(tmp_path, make):
    """Ten numbered frames, five a second."""
    place = tmp_path / "clip"
    place.mkdir()
    for i in range(10):
        Image.fromarray(make.coded(i)).save(place / f"take2_{i + 1}.png")
    (place / "fps.txt").write_text("5\n")
    return place


def test_the_order_is_that_of_all_numbers_in_the_names(tmp_path):
    names = ["a1_9.png", "a1_10.png", "a2_1.JPG", "a10_0.webp", "b.bmp"]
    for name in [*names, ".hidden.png", "notes.txt", "a.png.part"]:
        (tmp_path / name).touch()
    assert [path.name for path in folder.images(tmp_path)] == ["b.bmp", *names[:4]]


def test_what_is_no_folder_of_frames(tmp_path):
    assert reason(folder.images, tmp_path / "nowhere") == "missing"
    (tmp_path / ".hidden.png").touch()
    assert reason(folder.images, tmp_path) == "empty" == examine_folder(str(tmp_path)).reason
    (tmp_path / "a.BMP").touch()
    assert examine_folder(str(tmp_path)).video and examine_folder(str(tmp_path)).reason == ""


@pytest.mark.parametrize(("note", "rate"), [(None, 25.0), ("30", 30.0), ("29.97\n", 29.97), ("1000", 1000.0), ("0.001", 0.001)])
def test_the_rate_is_the_notes(tmp_path, note, rate):
    if note:
        (tmp_path / "fps.txt").write_text(note)
    assert folder.rate(tmp_path) == rate


@pytest.mark.parametrize("note", ["", "fast", "0", "-25", "1000.1", "nan", "inf"])
def test_a_note_that_is_no_rate(tmp_path, note):
    (tmp_path / "fps.txt").write_text(note)
    assert reason(folder.rate, tmp_path) == "unreadable"


def test_frames_of_a_cut(frames, make):
    assert probe(frames).duration == 2.0 == probe(frames).video_end
    found = read_frames(frames, SPEC)
    assert [make.number(j) for j in found.jpegs] == list(range(10))
    np.testing.assert_allclose(found.times[-1], [1.8, 2.0], atol=1e-6)
    cut = read_frames(frames, SPEC, 0.4, 1.0)
    assert [make.number(j) for j in cut.jpegs] == [2, 3, 4]
    np.testing.assert_allclose(cut.times, [[0.0, 0.2], [0.2, 0.4], [0.4, 0.6]], atol=1e-6)
    beyond = read_frames(frames, SPEC, 1.6, 9.0)  # what is there
    assert [make.number(j) for j in beyond.jpegs] == [8, 9] and beyond.times[-1, 1] == pytest.approx(0.4)
    assert reason(read_frames, frames, SPEC, 2.0, 3.0) == reason(read_frames, frames, SPEC, 2.0, None) == "out_of_range"
    fast = read_frames(frames, DecodeVideo(fps=10, size=None), 1.8)
    assert [make.number(j) for j in fast.jpegs] == [9, 9]
    slow = read_frames(frames, DecodeVideo(fps=2, size=None))
    assert [make.number(j) for j in slow.jpegs] == [1, 3, 6, 8]  # shown at the middle of each half second
    (frames / "fps.txt").write_text("1")
    finest = read_frames(frames, DecodeVideo(fps=1000, size=None, max_frames=1000), 9.9)
    assert len(finest.jpegs) == 100 and make.number(finest.jpegs[-1]) == 9


def test_pictures_are_turned_as_they_ask_and_damage_is_named(tmp_path, frames):
    picture = Image.fromarray(np.zeros((10, 20, 3), np.uint8))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert folder.picture(tmp_path / "turned.jpg").size == (10, 20)
    Image.new("LA", (4, 4)).save(tmp_path / "grey.png")
    assert folder.picture(tmp_path / "grey.png").mode == "RGB"
    (tmp_path / "none.png").write_bytes(b"no picture")
    assert reason(folder.picture, tmp_path / "none.png") == "unreadable"
    for height in (6000, 10000):  # Pillow warns of the first and refuses the second
        Image.new("1", (20000, height)).save(tmp_path / "huge.png")
        assert reason(folder.picture, tmp_path / "huge.png") == "too_large"


def test_a_picture_that_is_lost_costs_itself(frames, make):
    whole = read_frames(frames, SPEC)
    (frames / "take2_4.png").write_bytes(b"no picture")
    found = read_frames(frames, SPEC)
    assert whole.lost == () and found.lost == ("take2_4.png: unreadable",)
    assert [make.number(j) for j in found.jpegs] == [0, 1, 2, *range(4, 10)]
    np.testing.assert_array_equal(found.times, np.delete(whole.times, 3, 0))
    for path in frames.glob("*.png"):
        path.write_bytes(b"no picture")
    assert reason(read_frames, frames, SPEC) == "unreadable", "not one is left"


def test_a_picture_that_may_be_there_the_next_time_is_not_given_up(frames):
    (frames / "take2_4.png").unlink()
    (frames / "take2_4.png").mkdir()
    assert reason(read_frames, frames, SPEC) == "access"


def test_a_folder_is_identified_by_its_frames_and_their_rate(tmp_path, frames):
    def identity():
        return hash_media([str(frames)])[str(frames)]

    before = identity()
    (frames / ".DS_Store").touch()
    (frames / "notes.txt").touch()
    assert identity() == before is not None
    (frames / "fps.txt").write_text("25")
    faster = identity()
    assert faster != before
    Image.new("RGB", (4, 4)).save(frames / "take2_11.webp")
    assert identity() not in (faster, before)
    for path in frames.glob("*.png"):
        path.unlink()
    assert identity() is not None  # frames of other kinds alone
