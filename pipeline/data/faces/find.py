"""The face of one clip: detected in its frames, followed, cut out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.params import Faces
from pipeline.storage.feature_store import Entry
from pipeline.storage.jpeg import decode
from pipeline.storage.media_store import absent_entry, join_files

from . import detect, landmarks
from .crop import crop
from .track import follow


def find_face(
    spec: Faces, clip: tuple[Sequence[bytes], np.ndarray], *, folder: Path | None = None, start: float | None = None
) -> Entry:
    """Crops of one clip, as `join_files` has them.

    Args:
        clip: JPEGs of the sampled frames, and their (T, 2) seconds.
        folder: the clip's own folder of frames if it is one, where landmarks may lie.
        start: seconds of the medium the clip starts at.

    Returns:
        A row per frame with the face. `extras`: `boxes` (rows, 4) in pixels of the frame, `scores` (rows,), and
        `filled` (rows,), whether the box was bridged between two detections.
    """
    items, times = clip
    pictures = [decode(item) for item in items]
    size, see = pictures[0].size, detect.detector(spec)
    given: list[detect.Detection | None] = [None] * len(pictures)
    if spec.landmarks and folder:
        given = landmarks.detections(folder, times, size, start)
    found = [[] if one is not None else see(picture) for one, picture in zip(given, pictures, strict=True)]
    track = follow(landmarks.merged(given, found), times, size, spec)
    if track is None:
        return absent_entry(f"no face in {len(pictures)} frames")
    numbers = list(track.boxes)
    entry = join_files([crop(pictures[n], track.boxes[n], spec) for n in numbers], times[numbers])
    entry.extras["boxes"] = np.array([track.boxes[n].box for n in numbers], np.float32)
    entry.extras["scores"] = np.array([track.boxes[n].score for n in numbers], np.float32)
    entry.extras["filled"] = np.array([n in track.filled for n in numbers])
    return entry
