"""The mosaic shows every frame whole, from top to bottom, and is encoded as timm would."""

from __future__ import annotations

import io

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from pipeline.errors import ParamsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip, Missing
from pipeline.features.encoders.vision.mosaic import MELD, choose_covering, choose_equidistant
from pipeline.params import Stream


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cnn")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("resnet10t", pretrained=False, num_classes=5)
    timm.models.save_for_hf(model, folder, safe_serialization=True)
    return folder


def stream(folder, **options) -> Stream:
    return Stream(
        modality="video",
        source="data/frames.h5",
        encoder="mosaic",
        weights=f"local:{folder}",
        options={"height": 36, "width": 64, **options},
    )


def test_first_and_last_frame_are_in_it():
    times = np.stack([np.arange(9) / 4, (np.arange(9) + 1) / 4], 1)
    assert choose_equidistant(times, 5).tolist() == [0, 2, 4, 6, 8]
    assert choose_equidistant(times[:1], 5).tolist() == [0] * 5
    # By time, not by number: frames may be unevenly spaced.
    assert choose_equidistant(times[[0, 1, 2, 3, 8]], 5).tolist() == [0, 2, 3, 4, 4]


@pytest.mark.parametrize("size", [(128, 72), (60, 90), (400, 40)])
def test_every_frame_is_whole(checkpoint, size):
    """A white frame with a marked border: all four borders arrive in each cell."""
    image = Image.new("RGB", size, "white")
    image.paste((255, 0, 0), (0, 0, size[0], 6))
    image.paste((255, 0, 0), (0, size[1] - 6, size[0], size[1]))
    image.paste((0, 0, 255), (0, 0, 6, size[1]))
    image.paste((0, 0, 255), (size[0] - 6, 0, size[0], size[1]))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    clip = Clip("c", frames=[buffer.getvalue()] * 5, frame_times=np.stack([np.arange(5), np.arange(5) + 1], 1))
    picture = registry.build(stream(checkpoint)).prepare(clip).inputs["pixels"]
    assert picture.shape == (5 * 36, 64, 3)
    for cell in np.split(picture.astype(int), 5):
        shown = np.argwhere(cell.max(2) > 32)
        top, left = shown.min(0)
        bottom, right = shown.max(0)
        middle = (left + right) // 2, (top + bottom) // 2
        for row in (top, bottom):
            assert cell[row, middle[0], 0] > cell[row, middle[0], 2] + 20
        for column in (left, right):
            assert cell[middle[1], column, 2] > cell[middle[1], column, 0] + 20


def test_equals_timm_on_the_stacked_picture(checkpoint, frames_clip, encode):
    clip = frames_clip(5, frames=9, size=(128, 72))
    ((values, times),) = encode(registry.build(stream(checkpoint)), [clip])
    pictures = [Image.open(io.BytesIO(clip.frames[i])).convert("RGB") for i in (0, 2, 4, 6, 8)]
    cells = [np.asarray(picture.resize((64, 36), Image.Resampling.BICUBIC)) for picture in pictures]
    model = timm.create_model(f"local-dir:{checkpoint}", pretrained=True).eval()
    data = timm.data.resolve_data_config({}, model=model)
    with torch.inference_mode():
        mean, std = torch.tensor(data["mean"]), torch.tensor(data["std"])
        pixels = (torch.from_numpy(np.concatenate(cells)) / 255 - mean) / std
        features = model.forward_features(pixels.permute(2, 0, 1)[None].float())
        expected = model.forward_head(features, pre_logits=True).numpy()
    np.testing.assert_allclose(values, expected, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(times, [[0, 2.25]])


def test_stored_digest(checkpoint, frames_clip, encode):
    ((values, _),) = encode(registry.build(stream(checkpoint)), [frames_clip(5, frames=6)])
    np.testing.assert_allclose([values.mean(), values.std(), values.max()], DIGEST, atol=1e-3)


DIGEST = [0.070074, 0.098146, 0.449677]


def test_among_neighbours(checkpoint, neighbours):
    neighbours(registry.build(stream(checkpoint)))


def test_statistics_of_meld(checkpoint):
    assert registry.build(stream(checkpoint, statistics="meld")).identity["preprocessing"]["mean"] == list(MELD[0])


def faces(checkpoint, view=None, **options):
    return registry.build(stream(checkpoint, place=True, **options).model_copy(update={"modality": "face"}), view)


def face_clip(times, places, **fields):
    """White crops."""
    buffer = io.BytesIO()
    Image.new("RGB", (224, 224), "white").save(buffer, "PNG")
    return Clip("c", frames=[buffer.getvalue()] * len(times), frame_times=np.array(times), places=np.array(places), **fields)


def test_the_face_is_where_it_was_and_all_else_is_black(checkpoint):
    """Frames of 2 : 1 in cells of 64 × 36: 64 × 32 between bars of 2."""
    place = [0.25, 0.25, 0.375, 0.5]  # 8 × 8 pixels of 64 × 32
    times = [[0, 1], [1, 2], [4, 5]]  # no face from 2 to 4
    prepared = faces(checkpoint).prepare(face_clip(times, [place, place, [-0.0625, 0.875, 0.0625, 1.125]], duration=5.0))
    expected = np.zeros((5, 36, 64, 3), np.uint8)
    expected[[0, 1], 10:18, 16:24] = 255  # at 0 and 1.25 s; 2.5 s is half a frame from the second
    expected[2] = expected[1]
    expected[[3, 4], 30:36, 0:4] = 255  # at 3.75 s and 5 s, half beyond the frame
    np.testing.assert_array_equal(prepared.inputs["pixels"].reshape(5, 36, 64, 3), expected)
    np.testing.assert_array_equal(prepared.times, [[0, 5]])


def test_a_moment_without_a_face_is_black(checkpoint):
    prepared = faces(checkpoint).prepare(face_clip([[0, 0.25]], [[0.0, 0.0, 0.25, 0.5]], duration=4.0))
    lit = prepared.inputs["pixels"].reshape(5, -1).any(1)
    assert lit.tolist() == [True, False, False, False, False]
    assert choose_covering(np.array([[0, 1], [1, 2]]), np.array([0, 0.9, 1.1, 2.4, 2.6])) == [0, 0, 1, 1, None]
    with pytest.raises(Missing, match="no face at any of 2 moments"):
        faces(checkpoint, count=2).prepare(face_clip([[1, 2]], [[0.0, 0.0, 0.25, 0.5]], duration=9.0))


def test_a_mirrored_face_is_on_the_other_side(checkpoint):
    clip = face_clip([[0, 1]], [[0.25, 0.25, 0.375, 0.5]], duration=1.0)
    plain, mirrored = (faces(checkpoint, view).prepare(clip).inputs["pixels"] for view in (None, "mirror"))
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])


def test_places_are_wanted_of_faces_and_asked_of_nothing_else(checkpoint):
    with pytest.raises(ParamsError, match="place is of face crops; set modality: face"):
        registry.build(stream(checkpoint, place=True))
    with pytest.raises(ParamsError, match="face crops that say where they were"):
        faces(checkpoint).prepare(Clip("c", frames=[b"x"], frame_times=np.array([[0, 1]])))


def test_bad_options_and_no_frames(checkpoint):
    for options, message in (
        ({"count": 0}, "options.count"),
        ({"height": 4}, "options.height.*16"),
        ({"statistics": "x"}, "statistics"),
    ):
        with pytest.raises(ParamsError, match=message):
            registry.build(stream(checkpoint, **options))
    with pytest.raises(Missing):
        registry.build(stream(checkpoint)).prepare(Clip("none"))
