"""CLIP image tower against the library's own processor and model."""

from __future__ import annotations

import io
import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip, Missing
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream
from pipeline.weights import pretrained

VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "patch_size": 16,
    "image_size": 48,
    "projection_dim": 16,
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "vocab_size": 99,
    "max_position_embeddings": 16,
    "bos_token_id": 0,
    "eos_token_id": 2,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A whole CLIP model, both towers, saved by the library."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder = tmp_path_factory.mktemp("clip")
    with torch.random.fork_rng(), pretrained.quiet():
        torch.manual_seed(0)
        CLIPModel(CLIPConfig(vision_config=VISION, text_config=TEXT, projection_dim=16)).save_pretrained(folder)
        CLIPImageProcessor(
            size={"shortest_edge": 48},
            crop_size={"height": 48, "width": 48},
            image_mean=[0.4, 0.5, 0.6],
            image_std=[0.2, 0.3, 0.25],
        ).save_pretrained(folder)
    return folder


def stream(folder, **kwargs) -> Stream:
    return Stream(modality="video", source="data/frames.h5", encoder="clip", weights=f"local:{folder}", **kwargs)


def direct(checkpoint, clip) -> torch.Tensor:
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    with pretrained.quiet(), torch.inference_mode():
        model = CLIPModel.from_pretrained(checkpoint).eval()
        processor = CLIPImageProcessorPil.from_pretrained(checkpoint)
        images = [Image.open(io.BytesIO(data)).convert("RGB") for data in clip.frames]
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        return model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)


def test_equals_the_library(checkpoint, frames_clip, encode):
    clip = frames_clip(5)
    ((values, times),) = encode(registry.build(stream(checkpoint)), [clip])
    np.testing.assert_allclose(values, direct(checkpoint, clip).numpy(), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(times, clip.frame_times)
    assert values.dtype == np.float32 and values.shape == (3, 16)


def test_stored_digest(checkpoint, frames_clip, encode):
    ((values, _),) = encode(registry.build(stream(checkpoint)), [frames_clip(5)])
    np.testing.assert_allclose(values[1, :6], DIGEST, atol=2e-3)


DIGEST = [-1.234074, 0.458097, -0.105595, 0.728661, 0.554843, -0.356218]


def test_among_neighbours(checkpoint, neighbours):
    neighbours(registry.build(stream(checkpoint)))


def test_s1_pooling_is_the_mean_of_unit_frames_and_not_of_unit_length(checkpoint, frames_clip, encode):
    clip = frames_clip(2, frames=4)
    ((rows, _),) = encode(registry.build(stream(checkpoint)), [clip])
    ((pooled, times),) = encode(registry.build(stream(checkpoint, pooling="mean", options={"normalise": True})), [clip])
    expected = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(0)
    np.testing.assert_allclose(pooled[0], expected, atol=1e-6)
    assert np.linalg.norm(pooled[0]) < 1
    np.testing.assert_array_equal(times, [[0, 1]])


@pytest.mark.parametrize(("readout", "shape"), [("cls", (3, 32)), ("mean", (3, 32)), ("tokens", (3, 10, 32))])
def test_readouts_of_a_layer(checkpoint, frames_clip, encode, readout, shape):
    ((values, _),) = encode(registry.build(stream(checkpoint, layer=1, options={"readout": readout})), [frames_clip()])
    assert values.shape == shape


def test_cls_of_the_last_layer_is_the_pooled_output(checkpoint, frames_clip, encode):
    """visual_projection(cls) must be the projection."""
    from transformers import CLIPVisionModelWithProjection

    clip = frames_clip(1)
    ((cls, _),) = encode(registry.build(stream(checkpoint, options={"readout": "cls"})), [clip])
    with pretrained.quiet():
        weight = CLIPVisionModelWithProjection.from_pretrained(checkpoint).visual_projection.weight.detach().numpy()
    ((projected, _),) = encode(registry.build(stream(checkpoint)), [clip])
    np.testing.assert_allclose(cls @ weight.T, projected, atol=1e-5)


def test_stand_in_is_deterministic_and_seeded(frames_clip, encode):
    def features(seed):
        entry = Stream(modality="video", source="f", encoder="clip", weights=f"random:{seed}", architecture=VISION)
        return encode(registry.build(entry), [frames_clip()])[0][0]

    state = torch.get_rng_state()
    first = features(0)
    assert torch.equal(state, torch.get_rng_state())
    np.testing.assert_array_equal(first, features(0))
    assert np.abs(first - features(1)).max() > 1e-3


def test_extractor_travels_to_worker_processes(checkpoint, frames_clip):
    extractor = pickle.loads(pickle.dumps(registry.build(stream(checkpoint))))
    prepared = extractor.prepare(frames_clip())
    assert prepared.inputs["pixels"].dtype == np.uint8 and prepared.cost == 3
    json.dumps(extractor.identity)


def test_identity_changes_with_what_decides_the_feature_only(checkpoint):
    base = registry.build(stream(checkpoint)).identity
    assert base == registry.build(stream(checkpoint)).identity
    assert len(base["weights"]["sha256"]) == 64
    for change in (
        {"layer": -2, "options": {"readout": "cls"}},
        {"pooling": "mean"},
        {"rate": 2},
        {"dtype": "bfloat16"},
        {"options": {"normalise": True}},
    ):
        assert registry.build(stream(checkpoint, **change)).identity != base


def test_no_frames_is_a_mask(checkpoint):
    prepare = registry.build(stream(checkpoint)).prepare
    with pytest.raises(Missing):
        prepare(Clip("a"))
    with pytest.raises(Missing, match="face"):
        prepare(Clip("a", frames=[b"", b""], frame_times=np.zeros((2, 2))))


def test_frames_without_a_face_are_left_out(checkpoint, frames_clip, encode):
    clip = frames_clip(0, frames=3)
    gap = Clip("gap", frames=[clip.frames[0], b"", clip.frames[2]], frame_times=clip.frame_times)
    extractor = registry.build(stream(checkpoint))
    (whole, times), (part, part_times) = encode(extractor, [clip, gap])
    np.testing.assert_allclose(part, whole[[0, 2]], atol=1e-6)
    np.testing.assert_array_equal(part_times, times[[0, 2]])


def test_broken_frame_says_so(checkpoint):
    with pytest.raises(ValueError, match="no whole image"):
        registry.build(stream(checkpoint)).prepare(Clip("a", frames=[b"\xff\xd8nothing"], frame_times=np.zeros((1, 2))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"readout": "clss"}}, "Did you mean 'cls'"),
        ({"options": {"normalise": "yes"}}, "clip.options.normalise: Input should be a valid boolean"),
        ({"options": {"foo": 1}}, "Unknown parameter of clip.options 'foo'"),
        ({"layer": 1}, "set options.readout"),
    ],
)
def test_bad_options(checkpoint, change, message):
    with pytest.raises(ParamsError, match=message):
        registry.build(stream(checkpoint, **change))


def test_wrong_and_missing_keys(checkpoint, tmp_path):
    import safetensors.torch

    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = safetensors.torch.load_file(checkpoint / "model.safetensors")
    moved = {
        ("vision_model.other" if key == "vision_model.embeddings.class_embedding" else key): value for key, value in state.items()
    }
    safetensors.torch.save_file(moved, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        WeightsError,
        match=r"covers 9\d\.\d %.*1 missing \(vision_model.embeddings.class_embedding\).*"
        r"1 unexpected \(vision_model.other\)",
    ):
        Forward(registry.build(stream(tmp_path)))


def test_wrong_shape(checkpoint, tmp_path):
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["vision_config"]["intermediate_size"] = 48
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="fc1"):
        Forward(registry.build(stream(tmp_path)))


def test_preprocessing_must_be_there(checkpoint, tmp_path):
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="preprocessor_config.json"):
        registry.build(stream(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.5], "size": 48, "crop_size": 48}')
    with pytest.raises(WeightsError, match="mean"):
        registry.build(stream(tmp_path))
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(WeightsError, match="not valid JSON"):
        registry.build(stream(tmp_path))


def test_a_tower_saved_alone_has_class_tokens_and_no_projection(checkpoint, tmp_path, frames_clip, encode):
    """As `CLIPVisionModel.save_pretrained` writes it, and as the whole model reads."""
    from transformers import CLIPVisionModel

    with pretrained.quiet():
        CLIPVisionModel.from_pretrained(checkpoint).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_bytes((checkpoint / "preprocessor_config.json").read_bytes())
    clip = frames_clip(4)
    for readout in ("cls", "mean", "tokens"):
        ((alone, _),) = encode(registry.build(stream(tmp_path, options={"readout": readout})), [clip])
        ((whole, _),) = encode(registry.build(stream(checkpoint, options={"readout": readout})), [clip])
        np.testing.assert_allclose(alone, whole, atol=1e-6)
    with pytest.raises(WeightsError, match="saved without its projection; set options.readout to cls or mean"):
        registry.build(stream(tmp_path))
