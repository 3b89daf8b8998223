"""Linking, choosing, filling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.faces.detection import Detection
from pipeline.data.faces.track import Track, choose, fill, follow, link, steady
from pipeline.params import Faces


def box(x: float, y: float = 50, side: float = 40) -> Detection:
    return Detection((x, y, x + side, y + side))


def seconds(count: int) -> np.ndarray:
    return np.stack([np.arange(count), np.arange(count) + 1], 1) / 4


def test_two_faces_that_move_stay_two_tracks():
    found = [[box(10 + 4 * t), box(200 - 4 * t)][:: 1 if t % 2 else -1] for t in range(8)]
    tracks = link(found, seconds(8))
    assert len(tracks) == 2 and all(len(track.boxes) == 8 for track in tracks)
    for track in tracks:
        steps = np.diff([one.box[0] for one in track.boxes.values()])
        assert (steps == 4).all() or (steps == -4).all()


@given(st.lists(st.lists(st.integers(0, 300), max_size=4, unique=True), min_size=1, max_size=12))
def test_every_detection_is_in_exactly_one_track(columns):
    found = [[box(x) for x in row] for row in columns]
    tracks = link(found, seconds(len(found)))
    for number, row in enumerate(found):
        linked = [track.boxes[number] for track in tracks if number in track.boxes]
        assert sorted(one.box for one in linked) == sorted(one.box for one in row)


def test_a_face_lost_for_long_is_another_one():
    found = [[box(10)]] + [[] for _ in range(12)] + [[box(10)]]
    assert len(link(found, seconds(14))) == 2
    assert len(link([[box(10)], [], [box(10)]], seconds(3))) == 1


def test_choice_among_faces():
    short_large = Track({0: box(0, 0, 90), 1: box(0, 0, 90)})
    long_small = Track({t: box(10, 10, 20) for t in range(8)})
    central = Track({t: box(130, 90, 30) for t in range(6)})
    tracks, size = [short_large, long_small, central], (300, 200)
    assert choose(tracks, size, "persistent") is long_small
    assert choose(tracks, size, "largest") is short_large
    assert choose(tracks, size, "central") is central
    assert choose([], size, "largest") is None


def test_short_gaps_are_bridged_and_long_ones_are_not():
    track = Track({0: box(0), 3: box(30), 9: box(90)})
    filled = fill(track, seconds(10), gap=0.5)
    assert sorted(filled.boxes) == [0, 1, 2, 3, 9] and filled.filled == {1, 2}
    assert [filled.boxes[t].box[0] for t in (1, 2)] == pytest.approx([10, 20])
    assert filled.boxes[1].score == 0
    assert sorted(fill(track, seconds(10), gap=0).boxes) == [0, 3, 9]


def test_eyes_are_bridged_only_when_both_ends_have_them():
    eyes = ((1.0, 1.0), (3.0, 1.0))
    a, b = Detection((0, 0, 4, 4), eyes=eyes), Detection((4, 4, 8, 8), eyes=((5.0, 5.0), (7.0, 7.0)))
    assert fill(Track({0: a, 2: b}), seconds(3), 1).boxes[1].eyes == ((3.0, 3.0), (5.0, 4.0))
    assert fill(Track({0: a, 2: box(1)}), seconds(3), 1).boxes[1].eyes is None


def test_steady_keeps_even_motion_and_calms_jitter():
    even = Track({t: box(10.0 * t) for t in range(6)})
    assert [steady(even).boxes[t].box[0] for t in range(1, 5)] == [10, 20, 30, 40]
    jitter = Track({t: box(50 + (-1) ** t * 4) for t in range(6)})
    assert np.ptp([steady(jitter).boxes[t].box[0] for t in range(1, 5)]) < 1


def test_follow_without_a_face():
    assert follow([[], [], []], seconds(3), (300, 200), Faces()) is None
