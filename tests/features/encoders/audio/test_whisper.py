"""The Whisper encoder against the library itself, and the real tiny.en."""

from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pytest
import torch
import transformers

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.audio import mel, whisper, whisper_network
from pipeline.features.encoders.extractor import Clip, Missing
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream
from pipeline.weights import pretrained

#: Pieces of 2 s instead of 30 s keep the tests quick; nothing else depends on it.
SMALL = dict(
    d_model=32,
    encoder_layers=3,
    encoder_attention_heads=4,
    encoder_ffn_dim=48,
    max_source_positions=100,
    num_mel_bins=20,
    decoder_layers=1,
    decoder_attention_heads=4,
    decoder_ffn_dim=32,
    vocab_size=50,
    pad_token_id=0,
    bos_token_id=0,
    eos_token_id=0,
    decoder_start_token_id=0,
    max_target_positions=16,
)


def stream(weights: str, **kwargs) -> Stream:
    return Stream(modality="audio", source="data/audio.h5", encoder="whisper", weights=weights, **kwargs)


def clip(seconds: float, seed: int = 0, **kwargs) -> Clip:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16000)) / 16000
    wave = np.sin(2 * np.pi * rng.uniform(100, 900) * time) * 0.3 + 0.05 * rng.normal(size=len(time))
    return Clip(f"c{seed}", waveform=wave.astype(np.float32), **kwargs)


def run(extractor, *clips):
    return Forward(extractor)([extractor.prepare(c) for c in clips])


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny checkpoint as the library writes it, in float16, and the library's model and front end."""
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**SMALL)).eval().half()
    model.save_pretrained(folder)
    front = transformers.WhisperFeatureExtractor(feature_size=20, chunk_length=2)
    front.save_pretrained(folder)
    return folder, model.model.encoder.float(), front


def test_golden_full(saved):
    folder, model, front = saved
    one = clip(1.3)
    features = front(one.waveform, sampling_rate=16000, return_tensors="pt").input_features
    prepare = registry.build(stream(f"local:{folder}", options={"padding": "full"})).prepare
    np.testing.assert_allclose(prepare(one).inputs["mel"], features[0].numpy(), atol=2e-5)
    with torch.inference_mode():
        expected = model(features, output_hidden_states=True)
    for layer, wanted in (
        (-1, expected.last_hidden_state),
        (1, expected.hidden_states[1]),
        (0, expected.hidden_states[0]),
    ):
        extractor = registry.build(stream(f"local:{folder}", layer=layer, options={"padding": "full"}))
        ((values, times),) = run(extractor, one)
        assert values.shape == (65, 32) and times[-1, 1] == np.float32(1.3)
        np.testing.assert_allclose(values, wanted[0, :65].numpy(), atol=3e-5)


def test_golden_exact(saved):
    """The library refuses other lengths than its own, so its model is told that the clip's is its own."""
    folder, model, front = saved
    one = clip(1.0)
    features = front(one.waveform, sampling_rate=16000, return_tensors="pt").input_features[:, :, :100]
    torch.manual_seed(0)
    short = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**SMALL | {"max_source_positions": 50}))
    state = model.state_dict()
    state["embed_positions.weight"] = state["embed_positions.weight"][:50]
    short = short.model.encoder.eval()
    short.load_state_dict(state)
    with torch.inference_mode():
        expected = short(features).last_hidden_state[0].numpy()
    ((values, _),) = run(registry.build(stream(f"local:{folder}")), one)
    np.testing.assert_allclose(values, expected, atol=3e-5)


def test_exact_is_the_beginning_of_full(saved):
    folder, *_ = saved
    exact = registry.build(stream(f"local:{folder}"))
    full = registry.build(stream(f"local:{folder}", options={"padding": "full"}))
    assert exact.identity != full.identity
    for seconds in (0.01, 0.5, 1.111, 1.99, 2.0):
        one = clip(seconds)
        short, long = exact.prepare(one).inputs["mel"], full.prepare(one).inputs["mel"]
        assert short.shape[1] == 2 * -(-len(one.waveform) // 320) and long.shape[1] == 200
        np.testing.assert_allclose(short, long[:, : short.shape[1]], atol=1e-6)


@pytest.mark.parametrize("padding", ("exact", "full"))
@pytest.mark.parametrize("layer", [-1, "all"])
def test_alone_equals_among_neighbours(saved, padding, layer):
    folder, *_ = saved
    extractor = registry.build(stream(f"local:{folder}", layer=layer, options={"padding": padding}))
    forward = Forward(extractor)
    clips = [extractor.prepare(clip(s, i)) for i, s in enumerate([0.7, 2.0, 0.31, 4.1, 0.02, 1.9, 0.9, 0.7])]
    for prepared, (values, times) in zip(clips, forward(clips), strict=True):
        ((alone, alone_times),) = forward([prepared])
        assert values.shape == alone.shape
        np.testing.assert_allclose(values, alone, atol=1e-5)
        np.testing.assert_array_equal(times, alone_times)


def test_a_clip_longer_than_the_window_is_encoded_in_pieces(saved):
    folder, *_ = saved
    one = clip(5.0)
    for padding in ("exact", "full"):
        extractor = registry.build(stream(f"local:{folder}", options={"padding": padding}))
        ((values, times),) = run(extractor, one)
        ((head, _),) = run(extractor, Clip("h", waveform=one.waveform[:32000]))
        ((tail, _),) = run(extractor, Clip("t", waveform=one.waveform[64000:]))
        assert len(values) == 250 and times[-1, 1] == 5.0
        np.testing.assert_allclose(values[:100], head, atol=1e-5)
        np.testing.assert_allclose(values[200:], tail, atol=1e-5)


def test_stored_numbers():
    ((values, _),) = run(registry.build(stream("random:7", architecture=SMALL)), clip(1.0))
    got = [values.mean(), values.std(), values[10, 3], values[40, 31]]
    np.testing.assert_allclose(got, [0.0, 1.0, 1.0437, 1.0969], atol=2e-4)


def test_prepare_travels_to_workers():
    extractor = registry.build(stream("random:0", architecture=SMALL))
    again = pickle.loads(pickle.dumps(extractor.prepare))
    np.testing.assert_array_equal(again(clip(0.5)).inputs["mel"], extractor.prepare(clip(0.5)).inputs["mel"])
    pickle.dumps(extractor.load)
    assert json.loads(json.dumps(extractor.identity)) == extractor.identity


def test_mel_of_a_tone_peaks_at_its_bin():
    bank = mel.bank(80, 400, 16000)
    time = np.arange(16000) / 16000
    peaks = [mel.power(np.sin(2 * np.pi * f * time), 400, 160, bank)[:, 50].argmax() for f in (200, 1000, 4000)]
    assert peaks == sorted(peaks) and peaks == [bank[round(f * 400 / 16000)].argmax() for f in (200, 1000, 4000)]


def test_bad_input(saved, tmp_path):
    folder, *_ = saved
    extractor = registry.build(stream("random:0", architecture=SMALL))
    with pytest.raises(Missing):
        extractor.prepare(Clip("a"))
    with pytest.raises(ParamsError, match="decode.audio.rate"):
        extractor.prepare(clip(0.5, rate=8000))
    with pytest.raises(ParamsError, match="padding"):
        registry.build(stream("random:0", architecture=SMALL, options={"padding": "half"}))
    with pytest.raises(ParamsError, match="layer 4"):
        registry.build(stream("random:0", architecture=SMALL, layer=4))
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(WeightsError, match="feature_size"):
        registry.build(stream(f"local:{tmp_path}"))
    front = json.loads((folder / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(front | {"feature_size": 80}))
    with pytest.raises(WeightsError, match="80 mel bins"):
        registry.build(stream(f"local:{tmp_path}"))


def test_silence_is_finite():
    ((values, _),) = run(registry.build(stream("random:0", architecture=SMALL)), Clip("a", waveform=np.zeros(8000, np.float32)))
    assert np.isfinite(values).all() and len(values) == 25


def test_real_tiny_en(real):
    """float16 weights compute in float32, and equal the library on a real clip."""
    import soundfile

    folder = real / "weights" / "whisper-tiny.en"
    waveform, _ = soundfile.read(real / "ravdess/audio/Actor_01/03-01-05-02-01-01-01.flac", dtype="float32")
    extractor = registry.build(stream(f"local:{folder}", options={"padding": "full"}))
    prepared = extractor.prepare(Clip("a", waveform=waveform))
    ((values, _),) = Forward(extractor)([prepared])
    model = transformers.WhisperModel.from_pretrained(folder, dtype=torch.float32).encoder.eval()
    with torch.inference_mode():
        expected = model(torch.from_numpy(prepared.inputs["mel"])[None]).last_hidden_state[0].numpy()
    np.testing.assert_allclose(values, expected[: len(values)], atol=1e-4)
    assert len(extractor.identity["weights"]["sha256"]) == 64


def test_a_classifier_gives_the_features_below_its_head(saved, tmp_path):
    torch.manual_seed(3)
    sizes = SMALL | {"classifier_proj_size": 8, "use_weighted_layer_sum": True}
    model = transformers.WhisperForAudioClassification(transformers.WhisperConfig(**sizes)).eval()
    model.save_pretrained(tmp_path)
    saved[2].save_pretrained(tmp_path)
    one = clip(1.3)
    ((values, _),) = run(registry.build(stream(f"local:{tmp_path}", options={"padding": "full"})), one)
    with torch.inference_mode():
        features = saved[2](one.waveform, sampling_rate=16000, return_tensors="pt").input_features
        wanted = model.encoder(features).last_hidden_state[0, : len(values)]
    np.testing.assert_allclose(values, wanted.numpy(), atol=2e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("lengths", [(60,), (60, 100, 14)])
def test_the_network_is_the_librarys_to_the_bit(saved, dtype, lengths):
    """Of one clip, and of several with a mask."""
    folder, model, _ = saved
    mine = whisper.load_network(stream(f"local:{folder}", dtype=dtype))
    assert isinstance(mine, whisper_network.Network) and mine.dtype == getattr(torch, dtype)
    theirs = pretrained.load(type(model), f"local:{folder}", dtype=dtype)
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    torch.manual_seed(0)
    pieces = [torch.randn(20, length) for length in lengths]
    rows = [whisper.WhisperEncoder(network, 200, ("all",), "cpu")._encode_pieces(pieces) for network in (mine, theirs)]
    with torch.inference_mode():
        assert all(torch.equal(a, b) for a, b in zip(rows[0][0], rows[1][0], strict=True))
    assert [part.shape for part in rows[0][0]] == [(length // 2, 4, 32) for length in lengths]


def test_heads_that_do_not_divide_the_width_are_told(saved, tmp_path):
    folder = tmp_path / "odd"
    shutil.copytree(saved[0], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"encoder_attention_heads": 5}))
    with pytest.raises(WeightsError, match="no Whisper encoder"):
        whisper.load_network(stream(f"local:{folder}"))
