"""The speech transformers against the library itself."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
import transformers

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.audio import hubert, waveforms
from pipeline.features.encoders.extractor import Clip, Missing
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream

SMALL = dict(
    hidden_size=48,
    num_hidden_layers=5,
    num_attention_heads=4,
    intermediate_size=64,
    conv_dim=[16] * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
)
STABLE = dict(do_stable_layer_norm=True, feat_extract_norm="layer")
KINDS = {
    "hubert": ("hubert", {}),
    "hubert-large": ("hubert", STABLE),
    "wav2vec2": ("wav2vec2", {}),
    "wav2vec2-large": ("wav2vec2", STABLE),
    "wavlm": ("wavlm", {}),
    "wavlm-large": ("wavlm", STABLE),
    "data2vec-audio": ("data2vec-audio", dict(num_conv_pos_embeddings=5)),
}
#: Mean, standard deviation and two values of a stand-in's features, so that a change of library or of code shows.
STORED_NUMBERS = [0.0, 1.0, 2.2345, 0.0802]


def stream(weights: str, **kwargs) -> Stream:
    return Stream(modality="audio", source="data/audio.h5", encoder="hubert", weights=weights, **kwargs)


def clip(seconds: float, seed: int = 0, **kwargs) -> Clip:
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * 16000)) / 16000
    tone = np.sin(2 * np.pi * rng.uniform(100, 400) * time) * rng.uniform(0.1, 0.9)
    return Clip(f"c{seed}", waveform=(tone + 0.05 * rng.normal(size=len(time)) + 0.02).astype(np.float32), **kwargs)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders in the library's own format, and the library's own models."""
    made = {}

    def make(name):
        if name not in made:
            kind, more = KINDS[name]
            model_class, config_class = (getattr(transformers, n) for n in hubert.MODELS[kind])
            folder = tmp_path_factory.mktemp(name)
            torch.manual_seed(0)
            model = model_class(config_class(**(SMALL | more))).eval()
            model.save_pretrained(folder)
            front = transformers.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=bool(more))
            front.save_pretrained(folder)
            made[name] = folder, model, front
        return made[name]

    return make


def direct(model, front, waveform, layer=-1):
    inputs = front(waveform, sampling_rate=16000, return_tensors="pt").input_values
    with torch.inference_mode():
        output = model(inputs, output_hidden_states=True)
    return output.last_hidden_state[0].numpy() if layer == -1 else output.hidden_states[layer][0].numpy()


@pytest.mark.parametrize("name", sorted(KINDS))
def test_golden(saved, name):
    folder, model, front = saved(name)
    one = clip(1.0)
    for layer in (-1, 2):
        extractor = registry.build(stream(f"local:{folder}", layer=layer))
        ((values, times),) = Forward(extractor)([extractor.prepare(one)])
        assert values.shape == (49, 48) and values.dtype == np.float32
        np.testing.assert_allclose(values, direct(model, front, one.waveform, layer), atol=1e-5)
    assert times[0, 0] == 0 and times[-1, 1] == 1.0
    np.testing.assert_allclose(times[1:, 0], np.arange(1, 49) / 50, atol=1e-6)


def test_stored_numbers():
    extractor = registry.build(stream("random:7", architecture=SMALL))
    ((values, _),) = Forward(extractor)([extractor.prepare(clip(1.0))])
    got = [values.mean(), values.std(), values[10, 3], values[40, 47]]
    np.testing.assert_allclose(got, STORED_NUMBERS, atol=2e-4)


@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize("layer", [-1, "all"])
def test_alone_equals_among_neighbours(saved, name, layer):
    folder, *_ = saved(name)
    extractor = registry.build(stream(f"local:{folder}", layer=layer))
    forward = Forward(extractor)
    clips = [extractor.prepare(clip(s, i)) for i, s in enumerate([0.7, 2.0, 0.31, 1.1, 0.05, 1.9, 0.9, 0.7])]
    together = forward(clips)
    for prepared, (values, times) in zip(clips, together, strict=True):
        ((alone, alone_times),) = forward([prepared])
        assert values.shape == alone.shape
        np.testing.assert_allclose(values, alone, atol=1e-5)
        np.testing.assert_array_equal(times, alone_times)


def test_all_layers_and_their_sum(saved):
    folder, model, front = saved("hubert-large")
    one = clip(0.5)
    ((every, _),) = Forward(e := registry.build(stream(f"local:{folder}", layer="all")))([e.prepare(one)])
    ((four, _),) = Forward(e := registry.build(stream(f"local:{folder}", layer="last4")))([e.prepare(one)])
    assert every.shape == (24, 6, 48)
    np.testing.assert_allclose(every[:, -1], direct(model, front, one.waveform), atol=1e-5)
    np.testing.assert_allclose(every[:, 2:].sum(1), four, atol=1e-4)


def test_pooled_to_a_rate():
    extractor = registry.build(stream("random:0", architecture=SMALL, rate=4, pooling="statistics"))
    ((values, times),) = Forward(extractor)([extractor.prepare(clip(2.0))])
    assert values.shape == (8, 96) and times[-1, 1] == 2.0


def test_chunks_are_encoded_alone(saved):
    folder, model, front = saved("hubert")
    one = clip(2.5)
    extractor = registry.build(stream(f"local:{folder}", options={"chunk": 1.0, "normalise": False}))
    ((values, times),) = Forward(extractor)([extractor.prepare(one)])
    with torch.inference_mode():
        parts = [model(torch.from_numpy(part)[None]).last_hidden_state[0] for part in np.split(one.waveform, [16000, 32000])]
    np.testing.assert_allclose(values, torch.cat(parts).numpy(), atol=1e-5)
    assert len(times) == 49 + 49 + 24 and times[49, 0] == 1.0 and times[-1, 1] == 2.5
    assert waveforms.split_lengths(16100, 1.0, 400) == [16100]


def test_prepare_travels_to_workers_without_torch():
    extractor = registry.build(stream("random:0", architecture=SMALL))
    again = pickle.loads(pickle.dumps(extractor.prepare))
    np.testing.assert_array_equal(again(clip(0.5)).inputs["waveform"], extractor.prepare(clip(0.5)).inputs["waveform"])
    pickle.dumps(extractor.load)


def test_normalisation_comes_from_the_checkpoint(saved, tmp_path):
    folder, model, _ = saved("wav2vec2")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    front = {"do_normalize": False, "sampling_rate": 16000}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(front))
    one = clip(0.4)
    extractor = registry.build(stream(f"local:{tmp_path}"))
    np.testing.assert_array_equal(extractor.prepare(one).inputs["waveform"], one.waveform)
    assert extractor.identity["preprocessing"]["normalise"] is False
    (tmp_path / "preprocessor_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="do_normalize"):
        registry.build(stream(f"local:{tmp_path}"))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(front | {"sampling_rate": 8000}))
    with pytest.raises(WeightsError, match="8000 Hz"):
        registry.build(stream(f"local:{tmp_path}"))


def test_heads_are_left_out_and_gaps_are_errors(saved, tmp_path):
    folder, model, front = saved("wav2vec2")
    torch.manual_seed(1)
    with_head = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**SMALL)).eval()
    with_head.save_pretrained(tmp_path / "ctc")
    front.save_pretrained(tmp_path / "ctc")
    extractor = registry.build(stream(f"local:{tmp_path / 'ctc'}"))
    ((values, _),) = Forward(extractor)([extractor.prepare(clip(0.5))])
    np.testing.assert_allclose(values, direct(with_head.wav2vec2, front, clip(0.5).waveform), atol=1e-5)

    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors.pop("encoder.layers.1.attention.q_proj.weight")
    gap = tmp_path / "gap"
    gap.mkdir()
    for name in ("config.json", "preprocessor_config.json"):
        (gap / name).write_bytes((folder / name).read_bytes())
    save_file(tensors, gap / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="q_proj"):
        Forward(registry.build(stream(f"local:{gap}")))


@pytest.mark.parametrize(
    ("kind", "inner"),
    [
        ("HubertForSequenceClassification", "hubert"),
        ("WavLMForXVector", "wavlm"),
        ("Data2VecAudioForSequenceClassification", "data2vec_audio"),
    ],
)
def test_classifiers_give_the_features_below_their_head(tmp_path, kind, inner):
    model_class = getattr(transformers, kind)
    sizes = SMALL | {"use_weighted_layer_sum": True, "classifier_proj_size": 8}
    torch.manual_seed(2)
    model = model_class(model_class.config_class(**sizes | ({"num_conv_pos_embeddings": 5} if "Data2" in kind else {}))).eval()
    model.save_pretrained(tmp_path)
    front = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    front.save_pretrained(tmp_path)
    extractor = registry.build(stream(f"local:{tmp_path}"))
    ((values, _),) = Forward(extractor)([extractor.prepare(clip(0.5))])
    np.testing.assert_allclose(values, direct(getattr(model, inner), front, clip(0.5).waveform), atol=1e-5)


def test_bad_input(saved, tmp_path):
    extractor = registry.build(stream("random:0", architecture=SMALL))
    with pytest.raises(Missing):
        extractor.prepare(Clip("a"))
    with pytest.raises(Missing):
        extractor.prepare(Clip("a", waveform=np.zeros(0, np.float32)))
    with pytest.raises(ParamsError, match="decode.audio.rate"):
        extractor.prepare(clip(0.5, rate=48000))
    with pytest.raises(ValueError, match="finite"):
        extractor.prepare(Clip("a", waveform=np.full(1600, np.nan, np.float32)))
    with pytest.raises(ParamsError, match="layer 6"):
        registry.build(stream("random:0", architecture=SMALL, layer=6))
    with pytest.raises(ParamsError, match="hiden_size"):
        registry.build(stream("random:0", architecture={"hiden_size": 8}))
    with pytest.raises(WeightsError, match="bert"):
        registry.build(stream("random:0", architecture={"model_type": "bert"}))
    with pytest.raises(WeightsError, match="not there"):
        registry.build(stream(f"local:{tmp_path / 'none'}"))


def test_a_very_short_or_silent_clip_still_has_a_frame():
    extractor = registry.build(stream("random:0", architecture=SMALL))
    forward = Forward(extractor)
    for waveform in (np.ones(10, np.float32), np.zeros(8000, np.float32)):
        ((values, times),) = forward([extractor.prepare(Clip("a", waveform=waveform))])
        assert len(values) >= 1 and np.isfinite(values).all() and times[-1, 1] == pytest.approx(len(waveform) / 16000)


def test_identity():
    one = registry.build(stream("random:0", architecture=SMALL)).identity
    assert one == registry.build(stream("random:0", architecture=SMALL)).identity
    for change in (dict(layer=1), dict(rate=5), dict(pooling="mean"), dict(options={"chunk": 5.0})):
        assert registry.build(stream("random:0", architecture=SMALL, **change)).identity != one
    assert registry.build(stream("random:1", architecture=SMALL)).identity != one
    assert json.loads(json.dumps(one)) == one


def test_as_many_strides_as_kernels():
    for count in (lambda *sizes: waveforms.count_frames(400, *sizes), waveforms.receptive_field):
        with pytest.raises(ValueError, match="zip"):
            count((10, 3), (5,))
