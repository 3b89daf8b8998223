"""AFEW-VA's landmarks become boxes in the pixels of the sampled frames."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from pipeline.data.faces import landmarks


def points(x: float, y: float, width: float, height: float) -> np.ndarray:
    """68 points that span a box, with level eyes at a third of its height."""
    result = np.tile([x + width / 2, y + height / 2], (68, 1)).astype(float)
    result[0], result[8] = (x, y), (x + width, y + height)
    result[36:42] = x + width / 4, y + height / 3
    result[42:48] = x + 3 * width / 4, y + height / 3
    return result


@pytest.fixture
def clip(tmp_path):
    """Ten frames of 400 × 200; frame 3 has no landmarks, frame 4 broken ones."""
    folder = tmp_path / "001"
    folder.mkdir()
    frames = {}
    for i in range(10):
        Image.new("RGB", (400, 200)).save(folder / f"{i:05d}.png")
        frames[f"{i:05d}"] = {"valence": 1, "arousal": 2, "landmarks": points(100 + 10 * i, 40, 80, 100).tolist()}
    del frames["00003"]["landmarks"]
    frames["00004"]["landmarks"][5] = [None, 3]
    (folder / "001.json").write_text(json.dumps({"video_id": "001", "actor": "a", "frames": frames}))
    (folder / "fps.txt").write_text("10")
    return folder


def test_boxes_scale_with_the_sampled_frame(clip):
    times = np.stack([np.arange(5) / 5, (np.arange(5) + 1) / 5], 1)  # middles 0.1, 0.3 … = frames 1, 3, 5, 7, 9
    found = landmarks.detections(clip, times, (200, 100), None)
    assert [one is not None for one in found] == [True, False, True, True, True]
    assert found[0].box == pytest.approx((55, 20, 95, 70))
    assert found[0].eyes == (pytest.approx((65, 20 + 50 / 3)), pytest.approx((85, 20 + 50 / 3)))
    later = landmarks.detections(clip, times[:1], (400, 200), 0.4)
    assert later[0].box == pytest.approx((150, 40, 230, 140))  # 0.4 + 0.1 s is frame 5


def test_broken_points_and_foreign_files_are_left_to_the_detector(clip, tmp_path):
    assert sorted(landmarks.read(clip)) == [0, 1, 2, 5, 6, 7, 8, 9]
    assert landmarks.read(tmp_path) == {}
    for text in ("{", "[]", '{"frames": [1]}', '{"frames": {"00000": 3}}'):
        (clip / "001.json").write_text(text)
        assert landmarks.read(clip) == {}
        assert landmarks.detections(clip, np.zeros((2, 2)), (10, 10), None) == [None, None]
