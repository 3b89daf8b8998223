"""Detectors of faces in pictures.

`mtcnn`  MTCNN (Zhang et al. 2016), any pose, with five landmarks; its weights are inside the wheel
         `facenet-pytorch`. Runs on the device.
`yunet`  YuNet (Wu et al. 2023) by OpenCV, any pose, with five landmarks; its 230 kB file is fetched
         once by the user and checked by sha256.
`whole`  every picture is a face already (corpora of crops, the generated demo): its central square.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline import weights
from pipeline.errors import WeightsError
from pipeline.params import Faces

from .detection import Detection, Detector, unique

#: The networks of MTCNN, in the order they are asked.
MTCNN = tuple(f"package:facenet_pytorch/data/{name}.pt" for name in ("pnet", "rnet", "onet"))
YUNET = "https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet"


def identity(spec: Faces) -> dict:
    """What decides the boxes beside the specification, as JSON values.

    Raises:
        WeightsError: the files of `mtcnn` or `yunet` are not there or not the ones named.
    """
    if spec.detector == "whole":
        return {"name": "whole"}
    if spec.detector == "mtcnn":
        versions = {name: importlib.metadata.version(name) for name in ("torch", "torchvision", "pillow")}
        return {"name": "mtcnn", "sha256": weights.sha256([weights.locate(file) for file in MTCNN]), "versions": versions}
    import cv2

    return {"name": "yunet", "sha256": weights.sha256(_yunet(spec)), "version": cv2.__version__}


def modules(spec: Faces) -> tuple[str, ...]:
    """What a worker process needs for the detector and had better load once for all of them."""
    return (f"{__package__}.mtcnn",) if spec.detector == "mtcnn" else ()


@lru_cache(maxsize=4)
def detector(spec: Faces, device: str = "cpu") -> Detector:
    """The detector of a specification, one per process and device; only `mtcnn` makes use of a GPU.

    Raises:
        WeightsError: its model is not there or not the one named.
    """
    if spec.detector == "whole":
        return partial(_whole, spec.margin)
    if spec.detector == "mtcnn":
        from .mtcnn import Mtcnn  # imports torch

        return Mtcnn([weights.locate(file) for file in MTCNN], spec, device)
    return _Yunet(_yunet(spec), spec)


def _whole(margin: float, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
    """The box whose crop, `margin` wider, is the central square of the picture."""
    boxes = []
    for picture in pictures:
        half, x, y = min(picture.size) / margin / 2, picture.width / 2, picture.height / 2
        boxes.append([Detection((x - half, y - half, x + half, y + half))])
    return boxes


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


class _Yunet:
    def __init__(self, path: Path, spec: Faces) -> None:
        import cv2

        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (spec.side, spec.side), spec.min_score)
        except cv2.error as error:
            raise WeightsError(f"{path} is no YuNet model ({' '.join(str(error).split())[:120]}).") from error
        self._share = spec.min_size

    def __call__(self, pictures: Sequence[Image.Image]) -> list[list[Detection]]:
        return [self._search(picture) for picture in pictures]

    def _search(self, image: Image.Image) -> list[Detection]:
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
