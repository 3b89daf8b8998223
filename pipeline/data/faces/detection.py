"""One face in a picture, and what boxes have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

#: Left, top, right, bottom.
Box = tuple[float, float, float, float]
#: (x, y) of the eye on the left of the picture, and of the one on its right.
Eyes = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class Detection:
    """One face.

    Attributes:
        box: left, top, right, bottom in pixels; may reach beyond the picture.
        score: confidence in [0, 1]; 1 where a detector gives none.
        eyes: ((x, y), (x, y)) of the eye on the left of the picture and the one on its right, or None.
    """

    box: Box
    score: float = 1.0
    eyes: Eyes | None = None


#: Pictures of a clip → the faces of each. What is found in a picture does not depend on those beside it.
Detector = Callable[[Sequence[Image.Image]], list[list[Detection]]]


def area(box: Box) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def overlap(a: Box, b: Box, *, least: bool = False) -> float:
    """Intersection over union; with `least`, over the smaller box."""
    both = area((max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])))
    whole = min(area(a), area(b)) if least else area(a) + area(b) - both
    return both / whole if whole > 0 else 0.0


def unique(found: list[Detection]) -> list[Detection]:
    """Without boxes that mostly lie inside a better one: higher score, then larger."""
    kept: list[Detection] = []
    for one in sorted(found, key=lambda d: (-d.score, -area(d.box), d.box)):
        if all(overlap(one.box, other.box, least=True) < 0.5 for other in kept):
            kept.append(one)
    return kept
