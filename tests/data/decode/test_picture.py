"""What of a picture is kept."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.data.decode.picture import shrink, take_half
from pipeline.data.decode.video import read_frames
from pipeline.data.hashing import identify_clip
from pipeline.params import DecodeVideo

SPEC = DecodeVideo(fps=4, size=None)


def ramp(width, height=8):
    """Each column as bright as its number, times ten."""
    return np.repeat(np.tile(10 * np.arange(width, dtype=np.uint8), (height, 1))[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("width", "half", "columns"),
    [(8, "left", range(4)), (8, "right", range(4, 8)), (7, "left", range(3)), (7, "right", range(3, 7)), (8, None, range(8))]
    + [(1, "left", range(1)), (1, "right", range(1))],
)
def test_halves(width, half, columns):
    kept = np.asarray(take_half(Image.fromarray(ramp(width)), half))
    assert kept[0, :, 0].tolist() == [10 * column for column in columns] and kept.shape[0] == 8
    with pytest.raises(ValueError, match="left, right or None"):
        take_half(Image.new("RGB", (8, 8)), "top")


def test_a_half_is_taken_before_the_picture_is_made_smaller():
    """The side that is reduced is that of the half."""
    assert shrink(take_half(Image.new("RGB", (640, 240)), "left"), 120).size == (160, 120)


@pytest.mark.parametrize("reader", ["pyav", "decord"])
@pytest.mark.parametrize("half", ["left", "right"])
def test_both_readers_and_folders_take_the_half(tmp_path, reader, half):
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, :64], picture[:, 64:] = (200, 30, 30), (30, 30, 200)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for _ in range(16):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "f").mkdir()
    for number in range(8):
        Image.fromarray(picture).save(tmp_path / f"f/{number}.png")
    for found in (
        read_frames(tmp_path / "a.mp4", SPEC, half=half, reader=reader),
        read_frames(tmp_path / "a.mp4", SPEC, 1.0, 9.0, half, reader="pyav"),  # beyond its end
        read_frames(tmp_path / "f", SPEC, half=half),
    ):
        for jpeg in found.jpegs:
            kept = np.asarray(Image.open(io.BytesIO(jpeg)))[:, 4:-4].mean((0, 1))
            assert kept[0 if half == "left" else 2] > 180 and kept[2 if half == "left" else 0] < 60


def test_the_half_is_part_of_the_clips_identity():
    row, hashes = {"video": "a.avi", "audio": "a.wav", "start": 1.0, "end": 2.0}, {"a.avi": "h", "a.wav": "g"}
    found = {identify_clip(row | {"half": half}, hashes) for half in ("left", "right", None)}
    assert len(found) == 3 and identify_clip(row, hashes) in found
    alone = {"audio": "a.wav", "half": "left"}
    assert identify_clip(alone, hashes) == identify_clip(alone | {"half": "right"}, hashes), "no picture, no half"
