"""emotion2vec against the published implementation, by numbers it gave for weights that a formula makes."""

from __future__ import annotations

import argparse
import pickle
import zlib

import numpy as np
import pytest
import torch

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.audio import emotion2vec, emotion2vec_network
from pipeline.features.encoders.extractor import Clip, Missing
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream

KERNELS = (10, 3, 3, 3, 3, 2, 2)
#: width, heads, alibi scales → the first four values of the first row, the last four of the last, mean, deviation.
#: Computed with the model `Emotion2vec` of funasr 1.4.16 (2 context blocks, 3 blocks, 4 extra tokens, no dropout).
PUBLISHED = {
    (48, 6, 1): [1.45104, -0.17744, 1.48337, 0.10706, -0.64621, 0.39741, 0.44465, 1.27017, -0.02905, 0.99404],
    (64, 8, 5): [0.0459, -1.18924, 0.24313, 0.6659, 1.59998, -2.10779, -1.8509, 1.51969, -0.01977, 0.98676],
}
SMALL = {"width": 32, "heads": 4, "inner": 64, "blocks": 3, "front": 16, "position_groups": 4}


def published(width: int = 48, heads: int = 6, scales: int = 1, early: int = 2, late: int = 3) -> dict[str, torch.Tensor]:
    """A checkpoint's weights under their published names, each from its name alone."""
    audio = "modality_encoders.AUDIO."
    shapes = {f"{audio}extra_tokens": (1, 4, width), f"{audio}alibi_scale": (scales, 1, heads, 1, 1)}
    for i, kernel in enumerate(KERNELS):
        shapes[f"{audio}local_encoder.conv_layers.{i}.0.weight"] = (32, 32 if i else 1, kernel)
        shapes |= {f"{audio}local_encoder.conv_layers.{i}.2.1.{part}": (32,) for part in ("weight", "bias")}
    shapes |= {f"{audio}project_features.1.{part}": (32,) for part in ("weight", "bias")}
    shapes |= {f"{audio}project_features.2.weight": (width, 32), f"{audio}project_features.2.bias": (width,)}
    for i in range(1, 6):
        shapes[f"{audio}relative_positional_encoder.{i}.0.weight"] = (width, width // 4, 19)
        shapes[f"{audio}relative_positional_encoder.{i}.0.bias"] = (width,)
    shapes |= {f"{audio}context_encoder.norm.{part}": (width,) for part in ("weight", "bias")}
    inside = {
        "norm1": (width,),
        "norm2": (width,),
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }
    for block in (*(f"{audio}context_encoder.blocks.{i}" for i in range(early)), *(f"blocks.{i}" for i in range(late))):
        for name, shape in inside.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
    shapes |= {f"{audio}decoder.proj.weight": (8, 8), "_ema": (4,), "proj.weight": (5, width), "proj.bias": (5,)}
    return {name: torch.from_numpy(formula(name, shape)) for name, shape in shapes.items()}


def formula(name: str, shape: tuple[int, ...]) -> np.ndarray:
    values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape).astype(np.float32)
    if name.endswith("alibi_scale"):
        return np.abs(values)
    if values.ndim == 1:
        return (1 if name.endswith("weight") else 0) + 0.1 * values
    return (values / np.sqrt(max(1, np.prod(shape[1:])))).astype(np.float32)


def stream(weights: str, **kwargs) -> Stream:
    return Stream(modality="audio", source="data/audio.h5", encoder="emotion2vec", weights=weights, **kwargs)


def clip(seconds: float = 0.5, first: float = 220, second: float = 1234.5) -> Clip:
    time = np.arange(int(16000 * seconds)) / 16000
    wave = 0.3 * np.sin(2 * np.pi * first * time) + 0.1 * np.sin(2 * np.pi * second * time)
    return Clip("a", waveform=wave.astype(np.float32))


def run(extractor, *clips):
    return Forward(extractor)([extractor.prepare(one) for one in clips])


@pytest.fixture
def saved(tmp_path):
    def save(state: dict | None = None, **beside):
        torch.save({"model": published() if state is None else state, **beside}, tmp_path / "emotion2vec_base.pt")
        return f"local:{tmp_path / 'emotion2vec_base.pt'}"

    return save


@pytest.mark.parametrize("size", list(PUBLISHED))
def test_equals_the_published_implementation(size, saved):
    weights = saved(published(*size), args=argparse.Namespace(command="as training scripts leave it"))
    ((values, times),) = run(registry.build(stream(weights)), clip())
    assert values.shape == (24, size[0])
    found = [*values[0, :4], *values[-1, -4:], values.mean(), values.std()]
    np.testing.assert_allclose(found, PUBLISHED[size], atol=5e-5)
    np.testing.assert_allclose(times[:, 0], np.arange(24) / 50, atol=1e-6)
    assert times[-1, 1] == 0.5


def test_normalised_per_clip(saved):
    """Louder is the same."""
    extractor = registry.build(stream(saved()))
    loud = Clip("a", waveform=clip().waveform * 2)
    np.testing.assert_allclose(*(run(extractor, one)[0][0] for one in (clip(), loud)), atol=2e-3)


@pytest.mark.parametrize("layer", [-1, 0, "last4", "all"])
def test_alone_equals_among_neighbours(saved, layer):
    extractor = registry.build(stream(saved(), layer=layer))
    clips = [clip(seconds, 100 + 40 * i) for i, seconds in enumerate((0.5, 1.3, 0.03, 0.7, 1.0, 0.5, 0.2, 0.9))]
    for one, (values, times) in zip(clips, run(extractor, *clips), strict=True):
        ((alone, alone_times),) = run(extractor, one)
        np.testing.assert_allclose(values, alone, atol=4e-5 if layer == "last4" else 1e-5)  # a sum of four
        np.testing.assert_array_equal(times, alone_times)
    shape = run(extractor, clips[0])[0][0].shape
    assert shape == ((24, 6, 48) if layer == "all" else (24, 48))


def test_older_files_keep_the_scale_without_its_first_axis(saved):
    state = published()
    ((expected, _),) = run(registry.build(stream(saved(dict(state)))), clip())
    state["modality_encoders.AUDIO.alibi_scale"] = state["modality_encoders.AUDIO.alibi_scale"][0]
    prefixed = {f"d2v_model.{key}": value for key, value in state.items()}
    ((values, _),) = run(registry.build(stream(saved(prefixed))), clip())
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize(
    ("heads", "expected"),
    [
        (8, [2.0 ** -(i + 1) for i in range(8)]),
        (4, [0.25, 0.0625, 2**-6, 2**-8]),
        (12, [*(2.0 ** -(i + 1) for i in range(8)), 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
    ],
)
def test_slopes_are_those_of_alibi(heads, expected):
    np.testing.assert_allclose(emotion2vec_network.slopes(heads), expected, rtol=1e-6)


def test_attention_falls_off_with_distance_and_not_for_extra_tokens():
    network = emotion2vec_network.Network(emotion2vec.size_stand_in(SMALL))
    bias = network.bias(5, [5, 3], torch.device("cpu"))[0].detach()
    assert bias.shape == (2, 4, 15, 15)
    assert (bias[0, :, :10] == 0).all() and (bias[0, :, :, :10] == 0).all()
    np.testing.assert_allclose(bias[0, 0, 10, 10:], -0.25 * torch.arange(5))
    assert torch.isinf(bias[1, :, :, 13:]).all() and torch.isfinite(bias[1, :, :, :13]).all()


def test_a_stand_in_and_its_identity():
    extractor = registry.build(stream("random:3", architecture=SMALL))
    pickle.dumps(extractor.load)
    again = pickle.loads(pickle.dumps(extractor.prepare))
    np.testing.assert_array_equal(again(clip()).inputs["waveform"], extractor.prepare(clip()).inputs["waveform"])
    ((first, _),) = run(extractor, clip())
    ((second, _),) = run(registry.build(stream("random:3", architecture=SMALL)), clip())
    np.testing.assert_array_equal(first, second)
    assert extractor.identity["weights"]["random"] and first.shape == (24, 32)


def without(state: dict, part: str) -> dict:
    return {key: value for key, value in state.items() if part not in key}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "blocks.1.mlp.fc2"), r"covers 9\d.\d %.* 4 missing \(blocks.1.mlp.fc2.bias"),
        (lambda s: without(s, "alibi_scale"), "is no emotion2vec checkpoint"),
        (lambda s: {"encoder.layers.0.weight": torch.ones(2)}, "is no emotion2vec checkpoint"),
        (lambda s: s | {"blocks.1.attn.gate": torch.ones(2)}, r"1 unexpected \(blocks.3.attn.gate\)"),
        (lambda s: s | {"blocks.0.norm1.bias": torch.ones(3)}, r"blocks.2.norm1.bias of shape \(3,\), not \(48,\)"),
        (lambda s: without(s, "conv_layers.6."), "front end of kernels"),
    ],
)
def test_another_checkpoint_is_one_line(saved, change, message):
    with pytest.raises(WeightsError, match=message) as caught:
        Forward(registry.build(stream(saved(change(published())))))
    assert "\n" not in str(caught.value)


def test_a_pickle_that_needs_code_is_not_run(saved):
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        Forward(registry.build(stream(saved(cfg=Stream))))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"architecture": SMALL | {"depth": 2}}, "Unknown size of emotion2vec 'depth'"),
        ({"architecture": SMALL | {"heads": 5}}, "must divide width"),
        ({"architecture": SMALL | {"blocks": 0}}, "blocks 0 is no positive"),
        ({"architecture": SMALL, "layer": 4}, "layer 4"),
    ],
)
def test_bad_parameters(kwargs, message):
    with pytest.raises(ParamsError, match=message):
        registry.build(stream("random:0", **kwargs))


def test_no_sound_is_missing():
    extractor = registry.build(stream("random:0", architecture=SMALL))
    with pytest.raises(Missing):
        extractor.prepare(Clip("a"))
    ((values, _),) = run(extractor, Clip("a", waveform=np.zeros(10, np.float32)))
    assert len(values) == 1 and np.isfinite(values).all()
