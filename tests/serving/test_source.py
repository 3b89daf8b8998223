"""Faces, recognised words and dialogue of a raw file: what the stages made of it, by the same functions, in a worker process."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import skimage
import soundfile
from PIL import Image

from pipeline import params as parameters
from pipeline.data import media
from pipeline.data.decode.errors import DecodeError
from pipeline.data.faces import stage
from pipeline.data.fact import examine_file
from pipeline.errors import ParamsError
from pipeline.features import extract, transcribe
from pipeline.features.encoders.extractor import Missing, Turn
from pipeline.serving.predictor import Predictor
from pipeline.serving.source import Source
from pipeline.serving.spoken import Spoken, turn
from pipeline.storage import tables
from pipeline.storage.feature_store import Status, Store
from pipeline.storage.media_store import Media

VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 16,
}
GPT2 = {"vocab_size": 512, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 128}
CLIPS = ("face", "nobody", "mute", "told")


def listening(self, device="cpu"):
    """A recogniser that says how much it heard; silence of low tones."""
    return lambda waves: [f"I heard {len(wave)} samples" if np.abs(wave).max() > 0.1 else "" for wave in waves]


def params_of(root: Path, **run) -> parameters.Params:
    stream = {"weights": "random:0", "layer": -1}
    return parameters.parse(
        {
            "recipe": "test",
            "corpus": {"name": "test", "root": str(root)},
            "decode": {"video": {"fps": 4, "size": 192}},
            "faces": {"size": 48},
            "asr": {"weights": "local:somewhere"},
            "quarantine": {"max_rate": 1.0},
            "streams": {
                "face": stream | {"modality": "face", "source": "data/faces.h5", "encoder": "mae", "architecture": VIT},
                "words": stream
                | {
                    "modality": "text",
                    "source": transcribe.TABLE,
                    "encoder": "dialogue",
                    "architecture": GPT2,
                    "pooling": "last",
                    "options": {"turns": 2},
                },
                "written": stream
                | {
                    "modality": "text",
                    "source": "data/manifest.parquet",
                    "encoder": "dialogue",
                    "architecture": GPT2,
                    "pooling": "last",
                },
            },
            "fusion": {"name": "concat"},
            "run": {"workers": 0, "device": "cpu"} | run,
        }
    )


@pytest.fixture(scope="module")
def stored(tmp_path_factory, make_film):
    """Folder with four clips of one dialogue, their media, transcripts and features by the stages; the parameters."""
    folder = tmp_path_factory.mktemp("stored")
    astronaut = Image.open(Path(skimage.__path__[0]) / "data" / "astronaut.png").convert("RGB")
    portrait = np.asarray(astronaut.crop((60, 0, 380, 320)).resize((192, 192)))
    (folder / "corpus").mkdir()
    texts = {"told": "I saw it."}
    make_film(folder / "corpus/face.mp4", portrait=portrait, seed=1)
    make_film(folder / "corpus/nobody.mp4", seed=2)
    make_film(folder / "corpus/mute.mp4", portrait=portrait, audio=False)
    make_film(folder / "corpus/told.mp4", portrait=portrait[:, ::-1], seed=3)
    rows = [
        {
            "id": name,
            "corpus": "test",
            "split": "train",
            "dialogue": "d",
            "turn": i,
            "speaker": "AB"[i % 2],
            "text": texts.get(name),
            "video": f"{name}.mp4",
            "audio": None if name == "mute" else f"{name}.mp4",
            "duration": 1.0,
            "content": f"{i:032x}",
        }
        for i, name in enumerate(CLIPS)
    ]
    params = params_of(folder / "corpus")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFFECTORY_CACHE", str(folder / "cache"))
        patch.setattr(transcribe.Recogniser, "load", listening)
        patch.setattr(transcribe.Recogniser, "identity", lambda self: {"kind": "asr", "test": True})
        patch.chdir(folder)
        tables.write(tables.frame(rows), Path("data/manifest.parquet"))
        media.extract_frames(params)
        media.extract_audio(params)
        stage.extract_faces(params)
        transcribe.transcribe(params)
        for name in params.streams:
            extract.extract(params, name)
    return folder, params


@pytest.fixture
def predictor(stored, monkeypatch):
    folder, params = stored
    monkeypatch.setattr(transcribe.Recogniser, "load", listening)
    return Predictor([], dict(params.streams), params)


def said_before(folder: Path, clip: str) -> tuple[Turn, ...]:
    """Earlier turns, as the stages know them: written or recognised."""
    table = transcribe.fill_texts(pl.read_parquet(folder / "data/manifest.parquet"), folder / transcribe.TABLE).sort("turn")
    return tuple(Turn(row["speaker"], row["text"]) for row in table.to_dicts() if row["turn"] < CLIPS.index(clip))


@pytest.mark.parametrize("clip", CLIPS)
def test_features_are_those_of_the_stages(stored, predictor, clip):
    folder, _ = stored
    row = pl.read_parquet(folder / "data/manifest.parquet").filter(pl.col("id") == clip).to_dicts()[0]
    spoken = Spoken(row["text"], row["speaker"], said_before(folder, clip))
    found, use = predictor.features(predictor.source(folder / "corpus" / f"{clip}.mp4", spoken))
    for name in predictor.encoders:
        entry = Store(folder / "features" / f"{name}.h5")[clip]
        assert use[name].status == entry.status, (name, use[name])
        if entry.status == Status.OK:
            np.testing.assert_allclose(found[name][0], np.asarray(entry.values, np.float32), atol=2e-3, rtol=2e-3)
            np.testing.assert_allclose(found[name][1], entry.times, atol=1e-3)


def test_what_there_is(stored):
    """The fixture is worth comparing with: faces found and not, words heard, written and missing."""
    folder, _ = stored
    there = {
        name: [clip for clip in CLIPS if Store(folder / f"features/{name}.h5")[clip].status == Status.OK]
        for name in ("face", "words", "written")
    }
    assert there == {"face": ["face", "mute", "told"], "words": ["face", "nobody", "told"], "written": ["told"]}


def test_reasons_are_for_people(stored, predictor):
    folder, _ = stored
    _, use = predictor.features(predictor.source(folder / "corpus/nobody.mp4"))
    assert use["face"].reason == "no face in 4 frames" and use["written"].reason == "no text was given"
    _, use = predictor.features(predictor.source(folder / "corpus/mute.mp4"))
    assert use["words"].reason == "no text was given, and the file has no sound"


def test_what_was_heard_is_shown_and_what_is_given_is_not_listened_to(stored, predictor):
    folder, _ = stored
    source = predictor.source(folder / "corpus/face.mp4")
    predictor.features(source)
    assert source.heard.startswith("I heard 16")
    source = predictor.source(folder / "corpus/face.mp4", Spoken("Hello."))
    predictor.features(source)
    assert source.heard is None


def test_nothing_heard_is_missing(stored, predictor, make_film, tmp_path):
    low = make_film(tmp_path / "low.mp4", loud=0.05)
    _, use = predictor.features(predictor.source(low))
    assert use["words"].reason == "no text was given, and no speech was recognised"
    assert use["words"].status == Status.MISSING


def test_whisper_hears_one_rate(stored, monkeypatch):
    folder, params = stored
    other = params.model_copy(
        update={"decode": params.decode.model_copy(update={"audio": params.decode.audio.model_copy(update={"rate": 8000})})}
    )
    predictor = Predictor([], {"words": params.streams["words"]}, other)
    with pytest.raises(ParamsError, match="Whisper hears 16000 Hz"):
        predictor.features(predictor.source(folder / "corpus/face.mp4"))


def test_earlier_turns_change_the_words_alone(stored, predictor):
    path = stored[0] / "corpus/told.mp4"
    plain, _ = predictor.features(predictor.source(path, Spoken("I saw it.")))
    told, _ = predictor.features(predictor.source(path, Spoken("I saw it.", None, (turn("Ann: You lied!"),))))
    assert np.abs(told["words"][0] - plain["words"][0]).max() > 1e-2
    np.testing.assert_array_equal(told["face"][0], plain["face"][0])


@pytest.mark.parametrize(
    ("said", "speaker", "text"),
    [
        ("Ann: Did it rain?", "Ann", "Did it rain?"),
        ("So: be: it", "So", "be: it"),
        ("Never mind", None, "Never mind"),
        (": hm", None, "hm"),
        ("12:30 then", None, "12:30 then"),
    ],
)
def test_a_turn_on_the_command_line(said, speaker, text):
    assert turn(said) == Turn(speaker, text)


def test_a_decoder_that_crashes_or_hangs_is_one_line(stored):
    folder, _ = stored
    source = Source(folder / "corpus/face.mp4", params_of(folder / "corpus", workers=1, timeout=0.5))
    for function, payload, message in (
        (os._exit, 3, r"face\.mp4: the decoder crashed \(worker process ended, exit code 3\)"),
        (time.sleep, 60, r"face\.mp4: decoding took longer than run\.timeout"),
    ):
        with pytest.raises(DecodeError, match=message) as caught:
            source._value(source._look(function.__name__, function, payload))
        assert "\n" not in str(caught.value)


def test_damaged_files_are_one_line_or_a_mask(stored, tmp_path):
    """In a worker process: cut off, or bytes changed in the middle. Never a crash, never a traceback."""
    folder, params = stored
    whole = (folder / "corpus/face.mp4").read_bytes()
    predictor = Predictor([], {"face": params.streams["face"]}, params_of(folder / "corpus", workers=1))
    rng, refused = np.random.default_rng(0), 0
    middle = bytearray(whole)
    for at in rng.integers(len(whole) // 3, len(whole), 400):
        middle[at] = rng.integers(256)
    for i, data in enumerate((b"", whole[:200], whole[: len(whole) // 2], bytes(middle))):
        path = tmp_path / f"{i}.mp4"
        path.write_bytes(data)
        try:
            source = predictor.source(path)
            _ = source.facts
            _, use = predictor.features(source)
            assert use["face"].status != Status.OK or use["face"].rows <= 4
        except DecodeError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused >= 2


def test_the_one_who_speaks_is_listened_for_as_in_the_stage(stored):
    """A film with sound gives it, one without gives none, and no other choice asks for it."""
    folder, params = stored
    speaking = params.model_copy(update={"faces": params.faces.model_copy(update={"choice": "speaking"})})
    face = Source(folder / "corpus/face.mp4", speaking)
    wave, rate = face._speech
    np.testing.assert_array_equal(wave, Media(folder / "data/audio.h5").waveform("face"))
    assert rate == 16000
    assert Source(folder / "corpus/mute.mp4", speaking)._speech is None
    assert Source(folder / "corpus/face.mp4", params)._speech is None
    # Of one face there is nothing to choose.
    found, plain = (Source(face.path, one).clip(one.streams["face"]) for one in (speaking, params))
    assert found.frames == plain.frames and (found.frame_times == plain.frame_times).all()


def test_a_file_is_as_long_as_the_manifest_finds_it(tmp_path):
    """Also where nobody wrote its length; a cut of it is what is there."""
    time = np.arange(6 * 48000) / 48000
    soundfile.write(tmp_path / "a.flac", 0.3 * np.sin(2000 * time), 48000)
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(2000 * time), 48000)
    flac, wav = bytearray((tmp_path / "a.flac").read_bytes()), bytearray((tmp_path / "a.wav").read_bytes())
    flac[21], flac[22:26] = flac[21] & 0xF0, bytes(4)
    wav[wav.index(b"data") + 4 :][:4] = bytes(4)
    (tmp_path / "a.flac").write_bytes(flac)
    (tmp_path / "a.wav").write_bytes(wav)
    params = params_of(tmp_path)
    for name in ("a.flac", "a.wav"):
        assert Source(tmp_path / name, params).duration == 6.0 == examine_file(str(tmp_path / name)).duration
        part = Source(tmp_path / name, params, start=4.0, end=9.0)
        assert part.duration == 2.0 and len(part._waveform()) == 2 * params.decode.audio.rate


def test_a_track_that_cannot_be_decoded_says_why(tmp_path, make_film):
    path = make_film(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_ODD"))
    source = Source(path, params_of(tmp_path))
    assert source.facts.video and not source.facts.audio
    with pytest.raises(DecodeError, match="no decoder knows the codec of the audio stream"):
        source._waveform()


def test_quiet_speech_is_no_silence(tmp_path):
    """Whole, it is below the limit; in its loudest second it is not."""
    wave = np.zeros(30 * 16000, np.float32)
    wave[:16000] = 0.003 * np.sin(np.arange(16000) * 0.1)
    soundfile.write(tmp_path / "calm.wav", wave, 16000)
    soundfile.write(tmp_path / "still.wav", wave / 10, 16000)
    params = params_of(tmp_path)
    assert len(Source(tmp_path / "calm.wav", params)._waveform()) == wave.size
    with pytest.raises(Missing, match="silent"):
        Source(tmp_path / "still.wav", params)._waveform()
