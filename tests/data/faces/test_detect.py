"""The embedded detector on a photograph, and the rules around a fetched one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from pipeline.data.faces import detect
from pipeline.data.faces.detection import Detection, overlap, unique
from pipeline.errors import WeightsError
from pipeline.params import Faces


def test_finds_the_face_and_none_on_a_wall(astronaut, wall):
    ((one,), nobody) = detect.detector(Faces())([astronaut, wall])
    assert one.box == pytest.approx((181, 63, 269, 175), abs=6) and nobody == []


def test_boxes_are_in_the_pixels_of_the_picture(astronaut):
    find = detect.detector(Faces())
    ((small,),) = find([astronaut.crop((100, 0, 420, 320))])
    ((large,),) = find([astronaut.crop((100, 0, 420, 320)).resize((960, 640))])
    np.testing.assert_allclose(np.array(large.box) / (3, 2, 3, 2), small.box, atol=12)


def test_a_picture_that_is_a_face_is_cropped_to_its_central_square():
    import io

    from PIL import Image

    from pipeline.data.faces.crop import crop

    picture = Image.new("RGB", (200, 100), "red")
    picture.paste((255, 255, 255), (50, 0, 150, 100))
    spec = Faces(detector="whole", size=50)
    ((one,),) = detect.detector(spec)([picture])
    assert np.asarray(Image.open(io.BytesIO(crop(picture, one, spec)))).min() > 200
    assert detect.identity(spec) == {"name": "whole"}


def test_overlap_and_unique():
    a, inside, away = (0, 0, 10, 10), (2, 2, 8, 8), (20, 20, 30, 30)
    assert overlap(a, a) == 1 and overlap(a, away) == 0
    assert overlap(a, inside) == pytest.approx(0.36) and overlap(a, inside, least=True) == 1
    kept = unique([Detection(inside), Detection(a), Detection(away)])
    assert {one.box for one in kept} == {a, away}
    assert unique([Detection(inside, 0.9), Detection(a, 0.5)])[0].box == inside


def test_identity_names_the_model():
    found = detect.identity(Faces())
    assert found["name"] == "mtcnn" and len(found["sha256"]) == 64 and "torch" in found["versions"]
    assert detect.identity(Faces(side=96)) == found  # the specification is beside it


def test_a_wheel_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(detect, "MTCNN", ("package:facenet_nowhere/data/pnet.pt",))
    with pytest.raises(WeightsError, match="pip install --no-deps facenet-nowhere"):
        detect.identity(Faces())


def test_only_mtcnn_has_workers_load_a_framework():
    (name,) = detect.modules(Faces())
    assert name == "pipeline.data.faces.mtcnn"
    assert detect.modules(Faces(detector="whole")) == detect.modules(Faces(detector="yunet")) == ()
    code = "import sys, pipeline.data.faces.stage as s; from pipeline.params import Faces; s.detect.identity(Faces())"
    done = subprocess.run([sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_fetched_detector_needs_a_file_and_its_sum(tmp_path):
    with pytest.raises(WeightsError, match="face_detection_yunet_2023mar.onnx"):
        detect.identity(Faces(detector="yunet"))
    with pytest.raises(WeightsError, match="is not there"):
        detect.identity(Faces(detector="yunet", weights=f"local:{tmp_path}/none.onnx"))
    file = tmp_path / "net.onnx"
    file.write_bytes(b"no network")
    found = hashlib.sha256(b"no network").hexdigest()
    with pytest.raises(WeightsError, match=f"set it to {found}"):
        detect.identity(Faces(detector="yunet", weights=f"local:{file}"))
    with pytest.raises(WeightsError, match="fetch the file again"):
        detect.identity(Faces(detector="yunet", weights=f"local:{file}", sha256="0" * 64))
    entry = Faces(detector="yunet", weights=f"local:{file}", sha256=found)
    assert detect.identity(entry)["sha256"] == found
    with pytest.raises(WeightsError, match="no YuNet model"):
        detect.detector(entry)


def test_fetched_detector_reads_boxes_and_eyes(tmp_path, monkeypatch, astronaut):
    """Rows as OpenCV documents them: x, y, width, height, five points, score."""
    import cv2

    class Net:
        def setInputSize(self, size):
            assert size == astronaut.size

        def detect(self, image):
            # Blue first, as OpenCV has it.
            assert (image[0, 0] == np.asarray(astronaut)[0, 0, ::-1]).all()
            near = [100, 50, 80, 90, 120, 80, 160, 84, 0, 0, 0, 0, 0, 0, 0.9]
            far = [300, 300, 10, 10, *[0] * 10, 0.8]
            return 2, np.array([near, far], dtype=np.float32)

    monkeypatch.setattr(cv2, "FaceDetectorYN", SimpleNamespace(create=lambda *_: Net()))
    file = tmp_path / "net.onnx"
    file.write_bytes(b"stand-in")
    entry = Faces(detector="yunet", weights=f"local:{file}", sha256=hashlib.sha256(b"stand-in").hexdigest())
    ((one,),) = detect.detector(entry)([astronaut])
    assert one.box == (100, 50, 180, 140) and one.score == pytest.approx(0.9)
    assert one.eyes == ((120, 80), (160, 84))
