"""ViT, DeiT and DINOv2 against the library's own processor and model."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.vision import images
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream
from pipeline.weights import pretrained

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 48,
    "patch_size": 16,
}
#: Saved class, the encoder inside it, tokens before the patches, what its preprocessor says.
SQUARE = {"size": {"height": 48, "width": 48}, "resample": 3, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.3, 0.2, 0.25]}
CROPPED = {"size": {"shortest_edge": 52}, "crop_size": {"height": 48, "width": 48}, "do_center_crop": True, "resample": 3}
KINDS = {
    "vit": ("ViTForImageClassification", "vit", 1, SQUARE),
    "vit-bare": ("ViTModel", None, 1, SQUARE),
    "deit": ("DeiTForImageClassification", "deit", 2, SQUARE | {"do_center_crop": False}),
    "dinov2": ("Dinov2ForImageClassification", "dinov2", 1, CROPPED | {"image_mean": [0.4] * 3, "image_std": [0.2] * 3}),
    "dinov2-registers": ("Dinov2WithRegistersModel", None, 5, CROPPED),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders in the library's own format, and the encoders in them."""
    made = {}

    def make(name):
        if name not in made:
            kind, inner, _, says = KINDS[name]
            folder = tmp_path_factory.mktemp(name)
            model_class = getattr(transformers, kind)
            with torch.random.fork_rng(), pretrained.quiet():
                torch.manual_seed(0)
                model = model_class(model_class.config_class(**SIZES)).eval()
                model.save_pretrained(folder)
            (folder / "preprocessor_config.json").write_text(json.dumps(says))
            made[name] = folder, model.get_submodule(inner) if inner else model
        return made[name]

    return make


def stream(folder, **kwargs) -> Stream:
    return Stream(modality="video", source="data/frames.h5", encoder="vit", weights=f"local:{folder}", **kwargs)


def tokens(saved, name, clip) -> torch.Tensor:
    folder, model = saved(name)
    spec = images.of_transformers(
        folder, square=name.startswith(("vit", "deit")), defaults={"image_mean": [0.485, 0.456, 0.406]} | STD
    )
    with torch.inference_mode():
        return model(pixel_values=spec.normalise(torch.from_numpy(spec.pixels(clip.frames)))).last_hidden_state


STD = {"image_std": [0.229, 0.224, 0.225]}


@pytest.mark.parametrize("name", KINDS)
def test_equals_the_library(saved, name, frames_clip, encode):
    clip, before = frames_clip(3), KINDS[name][2]
    wanted = tokens(saved, name, clip)
    for readout, rows in (("cls", wanted[:, 0]), ("mean", wanted[:, before:].mean(1)), ("tokens", wanted)):
        ((values, times),) = encode(registry.build(stream(saved(name)[0], options={"readout": readout})), [clip])
        np.testing.assert_allclose(values, rows.numpy(), atol=1e-5)
        np.testing.assert_array_equal(times, clip.frame_times)


def test_pixels_are_those_of_the_librarys_processor(saved, frames_clip):
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder, clip = saved("vit")[0], frames_clip(3)
    theirs = ViTImageProcessorPil.from_pretrained(folder)(
        images=[images.decode(data) for data in clip.frames], return_tensors="pt"
    )["pixel_values"]
    spec = images.of_transformers(folder, square=True)
    torch.testing.assert_close(spec.normalise(torch.from_numpy(spec.pixels(clip.frames))), theirs, atol=1e-5, rtol=0)


def test_layers(saved, frames_clip, encode):
    folder, model = saved("vit")
    ((values, _),) = encode(registry.build(stream(folder, layer=1)), [frames_clip()])
    spec = images.of_transformers(folder, square=True)
    with torch.inference_mode():
        pixels = spec.normalise(torch.from_numpy(spec.pixels(frames_clip().frames)))
        states = model(pixel_values=pixels, output_hidden_states=True).hidden_states
    np.testing.assert_allclose(values, states[1][:, 0].numpy(), atol=1e-5)
    with pytest.raises(ParamsError, match="layer 3"):
        registry.build(stream(folder, layer=3))


def test_among_neighbours(saved, neighbours):
    neighbours(registry.build(stream(saved("vit")[0])))


def test_refused(saved, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "swin"}')
    with pytest.raises(WeightsError, match="'swin' model, this family reads vit, deit"):
        registry.build(stream(tmp_path))
    for file in saved("vit")[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    says = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 3}
    (tmp_path / "config.json").write_text(json.dumps(says))
    with pytest.raises(WeightsError, match="missing"):
        Forward(registry.build(stream(tmp_path)))
