"""Landmarks that a corpus brings along: AFEW-VA's 68 points per frame, in `NNN/NNN.json`.

The numbering is that of 300-W: 36–41 is the eye on the left of the picture, 42–47 the one on its right.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pipeline.data.decode import folder

from .detection import Detection

LEFT, RIGHT = slice(36, 42), slice(42, 48)


def read(path: Path) -> dict[int, np.ndarray]:
    """Frame number → (68, 2) pixels of the original frames; {} when the clip brings none.

    A frame whose points are missing or not 68 finite pairs is left out; a detector then has its turn.
    """
    file = path / f"{path.name}.json"
    if not path.is_dir() or not file.is_file():
        return {}
    try:
        frames = json.loads(file.read_text(encoding="utf-8")).get("frames", {})
    except (ValueError, OSError, AttributeError):
        return {}
    result = {}
    for name, entry in frames.items() if isinstance(frames, dict) else ():
        try:
            points = np.asarray(entry["landmarks"], dtype=np.float64)
        except (KeyError, TypeError, ValueError):
            continue
        whole = points.shape == (68, 2) and np.isfinite(points).all()
        if name.isdigit() and whole and np.ptp(points, axis=0).min() > 0:
            result[int(name)] = points
    return result


def detections(path: Path, times: np.ndarray, size: tuple[int, int], start: float | None) -> list[Detection | None]:
    """For each sampled frame the face its landmarks give, in the pixels of the sampled frame.

    Args:
        path: folder of frame images.
        times: (T, 2) seconds from clip start; each stands for the picture shown at its middle.
        size: (width, height) of the sampled frames, which may be smaller than the originals.
        start: where the clip starts in the folder, seconds.
    """
    from PIL import Image

    known = read(path)
    if not known:
        return [None] * len(times)
    files, rate = folder.images(path), folder.rate(path)
    with Image.open(files[0]) as original:
        scale = np.array([size[0] / original.width, size[1] / original.height])
    result: list[Detection | None] = []
    for middle in np.asarray(times, dtype=np.float64).mean(1) + (start or 0.0):
        file = files[min(len(files) - 1, max(0, int(middle * rate + 1e-6)))]
        points = known.get(int(file.stem)) if file.stem.isdigit() else None
        result.append(None if points is None else of_points(points * scale))
    return result


def of_points(points: np.ndarray) -> Detection:
    """Bounding box and eye centres of 68 points (68, 2)."""
    low, high = points.min(0), points.max(0)
    left, right = (points[part].mean(0) for part in (LEFT, RIGHT))
    eyes = (float(left[0]), float(left[1])), (float(right[0]), float(right[1]))
    return Detection((float(low[0]), float(low[1]), float(high[0]), float(high[1])), 1.0, eyes)
