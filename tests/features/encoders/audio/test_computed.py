"""Features without a network: log-mel, eGeMAPS, word vectors."""

from __future__ import annotations

import gzip
import json
import pickle

import numpy as np
import pytest
import torch
import torchaudio

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.audio import egemaps
from pipeline.features.encoders.extractor import Clip, Missing
from pipeline.features.engine.forward import Forward
from pipeline.params import Stream


def audio(**kwargs) -> Stream:
    return Stream(modality="audio", source="data/audio.h5", weights="none", **{"encoder": "logmel"} | kwargs)


def words(path, **kwargs) -> Stream:
    return Stream(modality="text", source="data/manifest.parquet", encoder="glove", weights=f"file:{path}", **kwargs)


def tone(seconds=1.0, frequency=300.0, loudness=0.3) -> Clip:
    time = np.arange(round(seconds * 16000)) / 16000
    noise = np.random.default_rng(0).normal(size=len(time)) * 0.01
    return Clip("a", waveform=(loudness * np.sin(2 * np.pi * frequency * time) + noise).astype(np.float32))


def run(extractor, *clips):
    return Forward(extractor, device="cpu")([extractor.prepare(c) for c in clips])


def test_logmel_equals_torchaudio():
    one = tone(0.8)
    ((values, times),) = run(registry.build(audio()), one)
    spectrum = (
        torch.stft(
            torch.from_numpy(one.waveform).double(),
            400,
            160,
            window=torch.hann_window(400).double(),
            return_complex=True,
        ).abs()
        ** 2
    )
    bank = torchaudio.functional.melscale_fbanks(201, 0.0, 8000.0, 40, 16000, norm="slaney", mel_scale="slaney")
    expected = (bank.double().T @ spectrum).clamp(min=1e-10).log()[:, :80].T
    assert values.shape == (80, 40) and times[-1, 1] == np.float32(0.8)
    np.testing.assert_allclose(values, expected.numpy(), atol=2e-3)


def test_logmel_options():
    loud, quiet = tone(loudness=0.5), tone(loudness=0.5)
    quiet = Clip("b", waveform=quiet.waveform * 0.1)
    (a, _), (b, _) = run(registry.build(audio(options={"normalise": True, "bins": 20})), loud, quiet)
    assert a.shape[1] == 20
    np.testing.assert_allclose(a, b, atol=1e-2)
    ((values, times),) = run(registry.build(audio(pooling="statistics", rate=4)), loud)
    assert values.shape == (4, 80)
    ((silent, _),) = run(registry.build(audio()), Clip("c", waveform=np.zeros(50, np.float32)))
    assert silent.shape == (1, 40) and np.isfinite(silent).all()
    for bad in ({"options": {"bins": 0}}, {"options": {"bins": 200}}, {"layer": 2}):
        with pytest.raises(ParamsError):
            registry.build(audio(**bad))
    with pytest.raises(Missing):
        registry.build(audio()).prepare(Clip("d"))


def test_egemaps_absent_is_one_line(monkeypatch):
    monkeypatch.setattr(egemaps, "PACKAGE", "a_package_nobody_has")
    with pytest.raises(WeightsError, match="pip install opensmile"):
        registry.build(audio(encoder="egemaps"))


def test_egemaps():
    pytest.importorskip("opensmile", reason="the optional package opensmile is not installed")
    ((values, times),) = run(registry.build(audio(encoder="egemaps")), tone(1.0, 220.0))
    assert values.shape == (1, 88) and times.tolist() == [[0, 1]]
    # The first functional is the mean pitch, in semitones above 27.5 Hz.
    assert values[0, 0] == pytest.approx(12 * np.log2(220 / 27.5), abs=0.5)
    ((values, _),) = run(registry.build(audio(encoder="egemaps", pooling="mean")), tone(1.0, 220.0))
    assert values.shape == (1, 25)


@pytest.fixture
def vectors(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("the 1 0 0\nhappy 0 1 0.5\n. . . 9 9 9\nn't 0 0 1\ndo 2 0 0\n, 0 0 -1\nthe 7 7 7\n")
    return path


def test_glove(vectors):
    extractor = registry.build(words(vectors))
    one = Clip("a", text="The, zebra don’t HAPPY", duration=11.0)
    ((values, times),) = run(extractor, one)
    assert values.tolist() == [[1, 0, 0], [0, 0, -1], [2, 0, 0], [0, 0, 1], [0, 1, 0.5]]
    np.testing.assert_allclose(times[[0, -1]], [[0, 1.5], [8.5, 11]])
    ((mean, _),) = run(registry.build(words(vectors, pooling="mean")), one)
    np.testing.assert_allclose(mean[0], values.mean(0))
    assert extractor.notes == {"words": 6, "width": 3}
    cased = registry.build(words(vectors, options={"lower": False}))
    with pytest.raises(Missing, match="vocabulary"):
        cased.prepare(Clip("b", text="HAPPY The"))
    with pytest.raises(Missing):
        extractor.prepare(Clip("b", text=None))
    assert pickle.loads(pickle.dumps(extractor.prepare))(one).inputs["values"].shape == (5, 3)
    assert json.loads(json.dumps(extractor.identity)) == extractor.identity


def test_glove_formats(vectors, tmp_path):
    text = vectors.read_text()
    (tmp_path / "v.vec").write_text("7 3\n" + text)
    with gzip.open(tmp_path / "v.txt.gz", "wt") as file:
        file.write(text)
    one = Clip("a", text="the happy")
    wanted = run(registry.build(words(vectors)), one)[0][0]
    for name in ("v.vec", "v.txt.gz"):
        np.testing.assert_array_equal(run(registry.build(words(tmp_path / name)), one)[0][0], wanted)


def test_glove_bad_files(tmp_path):
    for name, data in {
        "a.txt": b"",
        "b.txt": b"the 1 0\nhappy 1\n",
        "c.txt": b"\xff\xfe\x00",
        "d.txt": b"the x y\n",
        "e.txt.gz": b"not gzip",
        "f.txt": b"word\n",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(WeightsError):
            registry.build(words(tmp_path / name))
    with pytest.raises(WeightsError, match="folder"):
        registry.build(words(tmp_path))
    with pytest.raises(WeightsError, match="not there"):
        registry.build(words(tmp_path / "absent.txt"))


def waveform(**options) -> Stream:
    return audio(encoder="waveform", options=options)


def test_a_waveform_is_its_first_seconds_at_another_rate():
    """A tone of 300 Hz at 1,000 a second, and what lies above 500 Hz gone."""
    time = np.arange(2 * 16000) / 16000
    sound = np.sin(2 * np.pi * 300 * time) + np.sin(2 * np.pi * 3000 * time)
    ((values, times),) = run(registry.build(waveform(seconds=1.5, rate=1000)), Clip("a", waveform=sound.astype(np.float32)))
    assert values.shape == (1, 1500) and times.tolist() == [[0, 1.5]]
    expected = np.sin(2 * np.pi * 300 * np.arange(1500) / 1000)
    np.testing.assert_allclose(values[0, 20:], expected[20:], atol=0.02)


def test_silence_follows_a_short_clip_and_its_own_rate_changes_nothing():
    one = tone(0.5)
    ((values, times),) = run(registry.build(waveform(seconds=1, rate=16000)), one)
    np.testing.assert_array_equal(values[0, :8000], one.waveform)
    assert not values[0, 8000:].any() and values.shape == (1, 16000) and times.tolist() == [[0, 0.5]]
    with pytest.raises(Missing):
        registry.build(waveform()).prepare(Clip("none"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rate": 44100}, "44100 is more than the 16000"),
        ({"seconds": 0.0001, "rate": 100}, "hold no sample"),
        ({"seconds": 0}, "waveform.options.seconds"),
    ],
)
def test_mistakes_in_a_waveform_are_one_line(options, said):
    with pytest.raises(ParamsError, match=said) as caught:
        registry.build(waveform(**options))
    assert "\n" not in str(caught.value)
