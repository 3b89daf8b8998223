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
from pipeline.features.encoders.vision.mosaic import MELD, choose_equidistant
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
