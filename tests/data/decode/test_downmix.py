"""Surround sound on one loudspeaker: ITU-R BS.775 folded to two channels, and their mean."""

from __future__ import annotations

import av
import numpy as np
import pytest
import soundfile

from pipeline.data.decode.audio import Meter, level, loudest, read_waveform
from pipeline.data.decode.downmix import to_mono

RATE = 48000
ROOT = 0.5**0.5
SHARES = {
    "3.0": [0.5, 0.5, ROOT],
    "2.1": [0.5, 0.5, 0.0],
    "4.0": [0.5, 0.5, ROOT, 0.5],
    "quad": [0.5, 0.5, ROOT / 2, ROOT / 2],
    "5.0": [0.5, 0.5, ROOT, ROOT / 2, ROOT / 2],
    "5.1": [0.5, 0.5, ROOT, 0.0, ROOT / 2, ROOT / 2],
    "5.1(side)": [0.5, 0.5, ROOT, 0.0, ROOT / 2, ROOT / 2],
    "7.1": [0.5, 0.5, ROOT, 0.0, ROOT / 2, ROOT / 2, ROOT / 2, ROOT / 2],
    "6 channels": [0.5, 0.5, ROOT, 0.0, ROOT / 2, ROOT / 2],
    "3 channels": [0.5, 0.5, ROOT],
    "12 channels": [1 / 12] * 12,
    "stereo": [0.5, 0.5],
    "mono": [1.0],
}


@pytest.mark.parametrize("layout", SHARES)
def test_shares(layout):
    count = len(SHARES[layout])
    np.testing.assert_allclose(to_mono(np.eye(count, dtype=np.float32), layout), SHARES[layout], atol=1e-6)
    assert to_mono(np.eye(count, dtype=np.float32), layout).dtype == np.float32


def test_one_channel_is_given_as_it_is():
    block = np.arange(6, dtype=np.float32).reshape(6, 1)
    assert to_mono(block, "5.1", 1) == [1.0] and to_mono(block[:1], "mono", 1) == [0.0]


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("a.m4a", "aac", "5.1"),
        ("a.mkv", "aac", "5.1"),
        ("a.mkv", "ac3", "5.1(side)"),
        ("a.m4a", "aac", "5.0"),
        ("a.m4a", "aac", "3.0"),
    ],
)
def test_a_voice_in_the_centre_is_heard(tmp_path, make, name, codec, layout):
    """3 dB below its own level; the other channels are nearly silent, the rumble below is left out."""
    names = [channel.name for channel in av.AudioLayout(layout).channels]
    noise = np.random.default_rng(0).normal(0, 1e-3, (len(names), 2 * RATE))
    block = noise.astype(np.float32)
    block[names.index("FC")] += make.tone(2.0, RATE)
    if "LFE" in names:
        block[names.index("LFE")] += make.tone(2.0, RATE, 40.0, 0.9)
    with av.open(str(tmp_path / name), "w") as container:
        voice = container.add_stream(codec, rate=RATE, layout=layout)
        for packet in make.spoken(voice, block, RATE, layout):
            container.mux(packet)
    wave = read_waveform(tmp_path / name, RATE)[4800:-4800]
    assert level(wave) == pytest.approx(level(make.tone(2.0, RATE)) - 3.01, abs=0.3)
    assert make.pitch(wave, RATE) == pytest.approx(300, abs=1)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_sound_files_of_six_channels(tmp_path, make, name):
    block = np.zeros((RATE, 6), np.float32)
    block[:, 2] = make.tone(1.0, RATE)
    soundfile.write(tmp_path / name, block, RATE)
    np.testing.assert_allclose(read_waveform(tmp_path / name, RATE), ROOT * block[:, 2], atol=1e-4)
    np.testing.assert_allclose(read_waveform(tmp_path / name, RATE, 0.25, 0.5), ROOT * block[12000:24000, 2], atol=1e-4)


def test_the_level_is_that_of_the_loudest_second():
    quiet, loud = np.full(8000 * 20, 1e-4, np.float32), np.full(8000, 0.1, np.float32)
    assert loudest(np.concatenate([quiet, loud, quiet]), 8000) == pytest.approx(-20, abs=0.01)
    assert loudest(loud[:800], 8000) == pytest.approx(-20, abs=0.01)  # all of what is shorter
    assert loudest(np.concatenate([quiet, loud[:4000]]), 8000) == pytest.approx(-23.01, abs=0.01)
    assert loudest(quiet * 0, 8000) == loudest(quiet[:0], 8000) == -np.inf
    meter = Meter()
    for at in range(0, 8000, 160):  # half a second, a silence, half a second: never a loud one
        meter.add(8000, 8000 * 3600 if at == 4000 else 0, loud[at : at + 160])
    assert meter.level == pytest.approx(-23.01, abs=0.01)
