"""Resizing, cropping and normalising against the three libraries checkpoints come from."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import WeightsError
from pipeline.features.encoders.vision import images

SIZES = [(80, 60), (61, 83), (48, 48), (200, 50), (33, 47)]


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(width).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "config",
    [
        {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}, "do_center_crop": True},
        {"size": {"height": 40, "width": 56}, "do_center_crop": False, "resample": 2},
        {"size": {"shortest_edge": 32}, "crop_size": {"height": 50, "width": 50}, "do_center_crop": True, "do_normalize": False},
        {
            "do_resize": False,
            "crop_size": {"height": 31, "width": 40},
            "do_center_crop": True,
            "do_rescale": False,
            "do_normalize": False,
        },
    ],
)
def test_equals_transformers(tmp_path, size, config):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    CLIPImageProcessorPil(**config).save_pretrained(tmp_path)
    spec = images.of_transformers(tmp_path, square=False)
    image = picture(*size)
    expected = CLIPImageProcessorPil.from_pretrained(tmp_path)(images=image, return_tensors="pt")["pixel_values"]
    actual = spec.normalise(torch.from_numpy(spec.pixels([encoded(image)])))
    torch.testing.assert_close(actual, expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "config",
    [
        {"input_size": (3, 48, 48), "crop_pct": 0.875, "interpolation": "bicubic"},
        {"input_size": (3, 45, 45), "crop_pct": 1.0, "interpolation": "bilinear", "crop_mode": "center"},
        {"input_size": (3, 48, 48), "crop_pct": 0.9, "interpolation": "bicubic", "crop_mode": "squash"},
    ],
)
def test_equals_timm(size, config):
    import timm

    config = config | {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    spec = images.of_config("x", config)
    image = picture(*size)
    expected = timm.data.create_transform(**config, is_training=False)(image)[None]
    actual = spec.normalise(torch.from_numpy(spec.pixels([encoded(image)])))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_number_for_size_means_what_the_processor_says(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_center_crop": True, "crop_size": 30})
    )
    assert images.of_transformers(tmp_path, square=True).resize == (32, 32)
    assert images.of_transformers(tmp_path, square=False).resize == (32,)
    assert images.of_transformers(tmp_path, square=False).crop == (30, 30)


def test_processor_config_of_newer_checkpoints(tmp_path):
    (tmp_path / "processor_config.json").write_text(
        json.dumps({"image_processor": {"size": {"height": 8, "width": 8}, "do_normalize": False}})
    )
    assert images.of_transformers(tmp_path, square=True).resize == (8, 8)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "how images are prepared"),
        ({"size": "large"}, "is no size"),
        ({"size": 8, "image_mean": [0.5] * 3, "image_std": [0.5, 0.5, 0.0]}, "must be positive"),
        ({"size": 8, "image_mean": [0.5] * 4, "image_std": [0.5] * 3}, "not three numbers"),
        ({"size": 8, "do_normalize": True}, "image mean None"),
        ({"size": 8, "do_normalize": False, "resample": 77}, "no filter"),
        ({"size": {"shortest_edge": 8}, "do_normalize": False}, "differ in size"),
    ],
)
def test_fields_that_are_wrong(tmp_path, config, message):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message):
        images.of_transformers(tmp_path, square=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"input_size": (1, 8, 8)}, "takes no RGB"),
        ({"input_size": (3, 8, 8), "mean": [0], "std": [1]}, "three numbers"),
        ({"input_size": (3, 8, 8), "mean": [0] * 3, "std": [1] * 3, "crop_mode": "border"}, "crop mode"),
        ({"input_size": (3, 8, 8), "mean": [0] * 3, "std": [1] * 3, "interpolation": "random"}, "interpolation"),
    ],
)
def test_fields_of_timm_that_are_wrong(config, message):
    with pytest.raises(WeightsError, match=message):
        images.of_config("x", config)


def test_grey_and_palette_images_become_rgb_and_junk_says_so():
    for mode in ("L", "P", "RGBA", "CMYK"):
        kind = "JPEG" if mode in ("L", "CMYK") else "PNG"
        assert images.decode(encoded(picture(8, 8).convert(mode), kind)).mode == "RGB"
    whole = encoded(picture(64, 64), "JPEG")
    for data in (b"", b"junk", whole[: len(whole) // 2]):
        with pytest.raises(ValueError, match="no whole image"):
            images.decode(data)
