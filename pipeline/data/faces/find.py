"""The face of one clip: detected in its frames, followed, cut out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.params import Faces
from pipeline.storage.feature_store import Entry
from pipeline.storage.jpeg import decode
from pipeline.storage.media_store import absent_entry, join_files

from . import detect, landmarks
from .crop import crop, place
from .detection import Detection
from .speaking import speaker
from .track import follow


def find_face(
    spec: Faces,
    clip: tuple[Sequence[bytes], np.ndarray],
    *,
    folder: Path | None = None,
    start: float | None = None,
    sound: tuple[np.ndarray, int] | None = None,
    device: str = "cpu",
) -> Entry:
    """Crops of one clip, as `join_files` has them.

    Args:
        clip: JPEGs of the sampled frames, and their (T, 2) seconds.
        folder: the clip's own folder of frames if it is one, where landmarks may lie.
        start: seconds of the medium the clip starts at.
        sound: (S,) float32 and its samples per second, for `choice: speaking`; None when there is none.
        device: where `mtcnn` runs.

    Returns:
        A row per frame with the face. `extras`: `boxes` (rows, 4) in pixels of the frame, `scores` (rows,),
        `filled` (rows,), whether the box was bridged between two detections, and `heard` (rows,), whether the face
        was chosen because its mouth moves with the sound. `places` (rows, 4): see `crop.place`.
    """
    items, times = clip
    pictures = [decode(item) for item in items]
    size = pictures[0].size
    given: list[Detection | None] = [None] * len(pictures)
    if spec.landmarks and folder:
        given = landmarks.detections(folder, times, size, start)
    unknown = [picture for one, picture in zip(given, pictures, strict=True) if one is None]
    searched = iter(detect.detector(spec, device)(unknown) if unknown else ())
    found = [[one] if one is not None else next(searched) for one in given]
    listen = partial(speaker, pictures=pictures, times=times, sound=sound) if sound and spec.choice == "speaking" else None
    track = follow(found, times, size, spec, listen)
    if track is None:
        return absent_entry(f"no face in {len(pictures)} frames")
    numbers = list(track.boxes)
    entry = join_files([crop(pictures[n], track.boxes[n], spec) for n in numbers], times[numbers])
    entry.extras["boxes"] = np.array([track.boxes[n].box for n in numbers], np.float32)
    entry.extras["places"] = np.array([place(track.boxes[n].box, size, spec.margin) for n in numbers], np.float32)
    entry.extras["scores"] = np.array([track.boxes[n].score for n in numbers], np.float32)
    entry.extras["filled"] = np.array([n in track.filled for n in numbers])
    entry.extras["heard"] = np.full(len(numbers), track.heard)
    return entry
