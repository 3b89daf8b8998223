"""open_clip image towers against the library's own factory and transform."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream

VISION = {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
#: ConvNeXt through timm, as the 640-wide LAION model is built; small enough for a test.
CONVNEXT = {
    "timm_model_name": "convnext_atto",
    "timm_model_pretrained": False,
    "timm_pool": "",
    "timm_proj": "linear",
    "timm_drop": 0.0,
    "timm_drop_path": 0.1,
    "image_size": 64,
}
TEXT = {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
STATISTICS = {"mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}


def _save(folder, vision, **preprocess):
    import open_clip

    config = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT, "quick_gelu": "layers" in vision}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.model.CLIP(**config)
    safetensors.torch.save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors"
    )
    (folder / "open_clip_config.json").write_text(
        json.dumps(
            {
                "model_cfg": config,
                "preprocess_cfg": {"size": 64, "interpolation": "bicubic", "resize_mode": "shortest"} | STATISTICS | preprocess,
            }
        )
    )
    return folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    return _save(tmp_path_factory.mktemp("vit"), VISION)


@pytest.fixture(scope="module")
def convnext(tmp_path_factory):
    return _save(tmp_path_factory.mktemp("convnext"), CONVNEXT)


@pytest.fixture(scope="module")
def squashed(tmp_path_factory):
    return _save(tmp_path_factory.mktemp("squashed"), VISION, resize_mode="squash", mean=[0.5] * 3, std=[0.5] * 3)


def stream(folder, encoder="open_clip", **kwargs) -> Stream:
    return Stream(modality="video", source="data/frames.h5", encoder=encoder, weights=f"local:{folder}", **kwargs)


def direct(folder, clip) -> np.ndarray:
    import open_clip

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    with torch.inference_mode():
        pixels = torch.stack([transform(Image.open(io.BytesIO(data))) for data in clip.frames])
        return model.eval().encode_image(pixels).numpy()


@pytest.mark.parametrize("name", ["vit", "convnext", "squashed"])
def test_equals_the_library(request, name, frames_clip, encode):
    folder, clip = request.getfixturevalue(name), frames_clip(5)
    ((values, times),) = encode(registry.build(stream(folder)), [clip])
    np.testing.assert_allclose(values, direct(folder, clip), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(times, clip.frame_times)
    assert values.shape == (3, 24)


DIGESTS = {"vit": [2.430022, -0.901041, -1.105704, -1.328338], "convnext": [0.84312, -1.520299, -0.428564, 0.441195]}


@pytest.mark.parametrize("name", DIGESTS)
def test_stored_digest(request, name, frames_clip, encode):
    ((values, _),) = encode(registry.build(stream(request.getfixturevalue(name))), [frames_clip(5)])
    np.testing.assert_allclose(values[1, :4], DIGESTS[name], atol=2e-3)


@pytest.mark.parametrize("name", ["vit", "convnext"])
def test_among_neighbours(request, name, neighbours):
    neighbours(registry.build(stream(request.getfixturevalue(name))))


def test_clip_with_backend_auto_sees_an_open_clip_folder(vit, frames_clip, encode):
    clip = frames_clip(3)
    ((values, _),) = encode(registry.build(stream(vit, "clip", options={"normalise": True})), [clip])
    ((expected, _),) = encode(registry.build(stream(vit, options={"normalise": True})), [clip])
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-6)
    with pytest.raises(WeightsError, match="no config.json"):
        registry.build(stream(vit, "clip", options={"backend": "hf"}))
    with pytest.raises(ParamsError, match="readout"):
        registry.build(stream(vit, "clip", options={"readout": "cls"}))


def test_missing_and_unexpected_keys(vit, tmp_path):
    (tmp_path / "open_clip_config.json").write_bytes((vit / "open_clip_config.json").read_bytes())
    state = safetensors.torch.load_file(vit / "open_clip_model.safetensors")
    state["visual.extra"] = state.pop("visual.class_embedding")
    safetensors.torch.save_file(state, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing \(visual.class_embedding\).*1 unexpected \(visual.extra\)"):
        Forward(registry.build(stream(tmp_path)))


def test_wrong_normalisation_fields(vit, tmp_path):
    config = json.loads((vit / "open_clip_config.json").read_text())
    (tmp_path / "open_clip_model.safetensors").write_bytes((vit / "open_clip_model.safetensors").read_bytes())
    for change, message in (
        ({"std": [0.2, 0, 0.2]}, "must be positive"),
        ({"mean": 0.5}, "three numbers"),
        ({"resize_mode": "longest"}, "longest"),
    ):
        (tmp_path / "open_clip_config.json").write_text(
            json.dumps(config | {"preprocess_cfg": config["preprocess_cfg"] | change})
        )
        with pytest.raises(WeightsError, match=message):
            registry.build(stream(tmp_path))


def test_stand_in_needs_no_files(frames_clip, encode):
    entry = Stream(
        modality="face", source="f", encoder="open_clip", weights="random:1", architecture={"embed_dim": 24, "vision_cfg": VISION}
    )
    first, second = (encode(registry.build(entry), [frames_clip()])[0][0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    with pytest.raises(ParamsError, match="patches"):
        Forward(registry.build(entry.model_copy(update={"architecture": {"embed_dim": 8, "vision_cfg": {"patches": 3}}})))
    with pytest.raises(ParamsError, match="vision_cfg"):
        registry.build(entry.model_copy(update={"architecture": {"embed_dim": 8}}))


def test_unknown_tag_and_offline_tag(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    base = {"modality": "video", "source": "f", "encoder": "open_clip"}
    with pytest.raises(WeightsError, match="open_clip:ARCH/TAG"):
        registry.build(Stream(weights="open_clip:ViT-B-32/nothing", **base))
    with pytest.raises(WeightsError, match="hf download laion/CLIP-convnext_base_w-laion2B-s13B-b82K-augreg"):
        registry.build(Stream(weights="open_clip:convnext_base_w/laion2b_s13b_b82k_augreg", **base))


def test_the_laion_convnext_is_640_wide_at_256_pixels():
    """Facts of the model S1 names, from the library's own entry; no weights are built."""
    import open_clip

    from pipeline.features.encoders.vision.open_clip import read_preprocessing

    config = open_clip.get_model_config("convnext_base_w")
    spec = read_preprocessing("x", config, {})
    assert config["embed_dim"] == 640
    assert (spec.resize, spec.crop) == ((256,), (256, 256))
    assert (spec.mean, spec.std) == (tuple(STATISTICS["mean"]), tuple(STATISTICS["std"]))
