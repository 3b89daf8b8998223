"""Faces through the frames of a clip: link, choose one, fill short gaps, steady the box."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.params import Faces

from .detection import Box, Detection, Eyes, area, overlap

#: Boxes of neighbouring frames that overlap less are different faces.
LINK = 0.3
#: Seconds after which a lost face is not looked for any more.
LOST = 2.0


@dataclass
class Track:
    """One face.

    Attributes:
        boxes: frame number → where it is.
        filled: frames that lie between two detections and have none themselves.
        heard: it was chosen because its mouth moves with the sound.
    """

    boxes: dict[int, Detection] = field(default_factory=dict)
    filled: frozenset[int] = frozenset()
    heard: bool = False

    @property
    def last(self) -> int:
        return max(self.boxes)


def link(found: Sequence[Sequence[Detection]], times: np.ndarray) -> list[Track]:
    """Detections of each frame → tracks. Best overlaps are linked first; a detection belongs to one track.

    Args:
        found: detections of T frames.
        times: (T, 2) seconds.
    """
    middles = np.asarray(times, dtype=np.float64).mean(1)
    tracks: list[Track] = []
    for number, detections in enumerate(found):
        alive = [track for track in tracks if middles[number] - middles[track.last] <= LOST]
        pairs = [
            (overlap(track.boxes[track.last].box, one.box), i, j)
            for i, track in enumerate(alive)
            for j, one in enumerate(detections)
        ]
        linked, given = set(), set()
        for share, i, j in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2])):
            if share < LINK or i in linked or j in given:
                continue
            linked.add(i)
            given.add(j)
            alive[i].boxes[number] = detections[j]
        tracks.extend(Track({number: one}) for j, one in enumerate(detections) if j not in given)
    return tracks


def choose(tracks: Sequence[Track], size: tuple[int, int], choice: str) -> Track | None:
    """The face of the clip, or None.

    `persistent`: in most frames, then the larger; `largest`: by mean area, times the share of frames it is
    in; `central`: mean distance from the middle of the picture, among tracks half as long as the longest.

    Args:
        size: (width, height) of the pictures.
    """
    if not tracks:
        return None
    frames = 1 + max(track.last for track in tracks)

    def large(track: Track) -> float:
        return float(np.mean([area(one.box) for one in track.boxes.values()]))

    def off(track: Track) -> float:
        centres = np.array(
            [((b[0] + b[2]) / 2 / size[0], (b[1] + b[3]) / 2 / size[1]) for b in (one.box for one in track.boxes.values())]
        )
        return float(np.linalg.norm(centres - 0.5, axis=1).mean())

    if choice == "largest":
        return max(tracks, key=lambda t: (large(t) * len(t.boxes) / frames, -off(t)))
    if choice == "central":
        longest = max(len(track.boxes) for track in tracks)
        return min((t for t in tracks if 2 * len(t.boxes) >= longest), key=lambda t: (off(t), -large(t)))
    return max(tracks, key=lambda t: (len(t.boxes), large(t), -off(t)))


def fill(track: Track, times: np.ndarray, gap: float) -> Track:
    """Interpolate boxes (and eyes) between detections no more than `gap` seconds of frames apart.

    A face hidden longer is not invented: those frames stay without a face.
    """
    times = np.asarray(times, dtype=np.float64)
    boxes, filled = dict(track.boxes), set()
    known = sorted(track.boxes)
    for before, after in zip(known, known[1:], strict=False):
        inside = range(before + 1, after)
        if not inside or times[after, 0] - times[before, 1] > gap + 1e-6:
            continue
        a, b = track.boxes[before], track.boxes[after]
        for number in inside:
            share = (times[number].mean() - times[before].mean()) / (times[after].mean() - times[before].mean())
            boxes[number] = Detection(_between(a.box, b.box, share), 0.0, _eyes(a, b, share))
            filled.add(number)
    return Track(dict(sorted(boxes.items())), frozenset(filled))


def _between(a: Box, b: Box, share: float) -> Box:
    left, top, right, bottom = (float((1 - share) * x + share * y) for x, y in zip(a, b, strict=True))
    return left, top, right, bottom


def _eyes(a: Detection, b: Detection, share: float) -> Eyes | None:
    if a.eyes is None or b.eyes is None:
        return None
    x0, y0, x1, y1 = _between((*a.eyes[0], *a.eyes[1]), (*b.eyes[0], *b.eyes[1]), share)
    return (x0, y0), (x1, y1)


def steady(track: Track) -> Track:
    """Boxes averaged with their neighbours (1-2-1): detectors move by a few pixels where the face does not."""
    boxes = dict(track.boxes)
    for number, one in track.boxes.items():
        before, after = (track.boxes.get(number + step, one).box for step in (-1, 1))
        left, top, right, bottom = (
            (low + 2 * middle + high) / 4 for low, middle, high in zip(before, one.box, after, strict=True)
        )
        boxes[number] = replace(one, box=(left, top, right, bottom))
    return Track(boxes, track.filled)


def follow(
    found: Sequence[Sequence[Detection]],
    times: np.ndarray,
    size: tuple[int, int],
    spec: Faces,
    listen: Callable[[list[Track]], Track | None] | None = None,
) -> Track | None:
    """Link, choose, fill and steady; None when no frame has a face.

    Args:
        listen: of several tracks the one that speaks, or None when that cannot be told: then the largest is taken.
    """
    tracks = link(found, times)
    if listen is not None and len(tracks) > 1:
        heard = listen([steady(fill(track, times, spec.gap)) for track in tracks])
        if heard is not None:
            return replace(heard, heard=True)
    chosen = choose(tracks, size, "largest" if spec.choice == "speaking" else spec.choice)
    return None if chosen is None else steady(fill(chosen, times, spec.gap))
