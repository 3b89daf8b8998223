"""`decoder: nvjpeg` without a GPU: torchvision's decoder of the processor stands in; geometry and identity are the same code."""

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import DeviceError, ParamsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip
from pipeline.features.encoders.vision import gpu_images
from pipeline.features.encoders.vision.images import Preprocessing
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream

ARCHITECTURE = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "patch_size": 16,
    "image_size": 32,
    "projection_dim": 8,
}


def jpeg(seed, width=90, height=60):
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def stream(**options):
    return Stream(modality="video", source="f", encoder="clip", weights="random:0", architecture=ARCHITECTURE, options=options)


@pytest.mark.parametrize(
    "spec",
    [Preprocessing((32,), (32, 32)), Preprocessing((40, 50), None, "bilinear"), Preprocessing(None, (64, 120), rounding="round")],
)
def test_pixels_are_nearly_those_of_pillow(spec):
    jpegs = [jpeg(seed) for seed in range(3)] + [jpeg(3, 60, 90)] * (spec.crop is not None)
    found = gpu_images.pixels(spec, [np.frombuffer(data, np.uint8) for data in jpegs], "cpu").numpy()
    expected = spec.pixels(jpegs)
    assert found.shape == expected.shape and found.dtype == np.uint8
    apart = np.abs(found.astype(int) - expected)
    assert np.quantile(apart, 0.99) <= 2


def test_bytes_travel_whole():
    jpegs = [jpeg(seed) for seed in range(3)]
    assert [bytes(data) for data in gpu_images.unpack(gpu_images.pack(jpegs))] == jpegs


def test_decoder_is_identity_and_the_default_is_not_named():
    plain, other = (registry.build(stream(**options)).identity["preprocessing"] for options in ({}, {"decoder": "nvjpeg"}))
    assert "decoder" not in plain and other["decoder"] == "nvjpeg" and "torchvision" in other
    assert registry.build(stream(decoder="pillow")).identity == registry.build(stream()).identity
    with pytest.raises(ParamsError, match="decoder"):
        registry.build(stream(decoder="nvjpg"))
    with pytest.raises(ParamsError, match="lanczos; set options.decoder to pillow"):
        Preprocessing((32,), (32, 32), "lanczos").with_decoder("nvjpeg")


def test_it_needs_a_gpu_and_says_so(monkeypatch):
    extractor = registry.build(stream(decoder="nvjpeg"))
    with pytest.raises(DeviceError, match="set it to pillow"):
        Forward(extractor, device="cpu")
    monkeypatch.setattr(gpu_images, "require", lambda device: None)
    edges = np.arange(4, dtype=np.float32)
    clip = Clip("c", frames=[jpeg(seed) for seed in range(3)], frame_times=np.stack([edges[:-1], edges[1:]], 1))
    (values, times), (again, _) = Forward(extractor, device="cpu")([extractor.prepare(clip)] * 2)
    usual = registry.build(stream())
    ((expected, when),) = Forward(usual, device="cpu")([usual.prepare(clip)])
    np.testing.assert_array_equal(times, when)
    np.testing.assert_allclose(values, expected, atol=0.05)
    np.testing.assert_allclose(values, again, atol=1e-5)
