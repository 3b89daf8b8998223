"""A square crop around a face, upright when the eyes are known."""

from __future__ import annotations

import math

from PIL import Image

from pipeline.params import Faces
from pipeline.storage import jpeg

from .detection import Detection


def square(box: tuple[float, float, float, float], margin: float) -> tuple[float, float, float]:
    """Centre (x, y) and side of the square: the longer side of the box times `margin`."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, max(box[2] - box[0], box[3] - box[1]) * margin


def place(box: tuple[float, float, float, float], size: tuple[int, int], margin: float) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of the square in shares of the picture's width and height; beyond it below 0 or above 1.

    >>> place((20, 10, 40, 30), (100, 50), 1.0)
    (0.2, 0.2, 0.4, 0.6)
    """
    x, y, side = square(box, margin)
    width, height = size
    return (x - side / 2) / width, (y - side / 2) / height, (x + side / 2) / width, (y + side / 2) / height


def tilt(face: Detection) -> float:
    """Degrees by which the line of the eyes falls to the right; 0 when the eyes are not known."""
    if face.eyes is None:
        return 0.0
    (x0, y0), (x1, y1) = face.eyes
    return math.degrees(math.atan2(y1 - y0, x1 - x0))


def crop(image: Image.Image, face: Detection, spec: Faces) -> bytes:
    """JPEG of `spec.size` pixels square; what lies beyond the picture is black."""
    x, y, side = square(face.box, spec.margin)
    if spec.align and (angle := tilt(face)):
        image = image.rotate(angle, Image.Resampling.BICUBIC, center=(x, y))
    left, top = round(x - side / 2), round(y - side / 2)
    side = max(1, round(side))
    cut = image.crop((left, top, left + side, top + side))
    return jpeg.encode(cut.resize((spec.size, spec.size), Image.Resampling.BICUBIC), spec.quality)
