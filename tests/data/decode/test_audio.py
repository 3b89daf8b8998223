"""Sample i of a waveform is what is heard i / rate seconds into the clip."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile

from pipeline.data.decode.audio import level, read_waveform, resample
from pipeline.data.decode.errors import DecodeError
from pipeline.data.decode.probe import probe

RATE = 16000


def tone(frequency, seconds, rate, amplitude=0.5):
    return (amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def reason(*args, **options):
    with pytest.raises(DecodeError) as error:
        read_waveform(*args, **options)
    return error.value.reason


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000, 192000])
def test_any_rate(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(440, 1.0, rate), rate, subtype="FLOAT")
    wave = read_waveform(tmp_path / "a.wav", RATE)
    assert wave.dtype == np.float32 and wave.shape == (RATE,)
    inner = slice(200, -200)
    np.testing.assert_allclose(wave[inner], tone(440, 1.0, RATE)[inner], atol=5e-3)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_channels(tmp_path, name):
    left, right = tone(300, 0.5, RATE), tone(700, 0.5, RATE)
    soundfile.write(tmp_path / name, np.stack([left, right], 1), RATE)
    np.testing.assert_allclose(read_waveform(tmp_path / name, RATE), (left + right) / 2, atol=1e-4)
    np.testing.assert_allclose(read_waveform(tmp_path / name, RATE, channel="left"), left, atol=1e-4)
    np.testing.assert_allclose(read_waveform(tmp_path / name, RATE, 0.1, 0.3, "right"), right[1600:4800], atol=1e-4)
    with pytest.raises(ValueError, match="channel"):
        read_waveform(tmp_path / name, RATE, channel="middle")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
@pytest.mark.parametrize("late", [0.0, 0.7])
def test_sound_of_a_film_is_where_it_is_heard(tmp_path, make, name, late):
    # A click every half second: its place is known to the sample.
    sound = np.zeros((1, 3 * 44100), np.float32)
    sound[0, 22050::22050] = 1.0
    path = make.film(tmp_path / name, [i / 25 for i in range(75)], sound=sound, sound_start=late)
    wave = read_waveform(path, RATE)
    if name == "a.ts" and not late:
        late = 1024 / 44100  # a transport stream begins with the encoder's run-up, for sound and picture alike
    clicks = [round(RATE * (0.5 * k + late)) for k in range(1, 6)]
    for click in clicks:
        window = np.abs(wave[click - 800 : click + 800])
        assert abs(int(window.argmax()) - 800) <= 16  # a millisecond
    assert np.abs(wave[: round(late * RATE)]).max(initial=0.0) < 0.01
    cut = read_waveform(path, RATE, 1.6 + late, 2.4 + late)
    assert cut.shape == (round(0.8 * RATE),)
    assert abs(int(np.abs(cut).argmax()) - round(0.4 * RATE)) <= 16


def test_a_stereo_film(tmp_path, make):
    sound = np.stack([tone(300, 1.0, 48000), np.zeros(48000, np.float32)])
    path = make.film(tmp_path / "a.mp4", [i / 25 for i in range(25)], sound=sound, sound_rate=48000, layout="stereo")
    assert probe(path).channels == 2
    assert level(read_waveform(path, RATE, channel="left")) == pytest.approx(-9.03, abs=0.3)
    assert level(read_waveform(path, RATE, channel="right")) < -50
    assert level(read_waveform(path, RATE)) == pytest.approx(-15.05, abs=0.3)


def test_level():
    assert level(np.ones(100, np.float32)) == 0.0
    assert level(tone(100, 1.0, RATE, 1.0)) == pytest.approx(-3.01, abs=0.01)
    assert level(np.zeros(100)) == level(np.zeros(0)) == -math.inf


def test_odd_rates_need_no_huge_kernel():
    wave = resample(tone(440, 0.5, 44099), 44099, RATE)
    assert abs(len(wave) - 8000) <= 2
    assert level(wave) == pytest.approx(level(tone(440, 0.5, RATE)), abs=0.2)


def test_reasons(tmp_path, make):
    wave = tone(440, 2.0, RATE)
    for name, bad in {"nan.wav": np.nan, "inf.wav": np.inf, "huge.wav": 1e30}.items():
        broken = wave.copy()
        broken[100] = bad
        soundfile.write(tmp_path / name, broken, RATE, subtype="FLOAT")
        assert reason(tmp_path / name, RATE) == "not_finite"
    soundfile.write(tmp_path / "a.wav", wave, RATE)
    whole = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    assert reason(tmp_path / "cut.wav", RATE) == "truncated"
    (tmp_path / "header.wav").write_bytes(whole[:44])
    assert reason(tmp_path / "header.wav", RATE) in ("empty", "truncated")
    (tmp_path / "text.wav").write_text("la la la " * 100)
    assert reason(tmp_path / "text.wav", RATE) == "unreadable"
    assert reason(tmp_path / "none.wav", RATE) == "missing"
    assert reason(tmp_path / "a.wav", RATE, 5.0, 6.0) == "out_of_range"
    assert reason(make.film(tmp_path / "mute.mp4", [0.0, 0.04]), RATE) == "no_audio"
    assert reason(tmp_path, RATE) == "no_audio"


def test_a_name_says_nothing(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(440, 1.0, RATE), RATE)
    (tmp_path / "a.wav").rename(tmp_path / "film.mp4")
    assert probe(tmp_path / "film.mp4").has_audio and not probe(tmp_path / "film.mp4").has_video
    assert read_waveform(tmp_path / "film.mp4", RATE).shape == (RATE,)


def test_real_recordings(real):
    for path in sorted((real / "ravdess").glob("*.wav")):
        facts = probe(path)
        wave = read_waveform(path, RATE)
        assert len(wave) == pytest.approx(facts.duration * RATE, abs=1) and -60 < level(wave) < -10
