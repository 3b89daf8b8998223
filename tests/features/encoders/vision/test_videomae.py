"""VideoMAE: which frames, true tubelets, and the library's own result."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip
from pipeline.features.encoders.vision import images
from pipeline.features.encoders.vision.videomae import sample
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream
from pipeline.weights import pretrained

ENCODER = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 16,
    "num_frames": 16,
    "tubelet_size": 2,
}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A pre-training model with its decoder."""
    from transformers import VideoMAEConfig, VideoMAEForPreTraining, VideoMAEImageProcessor

    folder = tmp_path_factory.mktemp("videomae")
    with torch.random.fork_rng(), pretrained.quiet():
        torch.manual_seed(0)
        model = VideoMAEForPreTraining(VideoMAEConfig(**ENCODER, **DECODER))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        model.save_pretrained(folder)
        VideoMAEImageProcessor(
            size={"shortest_edge": 32},
            crop_size={"height": 32, "width": 32},
            image_mean=[0.4, 0.5, 0.6],
            image_std=[0.2, 0.3, 0.25],
        ).save_pretrained(folder)
    return folder


def stream(folder, **kwargs) -> Stream:
    return Stream(modality="face", source="data/faces.h5", encoder="videomae", weights=f"local:{folder}", **kwargs)


def direct(checkpoint, clip, chosen) -> np.ndarray:
    """(8, patches, D) tokens of the library for the frames chosen."""
    from transformers import VideoMAEModel
    from transformers.models.videomae.image_processing_pil_videomae import VideoMAEImageProcessorPil

    with pretrained.quiet(), torch.inference_mode():
        model = VideoMAEModel.from_pretrained(checkpoint).eval()
        frames = [images.decode(clip.frames[i]) for i in chosen]
        pixels = VideoMAEImageProcessorPil.from_pretrained(checkpoint)(frames, return_tensors="pt")["pixel_values"]
        return model(pixel_values=pixels).last_hidden_state.reshape(8, 4, 64).numpy()


def test_uniform_takes_the_middle_of_each_sixteenth():
    assert sample(16).tolist() == list(range(16))
    assert sample(32).tolist() == list(range(1, 32, 2))
    assert sample(4).tolist() == [i // 4 for i in range(16)]
    assert sample(1).tolist() == [0] * 16


def test_segments_are_eight_pairs_of_neighbours():
    assert sample(16, sampling="segments").tolist() == list(range(16))
    pairs = sample(64, sampling="segments").reshape(8, 2)
    assert (pairs[:, 1] - pairs[:, 0] == 1).all()
    assert (pairs[:, 0] // 8 == np.arange(8)).all()


@given(st.integers(1, 200), st.sampled_from(["uniform", "segments"]))
def test_sampling_is_in_range_in_order_and_covers_short_clips(count, sampling):
    chosen = sample(count, sampling=sampling)
    assert chosen.shape == (16,) and chosen.min() >= 0 and chosen.max() < count
    assert (np.diff(chosen) >= 0).all()
    if count <= 16:
        assert set(chosen.tolist()) == set(range(count))


@pytest.mark.parametrize("sampling", ["uniform", "segments"])
def test_equals_the_library(checkpoint, frames_clip, encode, sampling):
    clip = frames_clip(5, frames=30)
    tokens = direct(checkpoint, clip, sample(30, sampling=sampling))
    options = {"sampling": sampling}
    ((utterance, span),) = encode(registry.build(stream(checkpoint, options=options)), [clip])
    np.testing.assert_allclose(utterance, tokens.reshape(-1, 64).mean(0, keepdims=True), atol=1e-5, rtol=0)
    np.testing.assert_array_equal(span, [[0, 7.5]])
    ((steps, times),) = encode(registry.build(stream(checkpoint, options={**options, "output": "steps"})), [clip])
    np.testing.assert_allclose(steps, tokens.mean(1), atol=1e-5, rtol=0)
    chosen = sample(30, sampling=sampling).reshape(8, 2)
    np.testing.assert_allclose(times, np.stack([chosen[:, 0] / 4, (chosen[:, 1] + 1) / 4], 1))
    ((all_tokens, _),) = encode(registry.build(stream(checkpoint, options={**options, "output": "tokens"})), [clip])
    np.testing.assert_allclose(all_tokens[0], tokens.reshape(-1, 64), atol=1e-5, rtol=0)


def test_stored_digest(checkpoint, frames_clip, encode):
    ((values, _),) = encode(registry.build(stream(checkpoint)), [frames_clip(5, frames=16)])
    np.testing.assert_allclose(values[0, :4], DIGEST, atol=2e-3)


DIGEST = [0.656268, 1.525567, -0.344832, -0.907999]


def test_reversing_time_changes_the_feature(checkpoint, frames_clip, encode):
    """An image model pooled over frames would give the same."""
    clip = frames_clip(5, frames=16)
    reversed_ = Clip("r", frames=clip.frames[::-1], frame_times=clip.frame_times)
    (forwards, _), (backwards, _) = encode(registry.build(stream(checkpoint)), [clip, reversed_])
    assert np.abs(forwards - backwards).max() > 1e-3
    still = Clip("s", frames=[clip.frames[0]] * 16, frame_times=clip.frame_times)
    (a, _), (b, _) = encode(
        registry.build(stream(checkpoint)), [still, Clip("t", frames=still.frames[::-1], frame_times=clip.frame_times)]
    )
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_tubelet_sees_both_of_its_frames(checkpoint, frames_clip, encode):
    extractor = registry.build(stream(checkpoint, layer=0, options={"output": "steps"}))
    clip, other = frames_clip(5, frames=16), frames_clip(6, frames=16)
    frames = list(clip.frames)
    frames[5] = other.frames[5]
    (a, _), (b, _) = encode(extractor, [clip, Clip("x", frames=frames, frame_times=clip.frame_times)])
    assert (np.abs(a - b).max(1) > 1e-4).tolist() == [False, False, True] + [False] * 5


@pytest.mark.parametrize(("frames", "rows"), [(1, 1), (2, 2), (4, 4), (7, 8), (15, 8), (16, 8)])
def test_short_clips_are_held_and_their_repeats_masked(checkpoint, frames_clip, encode, frames, rows):
    clip = frames_clip(5, frames=frames)
    ((steps, times),) = encode(registry.build(stream(checkpoint, options={"output": "steps"})), [clip])
    assert len(steps) == len(times) == rows
    assert times[0, 0] == 0 and times[-1, 1] == clip.frame_times[-1, 1]
    tokens = direct(checkpoint, clip, sample(frames)).mean(1)
    pairs = sample(frames).reshape(8, 2)
    kept = [i for i in range(8) if i == 0 or (pairs[i] != pairs[i - 1]).any()]
    np.testing.assert_allclose(steps, tokens[kept], atol=1e-5)


@pytest.mark.parametrize("output", ["utterance", "steps"])
def test_among_neighbours(checkpoint, neighbours, output):
    neighbours(registry.build(stream(checkpoint, options={"output": output})))


def test_single_file_of_the_videomae_repository(checkpoint, tmp_path, frames_clip, encode):
    from transformers import VideoMAEModel

    with pretrained.quiet():
        state = VideoMAEModel.from_pretrained(checkpoint).state_dict()
    original = {
        "encoder_to_decoder.weight": torch.zeros(16, 64),
        "mask_token": torch.zeros(1, 1, 16),
        "decoder.blocks.0.norm1.weight": torch.zeros(16),
    }
    for kind in ("weight", "bias"):
        original[f"encoder.patch_embed.proj.{kind}"] = state[f"embeddings.patch_embeddings.projection.{kind}"]
        for i in range(2):
            ours, theirs = f"encoder.layer.{i}", f"encoder.blocks.{i}"
            for a, b in (
                ("attn.proj", "attention.output.dense"),
                ("norm1", "layernorm_before"),
                ("norm2", "layernorm_after"),
                ("mlp.fc1", "intermediate.dense"),
                ("mlp.fc2", "output.dense"),
            ):
                original[f"{theirs}.{a}.{kind}"] = state[f"{ours}.{b}.{kind}"]
    for i in range(2):
        attention = f"encoder.layer.{i}.attention.attention"
        original[f"encoder.blocks.{i}.attn.qkv.weight"] = torch.cat(
            [state[f"{attention}.{part}.weight"] for part in ("query", "key", "value")]
        )
        original[f"encoder.blocks.{i}.attn.q_bias"] = state[f"{attention}.query.bias"]
        original[f"encoder.blocks.{i}.attn.v_bias"] = state[f"{attention}.value.bias"]
    torch.save({"model": original}, tmp_path / "maeV.pth")
    entry = stream(tmp_path / "maeV.pth", architecture={"image_size": 32}, options={"statistics": "unit"})
    clip = frames_clip(5, frames=16)
    extractor = registry.build(entry)
    ((values, _),) = encode(extractor, [clip])
    with pretrained.quiet(), torch.inference_mode():
        pixels = torch.from_numpy(extractor.prepare(clip).inputs["pixels"]).permute(0, 3, 1, 2)[None] / 255
        expected = VideoMAEModel.from_pretrained(checkpoint).eval()(pixel_values=pixels).last_hidden_state.mean(1)
    np.testing.assert_allclose(values, expected.numpy(), atol=1e-5)


def test_wrong_keys(checkpoint, tmp_path):
    import safetensors.torch

    for file in checkpoint.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = safetensors.torch.load_file(tmp_path / "model.safetensors")
    key = "videomae.encoder.layer.1.output.dense.bias"
    state["videomae.other"] = state.pop(key)
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 missing \(.*layer.1.output.dense.bias\).*1 unexpected \(.*other\)"):
        Forward(registry.build(stream(tmp_path)))


def test_bad_options(checkpoint):
    for change, message in (
        ({"options": {"sampling": "segment"}}, "Did you mean 'segments'"),
        ({"options": {"output": "x"}}, "Unknown videomae.options.output"),
        ({"layer": "all"}, "one layer"),
    ):
        with pytest.raises(ParamsError, match=message):
            registry.build(stream(checkpoint, **change))
