"""`affectory.Stream`: an encoder by itself gives the rows that `extract` stores."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from affectory import Stream
from pipeline.errors import ParamsError, UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sound(tmp_path):
    time = np.arange(2 * 16000) / 16000
    soundfile.write(tmp_path / "tone.wav", 0.3 * np.sin(2 * np.pi * 220 * time), 16000)
    return tmp_path / "tone.wav"


def test_sound_by_file_and_by_seconds(sound, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # no project: the one that came with the code
    stream = Stream("logmel", device="cpu")
    values, times = stream(sound)
    assert len(values) == len(times) and values.dtype == np.float32 and 1.9 < times[-1, 1] <= 2.001
    part, spans = stream(sound, start=1.0, end=2.0)
    assert len(part) < len(values) and spans[0, 0] == 0 and 0.9 < spans[-1, 1] <= 1.001
    assert stream.about["family"] and stream.about == Stream("logmel", project=ROOT, device="cpu").about


def test_words_alone_are_what_a_clip_with_them_gives(sound):
    stream = Stream("bert_tiny", project=ROOT, device="cpu")
    values, times = stream.text("I did not expect that")
    np.testing.assert_allclose(values, stream(sound, "I did not expect that")[0], atol=1e-6)
    assert len(values) == len(times)


def test_what_cannot_be_had_is_one_line(sound, tmp_path):
    with pytest.raises(ParamsError, match="stream 'logmell'.*logmel"):
        Stream("logmell", project=ROOT)
    with pytest.raises(UserError, match="has nothing that bert_tiny can read"):
        Stream("bert_tiny", project=ROOT, device="cpu")(sound)
    with pytest.raises(UserError, match="has nothing that logmel can read"):
        Stream("logmel", project=ROOT, device="cpu").text("words")
    with pytest.raises(UserError, match="absent.wav"):
        Stream("logmel", project=ROOT, device="cpu")(tmp_path / "absent.wav")
