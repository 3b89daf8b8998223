"""The frame of a clip that shows most: where it is furthest along the way on which it leaves its rest and comes back to it.

An expression rises, has its apex and falls (Ekman and Friesen 1978), and a clip begins and ends nearer to its rest than to its
apex. So rest is looked for at the ends, not in the mean of the frames, of which a still clip of a strong expression is full.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from pipeline.storage.jpeg import decode

#: Pixels of a side that frames are compared at; grey levels (squared) below which nothing moves.
SIDE, STILL = 64, 1.0
#: Where the apex may be, shares of the clip.
APEXES = np.linspace(0.1, 1.0, 13)
#: How much less likely the apex is towards the ends: power of half a sine.
PRIOR = 0.25
#: Steps per pixel that heads are held still to.
FINE = 8
#: Pixels that a head is followed.
REACH = 4


def find_peak(jpegs: Sequence[bytes]) -> int:
    """Index of the peak frame; the middle one when nothing moves, or of fewer than three.

    Frames are held still against each other, as far as a head only moves across the picture, and lose their mean brightness.
    Of all courses that rise to an apex and fall again, the one that most of the movement follows is taken; frames are put in
    order along the direction in which pictures change with it. A blink or a syllable is one frame long: neighbours count too.
    """
    middle = len(jpegs) // 2
    if len(jpegs) < 3:
        return middle
    frames = np.stack([_read(data) for data in jpegs])
    frames -= frames.mean((1, 2), keepdims=True)
    if np.square(frames - frames.mean(0)).mean((1, 2)).max() <= STILL:
        return middle
    rows = hold_still(frames).reshape(len(frames), -1)
    rows -= rows.mean(0)
    alike = rows @ rows.T
    courses = [_draw_course(len(rows), apex) for apex in APEXES]
    along = alike @ max(courses, key=lambda course: float(course @ alike @ course))
    along = (along - along.min()) / max(float(np.ptp(along)), 1e-9)
    before, after = np.append(along[:1], along[:-1]), np.append(along[1:], along[-1:])
    likely = np.sin(np.pi * (np.arange(len(rows)) + 0.5) / len(rows)) ** PRIOR
    return int(((before + 2 * along + after) * likely).argmax())


def hold_still(frames: np.ndarray) -> np.ndarray:
    """(T, H, W) frames → the same, moved so that they lie on their median: phase correlation (Kuglin and Hines 1975)."""
    target = np.conj(np.fft.fft2(np.median(frames, 0)))
    return np.stack([_move(frame, *_find_shift(frame, target)) for frame in frames])


def _read(data: bytes) -> np.ndarray:
    return np.asarray(decode(data).convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)


def _draw_course(count: int, apex: float) -> np.ndarray:
    """(count,) from rest to the apex and back, without its mean and of length 1."""
    at = np.arange(count) / (count - 1)
    share = np.minimum(at / apex, (1 - at) / (1 - apex) if apex < 1 else 1)
    course = np.sin(np.pi / 2 * np.clip(share, 0, 1)) ** 2
    course -= course.mean()
    return np.asarray(course / np.linalg.norm(course))


def _find_shift(frame: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Rows and columns by which a frame lies off the picture with the conjugate spectrum `target`."""
    cross = np.fft.fft2(frame) * target
    strength = np.abs(cross)
    # Every frequency counts alike, but those that hardly anything is in.
    cross /= strength + 0.1 * strength.mean() + 1e-9
    height, width = frame.shape
    near = np.fft.ifft2(cross).real
    row, column = np.unravel_index(near.argmax(), near.shape)
    # The spectrum at steps of a fraction of a pixel around the best whole one.
    fine = np.arange(-FINE, FINE + 1) / FINE
    rows, columns = (row + height // 2) % height - height // 2 + fine, (column + width // 2) % width - width // 2 + fine
    left = np.exp(2j * np.pi * np.outer(rows, np.fft.fftfreq(height)))
    right = np.exp(2j * np.pi * np.outer(np.fft.fftfreq(width), columns))
    best = np.unravel_index((left @ cross @ right).real.argmax(), (len(fine), len(fine)))
    down, across = float(rows[best[0]]), float(columns[best[1]])
    return float(np.clip(down, -REACH, REACH)), float(np.clip(across, -REACH, REACH))


def _move(frame: np.ndarray, down: float, across: float) -> np.ndarray:
    """The picture that lies (down, across) further, where it was looked for; its edge goes on beyond it."""
    for axis, by in enumerate((down, across)):
        at = np.clip(np.arange(frame.shape[axis]) + by, 0, frame.shape[axis] - 1)
        low = np.floor(at).astype(int)
        share = np.expand_dims(at - low, 1 - axis)
        high = np.minimum(low + 1, frame.shape[axis] - 1)
        frame = (1 - share) * frame.take(low, axis) + share * frame.take(high, axis)
    return frame
