"""The crop is square, ×1.25, centred on the face, upright."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.data.faces.crop import crop, square, tilt
from pipeline.data.faces.detection import Detection
from pipeline.params import Faces

SPEC = Faces(size=100, quality=100)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_square_of_a_tall_box():
    assert square((10, 20, 30, 60), 1.25) == (20, 40, 50)


def test_the_face_fills_four_fifths_of_the_crop():
    image = Image.new("RGB", (200, 200), "white")
    image.paste((255, 0, 0), (60, 60, 140, 140))
    cut = pixels(crop(image, Detection((60, 60, 140, 140)), SPEC))
    assert cut.shape == (100, 100, 3)
    red = (cut[..., 1] < 128).nonzero()
    assert [red[0].min(), red[0].max(), red[1].min(), red[1].max()] == pytest.approx([10, 89, 10, 89], abs=1)


def test_beyond_the_picture_is_black():
    image = Image.new("RGB", (100, 100), "white")
    cut = pixels(crop(image, Detection((-20, 0, 60, 80)), SPEC))
    assert cut[50, 5].max() < 10 and cut[50, 60].min() > 245


@pytest.mark.parametrize("angle", [-25, -10, 15, 30])
def test_tilted_eyes_come_out_level(angle):
    """Two dots on a tilted line are level after alignment, and as far apart."""
    turn = np.radians(angle)
    offset = np.array([np.cos(turn), np.sin(turn)]) * 30
    left, right = np.array([100, 100]) - offset, np.array([100, 100]) + offset
    image = Image.new("RGB", (200, 200), "black")
    for x, y in (left, right):
        image.paste((255, 255, 255), (round(x) - 3, round(y) - 3, round(x) + 4, round(y) + 4))
    face = Detection((60, 60, 140, 140), eyes=(tuple(left), tuple(right)))
    assert tilt(face) == pytest.approx(angle)
    cut = pixels(crop(image, face, SPEC)).mean(2) > 128
    halves = [np.argwhere(cut[:, :50]).mean(0), np.argwhere(cut[:, 50:]).mean(0)]
    assert halves[0][0] == pytest.approx(halves[1][0], abs=1.5)
    assert halves[1][1] + 50 - halves[0][1] == pytest.approx(60, abs=2)
    tilted = pixels(crop(image, face, SPEC.model_copy(update={"align": False}))).mean(2) > 128
    assert abs(np.argwhere(tilted[:, :50]).mean(0)[0] - np.argwhere(tilted[:, 50:]).mean(0)[0]) > 5
