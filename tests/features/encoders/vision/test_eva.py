"""EVA's token merge by index, its stretched position embedding, and the tower against timm."""

from __future__ import annotations

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.vision import eva, images
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream

KEYWORDS = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 28}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tower of three blocks at 28 px (2 × 2 patches), saved by timm."""
    folder = tmp_path_factory.mktemp("eva")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(eva.MODEL, pretrained=False, num_classes=7, **KEYWORDS)
        torch.nn.init.normal_(model.norm.weight)
        torch.nn.init.normal_(model.pos_embed)
    timm.models.save_for_hf(model, folder, safe_serialization=True, model_args=KEYWORDS)
    return folder


def stream(folder, **options) -> Stream:
    return Stream(
        modality="video",
        source="data/frames.h5",
        encoder="eva",
        weights=f"local:{folder}",
        options={"size": 56, "frames": "all", **options},
    )


def test_merge_maps_row_j_to_patches_4j_to_4j_plus_3():
    tokens = torch.arange(1025.0)[None, :, None] + torch.arange(3) / 10
    merged, cls = eva.merge_tokens(tokens)
    assert merged.shape == (1, 256, 12) and cls.tolist() == tokens[:, 0].tolist()
    for row in range(256):
        # Token 0 is the class token, so patch p is token p + 1.
        expected = [4 * row + k + 1 + channel / 10 for k in range(4) for channel in range(3)]
        np.testing.assert_allclose(merged[0, row].numpy(), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="merged by 4"):
        eva.merge_tokens(torch.zeros(1, 4, 2))


def test_full_size_gives_256_rows_of_5632():
    merged, cls = eva.merge_tokens(torch.zeros(2, 1025, 1408, device="meta"))
    assert merged.shape == (2, 256, 5632) and cls.shape == (2, 1408)


def test_stretching_keeps_the_class_token_and_a_constant():
    position = torch.randn(1, 257, 4)
    assert torch.equal(eva.stretch_position(position, 256), position)
    position[:, 1:] = 3
    wide = eva.stretch_position(position, 1024)
    assert wide.shape == (1, 1025, 4)
    torch.testing.assert_close(wide[:, 0], position[:, 0])
    torch.testing.assert_close(wide[:, 1:], torch.full((1, 1024, 4), 3.0))


@pytest.mark.parametrize(("norm", "blocks"), [("checkpoint", None), ("plain", 2)])
def test_equals_timm(checkpoint, frames_clip, encode, norm, blocks):
    clip = frames_clip(5)
    ((values, times),) = encode(registry.build(stream(checkpoint, norm=norm, blocks=blocks)), [clip])
    model = timm.create_model(f"local-dir:{checkpoint}", pretrained=True).eval()
    pixels = np.stack([np.asarray(images.decode(data).resize((56, 56), Image.Resampling.BICUBIC)) for data in clip.frames])
    pixels = (torch.from_numpy(pixels) / 255 - torch.tensor(images.CLIP_MEAN)) / torch.tensor(images.CLIP_STD)
    with torch.inference_mode():
        # By hand, from the library's own parts.
        patches = model.patch_embed.proj(pixels.permute(0, 3, 1, 2).float()).flatten(2).transpose(1, 2)
        grid = model.pos_embed[:, 1:].reshape(1, 2, 2, 32).permute(0, 3, 1, 2)
        grid = torch.nn.functional.interpolate(grid, (4, 4), mode="bicubic").flatten(2).transpose(1, 2)
        tokens = torch.cat([(model.cls_token + model.pos_embed[:, :1]).expand(3, -1, -1), patches + grid], 1)
        for block in model.blocks[:blocks]:
            tokens = block(tokens)
        tokens = model.norm(tokens) if norm == "checkpoint" else torch.nn.functional.layer_norm(tokens, (32,))
    expected = tokens[:, 1:].reshape(3, 4, 128)
    assert values.shape == (3, 4, 128)
    np.testing.assert_allclose(values, expected.numpy(), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(times, clip.frame_times)
    ((cls, _),) = encode(registry.build(stream(checkpoint, norm=norm, blocks=blocks, readout="cls")), [clip])
    np.testing.assert_allclose(cls, tokens[:, 0].numpy(), atol=1e-5, rtol=0)


def test_stored_digest(checkpoint, frames_clip, encode):
    ((values, _),) = encode(registry.build(stream(checkpoint)), [frames_clip(5)])
    np.testing.assert_allclose(values[1, 2, :4], DIGEST, atol=2e-3)


DIGEST = [-0.407218, 0.472863, -0.165035, 1.327837]


def test_among_neighbours(checkpoint, neighbours):
    neighbours(registry.build(stream(checkpoint)))


def test_keys_of_blip2_files(checkpoint, tmp_path, frames_clip, encode):
    """One file with `visual_encoder.` and `ln_vision.`, no configuration beside it."""
    state = safetensors.torch.load_file(checkpoint / "model.safetensors")
    renamed = {f"visual_encoder.{key}": value for key, value in state.items() if not key.startswith(("norm.", "head."))}
    renamed |= {"ln_vision.weight": state["norm.weight"], "ln_vision.bias": state["norm.bias"]}
    torch.save({"model": renamed}, tmp_path / "blip2.pth")
    clip, options = frames_clip(5), {"size": 56, "frames": "all", "norm": "checkpoint"}
    bare = Stream(
        modality="video",
        source="f",
        encoder="eva",
        weights=f"local:{tmp_path / 'blip2.pth'}",
        options=options,
        architecture={key: value for key, value in KEYWORDS.items() if key != "img_size"},
    )
    ((values, _),) = encode(registry.build(bare), [clip])
    ((expected, _),) = encode(registry.build(stream(checkpoint, norm="checkpoint")), [clip])
    np.testing.assert_array_equal(values, expected)


def test_peak_frame_by_default(checkpoint, frames_clip, encode):
    clip = frames_clip(5, frames=4)
    ((rows, times),) = encode(registry.build(stream(checkpoint)), [clip])
    ((peak, when),) = encode(registry.build(stream(checkpoint, frames="peak")), [clip])
    position = int(np.argmin(np.abs(rows - peak).sum((1, 2))))
    np.testing.assert_allclose(peak, rows[[position]], atol=1e-5)
    np.testing.assert_array_equal(when, times[[position]])


def test_wrong_keys_and_models(checkpoint, tmp_path):
    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = safetensors.torch.load_file(checkpoint / "model.safetensors")
    del state["blocks.1.attn.q_bias"]
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing \(blocks.1.attn.q_bias\)"):
        Forward(registry.build(stream(tmp_path)))
    with pytest.raises(WeightsError, match="3 blocks"):
        Forward(registry.build(stream(checkpoint, blocks=39)))
    (tmp_path / "config.json").write_text('{"architecture": "resnet18", "pretrained_cfg": {}}')
    with pytest.raises(WeightsError, match="use the timm family"):
        registry.build(stream(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 50}, "grid"),
        ({"size": 42}, "merges"),
        ({"norm": "x"}, "norm"),
        ({"frames": "last"}, "Unknown eva.options.frames 'last'"),
    ],
)
def test_bad_options(checkpoint, options, message):
    with pytest.raises(ParamsError, match=message):
        registry.build(stream(checkpoint, **options))
