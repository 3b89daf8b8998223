"""ViT-MAE against the library, and single files of the MAE repository."""

from __future__ import annotations

import argparse

import numpy as np
import pytest
import torch

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.vision import images
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream
from pipeline.weights import pretrained

ENCODER = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 96,
    "image_size": 48,
    "patch_size": 16,
}
DECODER = {
    "decoder_hidden_size": 32,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A pre-training model with its decoder; face-trained, so without mean and deviation."""
    from transformers import ViTImageProcessor, ViTMAEConfig, ViTMAEForPreTraining

    folder = tmp_path_factory.mktemp("mae")
    with torch.random.fork_rng(), pretrained.quiet():
        torch.manual_seed(0)
        ViTMAEForPreTraining(ViTMAEConfig(**ENCODER, **DECODER)).save_pretrained(folder)
        ViTImageProcessor(size={"height": 48, "width": 48}, do_normalize=False, resample=3).save_pretrained(folder)
    return folder


def stream(folder, **kwargs) -> Stream:
    return Stream(modality="face", source="data/faces.h5", encoder="mae", weights=f"local:{folder}", **kwargs)


def direct(checkpoint, clip):
    from transformers import ViTMAEModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    with pretrained.quiet(), torch.inference_mode():
        model = ViTMAEModel.from_pretrained(checkpoint, mask_ratio=0.0).eval()
        pixels = ViTImageProcessorPil.from_pretrained(checkpoint)(
            images=[images.decode(data) for data in clip.frames], return_tensors="pt"
        )["pixel_values"]
        output = model(pixel_values=pixels)  # random order of patches: only what does not depend on it is compared
        return pixels, output.last_hidden_state[:, 0], output.last_hidden_state[:, 1:].mean(1)


def test_equals_the_library_without_mean_and_deviation(checkpoint, frames_clip, encode):
    clip = frames_clip(5)
    pixels, cls, mean = direct(checkpoint, clip)
    assert 0 <= pixels.min() and pixels.max() <= 1
    for readout, expected in (("cls", cls), ("mean", mean)):
        ((values, times),) = encode(registry.build(stream(checkpoint, options={"readout": readout})), [clip])
        np.testing.assert_allclose(values, expected.numpy(), atol=1e-5, rtol=0)
        np.testing.assert_array_equal(times, clip.frame_times)


def test_stored_digest(checkpoint, frames_clip, encode):
    ((values, _),) = encode(registry.build(stream(checkpoint)), [frames_clip(5)])
    np.testing.assert_allclose(values[1, :4], DIGEST, atol=2e-3)


DIGEST = [-1.549941, 0.27562, 1.105036, 1.933774]


def test_tokens_keep_their_place_and_nothing_is_masked(checkpoint, frames_clip, encode):
    extractor = registry.build(stream(checkpoint, options={"readout": "tokens"}))
    ((first, _),) = encode(extractor, [frames_clip(5)])
    ((second, _),) = encode(extractor, [frames_clip(5)])
    assert first.shape == (3, 10, 64)
    np.testing.assert_array_equal(first, second)


def test_layers(checkpoint, frames_clip, encode):
    shapes = {
        layer: encode(registry.build(stream(checkpoint, layer=layer)), [frames_clip()])[0][0].shape for layer in (0, 1, "all")
    }
    assert shapes == {0: (3, 64), 1: (3, 64), "all": (3, 3, 64)}
    with pytest.raises(ParamsError, match="layer 9"):
        encode(registry.build(stream(checkpoint, layer=9)), [frames_clip()])


def test_among_neighbours(checkpoint, neighbours):
    neighbours(registry.build(stream(checkpoint)))


def _original(checkpoint) -> dict[str, torch.Tensor]:
    """The same model under the keys of the MAE repository."""
    from transformers import ViTMAEModel

    with pretrained.quiet():
        state = ViTMAEModel.from_pretrained(checkpoint).state_dict()
    result = {
        "cls_token": state["embeddings.cls_token"],
        "pos_embed": state["embeddings.position_embeddings"],
        "mask_token": torch.zeros(1, 1, 32),
        "decoder_embed.weight": torch.zeros(32, 64),
    }
    for kind in ("weight", "bias"):
        result[f"patch_embed.proj.{kind}"] = state[f"embeddings.patch_embeddings.projection.{kind}"]
        result[f"norm.{kind}"] = state[f"layernorm.{kind}"]
        for i in range(2):
            theirs, ours = f"blocks.{i}", f"layers.{i}"
            result[f"{theirs}.attn.qkv.{kind}"] = torch.cat([state[f"{ours}.attention.{p}_proj.{kind}"] for p in "qkv"])
            for a, b in (
                ("attn.proj", "attention.o_proj"),
                ("norm1", "layernorm_before"),
                ("norm2", "layernorm_after"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ):
                result[f"{theirs}.{a}.{kind}"] = state[f"{ours}.{b}.{kind}"]
    return result


def test_single_file_of_the_mae_repository(checkpoint, tmp_path, frames_clip, encode):
    file = tmp_path / "mae_checkpoint.pth"
    torch.save({"model": _original(checkpoint), "epoch": 340, "args": argparse.Namespace(model="mae_vit")}, file)
    with pytest.raises(WeightsError, match="options.statistics"):
        registry.build(stream(file))
    entry = stream(file, architecture={"image_size": 48}, options={"statistics": "unit"})
    ((values, _),) = encode(registry.build(entry), [frames_clip(5)])
    np.testing.assert_allclose(values, direct(checkpoint, frames_clip(5))[1].numpy(), atol=1e-5)


class Trap:
    """Unpickling this would run code."""

    def __reduce__(self):
        return pytest.fail, ("code in a checkpoint was run",)


def test_single_file_with_missing_keys_or_code(checkpoint, tmp_path):
    state = _original(checkpoint)
    del state["blocks.1.attn.proj.bias"]
    torch.save({"model": state}, tmp_path / "a.pth")
    torch.save({"decoder.x": torch.zeros(1)}, tmp_path / "b.pth")
    (tmp_path / "c.pth").write_bytes(b"junk")
    torch.save({"model": _original(checkpoint), "args": Trap()}, tmp_path / "d.pth")
    for name, message in (
        ("a", r"1 missing \(layers.1.attention.o_proj.bias\)"),
        ("b", "no transformer blocks"),
        ("c", "half a download, or damaged"),
        ("d", "cannot be read as weights"),
    ):
        with pytest.raises(WeightsError, match=message):
            Forward(
                registry.build(stream(tmp_path / f"{name}.pth", architecture={"image_size": 48}, options={"statistics": "unit"}))
            )


def test_another_architecture(checkpoint, tmp_path):
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(WeightsError, match="'vit' model, this family reads vit_mae"):
        Forward(registry.build(stream(tmp_path)))
