"""Detectors of faces in one picture.

`lbp`    scikit-image's frontal face cascade (local binary patterns; Ahonen et al. 2006); the model is
         inside the wheel, so it always works. Upright, frontal faces; no landmarks.
`yunet`  YuNet (Wu et al. 2023) by OpenCV, any pose, with five landmarks; its 230 kB file is fetched
         once by the user and checked by sha256.
`whole`  every picture is a face already (corpora of crops, the generated demo): its central square.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.params import Faces

#: Pictures are reduced to this shorter side for detection; boxes are given in the picture's own pixels.
SIDE = 192
YUNET = "https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet"

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


Detector = Callable[[Image.Image], list[Detection]]


def identity(spec: Faces) -> dict:
    """What decides the boxes, as JSON values.

    Raises:
        WeightsError: the file of `yunet` is not there or not the one named.
    """
    if spec.detector == "whole":
        return {"name": "whole"}
    if spec.detector == "lbp":
        return {
            "name": "lbp",
            "sha256": weights.sha256(_cascade()),
            "version": importlib.metadata.version("scikit-image"),
            "side": SIDE,
        }
    import cv2

    return {"name": "yunet", "sha256": weights.sha256(_yunet(spec)), "version": cv2.__version__}


@lru_cache(maxsize=4)
def detector(spec: Faces) -> Detector:
    """The detector of a specification, one per process.

    Raises:
        WeightsError: its model is not there or not the one named.
    """
    if spec.detector == "whole":
        return partial(_whole, spec.margin)
    return _Lbp(spec.min_size) if spec.detector == "lbp" else _Yunet(_yunet(spec), spec)


def _whole(margin: float, image: Image.Image) -> list[Detection]:
    """The box whose crop, `margin` wider, is the central square of the picture."""
    half = min(image.size) / margin / 2
    x, y = image.width / 2, image.height / 2
    return [Detection((x - half, y - half, x + half, y + half))]


def _cascade() -> Path:
    return weights.locate("package:skimage/data/lbpcascade_frontalface_opencv.xml")


def _yunet(spec: Faces) -> Path:
    if not spec.weights:
        raise WeightsError(
            f"faces.detector yunet needs faces.weights: fetch face_detection_yunet_2023mar.onnx "
            f"({YUNET}) "
            "and set faces.weights to local:PATH and faces.sha256 to its sum."
        )
    path = weights.locate(spec.weights)
    if spec.sha256 is None:
        raise WeightsError(f"faces.sha256 is not set; if {path} is the file you trust, set it to {weights.sha256(path)}.")
    if (found := weights.sha256(path)) != spec.sha256.lower():
        raise WeightsError(f"{path} has sha256 {found}, faces.sha256 says {spec.sha256}; fetch the file again.")
    return path


class _Lbp:
    def __init__(self, min_size: float) -> None:
        from skimage.feature import Cascade

        self._cascade, self._share = Cascade(str(_cascade())), min_size

    def __call__(self, image: Image.Image) -> list[Detection]:
        reduction = max(1.0, min(image.size) / SIDE)
        small = image if reduction == 1 else image.resize([round(side / reduction) for side in image.size])
        least = max(24, round(self._share * min(small.size)))
        if least > min(small.size):
            return []
        found = self._cascade.detect_multi_scale(
            img=np.asarray(small),
            scale_factor=1.2,
            step_ratio=1,
            min_size=(least, least),
            max_size=(min(small.size), min(small.size)),
        )
        boxes = [(f["c"], f["r"], f["c"] + f["width"], f["r"] + f["height"]) for f in found]
        scale_x, scale_y = image.width / small.width, image.height / small.height
        return unique([Detection((x0 * scale_x, y0 * scale_y, x1 * scale_x, y1 * scale_y)) for x0, y0, x1, y1 in boxes])


class _Yunet:
    def __init__(self, path: Path, spec: Faces) -> None:
        import cv2

        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (SIDE, SIDE), spec.min_score)
        except cv2.error as error:
            raise WeightsError(f"{path} is no YuNet model ({' '.join(str(error).split())[:120]}).") from error
        self._share = spec.min_size

    def __call__(self, image: Image.Image) -> list[Detection]:
        self._net.setInputSize(image.size)
        _, rows = self._net.detect(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]))
        result = []
        for row in rows if rows is not None else []:
            x, y, width, height, *points = (float(value) for value in row[:14])
            if min(width, height) < self._share * min(image.size):
                continue
            eyes = sorted([(points[0], points[1]), (points[2], points[3])])
            result.append(Detection((x, y, x + width, y + height), float(row[14]), (eyes[0], eyes[1])))
        return unique(result)


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
