"""Whose mouth moves with the sound: among the faces of a clip, the one that speaks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from PIL import Image

from .detection import Box
from .track import Track

#: A face is compared at this many pixels square, and may have moved by so many from frame to frame.
SIDE, REACH = 64, 6
#: Rows and columns of it: the mouth, and the part between brows and nose, which moves with the head alone.
MOUTH, STILL = (slice(40, 60), slice(14, 50)), (slice(8, 36), slice(8, 56))
#: Steps from frame to frame below which nothing can be told.
LEAST = 6
#: Decibels below the loudest step at which it counts as quiet.
RANGE = 40.0
#: Grey levels of movement that a still mouth has for noise.
NOISE = 1.0
#: Correlation that chance alone does not reach often.
CHANCE = 0.15


def speaker(
    tracks: Sequence[Track], pictures: Sequence[Image.Image], times: np.ndarray, sound: tuple[np.ndarray, int]
) -> Track | None:
    """The track whose mouth moves most when the sound is loud; None when no mouth follows it, or it does not vary.

    A face that is there half as long as the longest is too short to be compared.

    Args:
        tracks: filled and steadied.
        pictures: T frames.
        times: (T, 2) seconds.
        sound: (S,) float32 from clip start, and its samples per second.
    """
    level = loudness(*sound, np.asarray(times, np.float64).mean(1))
    longest = max((len(track.boxes) for track in tracks), default=0)
    scores = [(follows(movement(track, pictures), level), track) for track in tracks if 2 * len(track.boxes) > longest]
    score, best = max(scores, key=lambda pair: pair[0], default=(0.0, None))
    return best if score > CHANCE else None


def loudness(waveform: np.ndarray, rate: int, middles: np.ndarray) -> np.ndarray:
    """(T - 1,) decibels under the loudest, of the sound between the moments of neighbouring frames."""
    edges = np.clip(np.round(middles * rate).astype(int), 0, len(waveform))
    total = np.concatenate([[0.0], np.cumsum(waveform.astype(np.float64) ** 2)])
    power = (total[edges[1:]] - total[edges[:-1]]) / np.maximum(edges[1:] - edges[:-1], 1)
    if not len(power) or power.max() <= 0:
        return np.zeros(len(power))
    return np.maximum(10 * np.log10(np.maximum(power / power.max(), 1e-12)), -RANGE)


def movement(track: Track, pictures: Sequence[Image.Image]) -> np.ndarray:
    """(T - 1,) mean change of the mouth in grey levels from frame to frame, the head held still.

    NaN where one of the two frames is without the face.
    """
    result = np.full(max(0, len(pictures) - 1), np.nan)
    for number, face in track.boxes.items():
        if number + 1 in track.boxes:
            result[number] = _change(*(_patch(picture, face.box) for picture in pictures[number : number + 2]))
    return result


def _change(before: np.ndarray, after: np.ndarray) -> float:
    """Mean change of the mouth when `after` is shifted to where the rest of the face changes least."""

    def difference(shift: tuple[int, int], part: tuple[slice, slice]) -> float:
        moved = after[shift[0] : shift[0] + SIDE, shift[1] : shift[1] + SIDE]
        return float(np.abs(moved[part] - before[REACH : REACH + SIDE, REACH : REACH + SIDE][part]).mean())

    places = range(2 * REACH + 1)
    # The same place first, so that a picture without any contrast stays where it is.
    shifts = sorted(itertools.product(places, places), key=lambda at: abs(at[0] - REACH) + abs(at[1] - REACH))
    return difference(min(shifts, key=lambda at: difference(at, STILL)), MOUTH)


def follows(moves: np.ndarray, level: np.ndarray) -> float:
    """Correlation of movement and loudness, less for a mouth that hardly moves; 0 when there is too little of either."""
    known = np.isfinite(moves)
    if known.sum() < LEAST:
        return 0.0
    x, y = moves[known] - moves[known].mean(), level[known] - level[known].mean()
    # The noise counts as movement of its own, without the sound.
    spread = np.sqrt((np.mean(x**2) + NOISE**2) * np.mean(y**2))
    return float(np.mean(x * y) / spread) if spread > 0 else 0.0


def _patch(picture: Image.Image, box: Box) -> np.ndarray:
    """(SIDE + 2 REACH,) square grey levels of a box and what lies around it; beyond the picture is black."""
    across, down = (REACH / SIDE * (box[i + 2] - box[i]) for i in (0, 1))
    corners = box[0] - across, box[1] - down, box[2] + across, box[3] + down
    side = 2 * (SIDE + 2 * REACH)
    cut = picture.convert("L").transform((side, side), Image.Transform.EXTENT, corners, Image.Resampling.BILINEAR)
    return np.asarray(cut.reduce(2), np.float32)
