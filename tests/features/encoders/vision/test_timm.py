"""timm models against the library itself, and real ImageNet weights on a photograph."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream

VIT = ("vit_tiny_patch16_224", {"img_size": 48, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5})
CNN = ("resnet10t", {"num_classes": 5})


@pytest.fixture(scope="module", params=[VIT, CNN], ids=["vit", "cnn"])
def checkpoint(request, tmp_path_factory):
    name, keywords = request.param
    folder = tmp_path_factory.mktemp(name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(name, pretrained=False, **keywords)
    # Statistics and crop of this checkpoint, unlike those of its architecture.
    timm.models.save_for_hf(
        model,
        folder,
        safe_serialization=True,
        model_args={k: v for k, v in keywords.items() if k != "num_classes"},
        model_config={
            "pretrained_cfg": {
                "mean": [0.4, 0.5, 0.6],
                "std": [0.2, 0.3, 0.25],
                "crop_pct": 0.8,
                "input_size": [3, 48, 48],
                "interpolation": "bilinear",
            }
        },
    )
    return folder


def stream(folder, **kwargs) -> Stream:
    return Stream(modality="video", source="data/frames.h5", encoder="timm", weights=f"local:{folder}", **kwargs)


def direct(folder, clip):
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model), is_training=False)
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(io.BytesIO(data))) for data in clip.frames])
        features = model.forward_features(pixels)
        return model(pixels), model.forward_head(features, pre_logits=True), features


@pytest.mark.filterwarnings("ignore::UserWarning:timm")
def test_equals_the_library(checkpoint, frames_clip, encode):
    clip = frames_clip(5)
    for readout, expected in zip(("logits", "pooled"), direct(checkpoint, clip), strict=False):
        ((values, times),) = encode(registry.build(stream(checkpoint, options={"readout": readout})), [clip])
        np.testing.assert_allclose(values, expected.numpy(), atol=1e-5, rtol=0)
        np.testing.assert_array_equal(times, clip.frame_times)


def test_readouts(checkpoint, frames_clip, encode):
    clip = frames_clip(5)
    features = direct(checkpoint, clip)[2].numpy()
    convolutional = features.ndim == 4
    tokens = features.reshape(3, features.shape[1], -1).transpose(0, 2, 1) if convolutional else features
    for readout, expected in {
        "tokens": tokens,
        "mean": tokens[:, 0 if convolutional else 1 :].mean(1),
        "cls": None if convolutional else tokens[:, 0],
    }.items():
        extractor = registry.build(stream(checkpoint, options={"readout": readout}))
        if expected is None:
            with pytest.raises(ParamsError, match="no class token"):
                encode(extractor, [clip])
        else:
            np.testing.assert_allclose(encode(extractor, [clip])[0][0], expected, atol=1e-5)


def test_stored_digest(checkpoint, frames_clip, encode):
    ((values, _),) = encode(registry.build(stream(checkpoint, options={"readout": "logits"})), [frames_clip(5)])
    np.testing.assert_allclose(values[1], next(v for k, v in DIGESTS.items() if k in checkpoint.name), atol=5e-4)


DIGESTS = {
    "vit": [-0.061019, 0.00208, 0.059235, 0.028576, 0.149747],
    "resnet10t": [-0.035153, -0.051039, -0.082697, -0.024609, -0.007108],
}


def test_among_neighbours(checkpoint, neighbours):
    neighbours(registry.build(stream(checkpoint)))


def test_one_frame_of_a_clip(checkpoint, frames_clip, encode):
    clip = frames_clip(5)
    ((rows, times),) = encode(registry.build(stream(checkpoint)), [clip])
    for which, position in (("first", 0), ("middle", 1)):
        ((values, when),) = encode(registry.build(stream(checkpoint, options={"frames": which})), [clip])
        np.testing.assert_allclose(values, rows[position : position + 1], atol=1e-5)
        np.testing.assert_array_equal(when, times[position : position + 1])


def test_wrong_weights(checkpoint, tmp_path):
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "vgg11", "global_pool": "avg", "model_args": {}}))
    with pytest.raises(WeightsError, match=r"covers \d+\.\d % of the model: \d+ missing"):
        Forward(registry.build(stream(tmp_path)))
    config["pretrained_cfg"]["std"] = [0.2, 0.2]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="image std"):
        registry.build(stream(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(WeightsError, match="not timm's"):
        registry.build(stream(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match="options.model"):
        registry.build(stream(tmp_path))


def test_unknown_model_and_layer(checkpoint):
    with pytest.raises(ParamsError, match="Did you mean 'resnet18'"):
        registry.build(Stream(modality="video", source="f", encoder="timm", weights="timm:resnet018"))
    with pytest.raises(ParamsError, match="set layer to -1"):
        registry.build(stream(checkpoint, layer=2))


def test_offline_tag_names_the_command(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="hf download timm/resnet50.a1_in1k"):
        registry.build(Stream(modality="video", source="f", encoder="timm", weights="timm:resnet50.a1_in1k"))


def test_stand_in_is_seeded(frames_clip, encode):
    entry = Stream(
        modality="face",
        source="f",
        encoder="timm",
        weights="random:1",
        architecture={"model": "vit_tiny_patch16_224", "img_size": 32, "embed_dim": 32, "depth": 1, "num_heads": 2},
    )
    first, second = (encode(registry.build(entry), [frames_clip()])[0][0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (3, 32)


def test_real_weights_name_the_cat(real, encode):
    """EfficientNet-Lite0 of ImageNet on scikit-image's photograph of the cat Chelsea."""
    import skimage

    photograph = Image.open(next(iter(skimage.__path__)) + "/data/chelsea.png").convert("RGB")
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG", quality=95)
    clip = Clip("chelsea", frames=[buffer.getvalue()], frame_times=np.array([[0, 1]], dtype=np.float32))
    options = {"model": "tf_efficientnet_lite0", "readout": "logits"}
    extractor = registry.build(stream(real / "weights" / "efficientnet_lite0", options=options))
    ((logits, _),) = encode(extractor, [clip])
    # 281 to 285: tabby, tiger, Persian, Siamese and Egyptian cat.
    assert 281 <= logits[0].argmax() <= 285
    assert extractor.identity["preprocessing"]["mean"] == [0.5, 0.5, 0.5]
    assert extractor.identity["preprocessing"]["resize"] == [256]
    ((pooled, _),) = encode(
        registry.build(stream(real / "weights" / "efficientnet_lite0", options={"model": "tf_efficientnet_lite0"})), [clip]
    )
    assert pooled.shape == (1, 1280)
