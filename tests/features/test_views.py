"""Views of clips: what is encoded, which seconds its rows are, what is computed again, and what a failed view leaves behind."""

from __future__ import annotations

import io
import json
from fractions import Fraction

import h5py
import numpy as np
import polars as pl
import pytest
from PIL import Image, ImageOps

from pipeline import params as parameters
from pipeline.errors import ParamsError, QuarantineError, StoreError
from pipeline.evaluation.provenance import describe_streams
from pipeline.features import index
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip
from pipeline.features.encoders.views import Tint, play_faster, repaint
from pipeline.features.extract import extract
from pipeline.params import Stream
from pipeline.storage import flac, media_store, tables
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Store
from pipeline.storage.index import Index
from pipeline.storage.inspect import describe
from tests.features.encoders.small import SMALL

RATE = 16000
#: What is said of the clip that a slower view makes too long.
LONG = "error: ValueError: longer than a second [loudness.py:19]"
#: Rows per tenth of a second: its mean square, and how long the clip is. One longer than a second is more than it can bear.
FAMILY = """
import os
from functools import partial

import numpy as np

from pipeline.features.encoders.encoder import Computed
from pipeline.features.encoders.extractor import Extractor, Missing, Prepared
from pipeline.features.encoders.family import Family


def prepare(clip):
    if clip.waveform is None:
        raise Missing("no sound")
    length = len(clip.waveform) / clip.rate
    if os.environ.get("STOP") == f"{length:.2f}":
        raise KeyboardInterrupt
    if length > 1.0:
        raise ValueError("longer than a second")
    if length < 0.3:
        raise Missing("too short to hear anything")
    parts = clip.waveform[: len(clip.waveform) // 1600 * 1600].reshape(-1, 1600)
    edges = np.arange(len(parts) + 1) / 10
    rows = np.stack([np.square(parts).mean(1), np.full(len(parts), length)], 1).astype(np.float32)
    with open("prepared.txt", "a") as file:
        file.write(f"{length:.2f}\\n")
    return Prepared({"values": rows}, np.stack([edges[:-1], edges[1:]], 1).astype(np.float32), cost=length)


class Loudness(Family):
    title = "Loudness"
    modalities = ("audio",)
    sources = ("none",)

    @classmethod
    def build(cls, stream, options):
        return Extractor({"weights": {"source": "none"}}, prepare, Computed, budget=0.1)
"""


def sound(seconds: float, seed: int = 0) -> np.ndarray:
    chance = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * 400 * time) + 0.05 * chance.normal(size=len(time))).astype(np.float32)


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """Decoded sounds of 0.3, 0.5, 0.7 and 0.95 seconds and one clip without; a family that hears how loud they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AFFECTORY_PARTS", str(tmp_path / "parts"))
    (tmp_path / "parts/encoders").mkdir(parents=True)
    (tmp_path / "parts/encoders/loudness.py").write_text(FAMILY)
    rows, entries = [], {}
    for i, seconds in enumerate((0.3, 0.5, 0.7, 0.95)):
        wave = sound(seconds, i)
        rows.append({"id": f"clip{i}", "content": f"c{i}", "audio": "x", "duration": seconds, "emotion": "ab"[i % 2]})
        entries[f"c{i}"] = media_store.join_files([flac.encode(wave, RATE)], np.array([[0, seconds]]))
    rows.append({"id": "mute", "content": "m", "audio": None, "duration": 1.0})
    with ClipCache("audio", {"rate": RATE}) as cache:
        cache.put(entries)
        media_store.pack(tmp_path / "audio.h5", rows, "audio", cache, {"rate": RATE}, {})
    tables.write(tables.frame(rows), tmp_path / "manifest.parquet")
    return tmp_path


def settings(*views: str, max_rate: float = 0.5, **stream) -> parameters.Params:
    spec = {"modality": "audio", "source": "audio.h5", "encoder": "loudness", "weights": "none", "views": list(views)} | stream
    return parameters.parse(
        {
            "recipe": "test",
            "corpus": {"name": "test", "root": "."},
            "streams": {"audio": spec},
            "fusion": {"name": "concat"},
            "quarantine": {"max_rate": max_rate},
            "run": {"workers": 0, "device": "cpu"},
        }
    )


def store(*views: str, out: str = "features/audio.h5", **options) -> Store:
    return Store(extract(settings(*views, **options), "audio", manifest="manifest.parquet", out=out))


def prepared(folder) -> list[str]:
    """Lengths of the clips that were encoded since it was last asked."""
    path = folder / "prepared.txt"
    said = path.read_text().split() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(said)


def test_a_tone_at_another_speed_has_another_pitch_and_length():
    for factor in (Fraction(9, 10), Fraction(11, 10), Fraction(5, 4)):
        played = play_faster(np.sin(2 * np.pi * 400 * np.arange(RATE) / RATE).astype(np.float32), factor)
        assert played.dtype == np.float32 and len(played) == -(-RATE * factor.denominator // factor.numerator)
        peak = np.abs(np.fft.rfft(played)).argmax() * RATE / len(played)
        assert peak == pytest.approx(400 * factor, rel=2e-3)
        assert np.abs(played[200:-200]).max() == pytest.approx(1, abs=1e-2)


def test_speed_up_leaves_no_alias():
    """7.5 kHz at twice the speed would be 15 kHz, which 16 kHz cannot hold: it is gone, not folded down to 1 kHz."""
    tone = np.sin(2 * np.pi * 7500 * np.arange(RATE) / RATE).astype(np.float32)
    assert np.abs(play_faster(tone, Fraction(2))[200:-200]).max() < 0.02


@pytest.mark.parametrize("name", ["whisper", "hubert", "logmel"])
@pytest.mark.parametrize("speed", ["0.9", "1.1"])
def test_a_view_is_the_encoded_transformed_clip(name, speed, encode):
    stream, wave, factor = speech(name), sound(1.3), Fraction(speed)
    clip = Clip("a", waveform=wave, rate=RATE, duration=1.3)
    by_hand = play_faster(wave, factor)
    ((expected, times),) = encode(registry.build(stream), [Clip("a", waveform=by_hand, rate=RATE, duration=len(by_hand) / RATE)])
    ((values, when),) = encode(registry.build(stream, f"speed:{speed}"), [clip])
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_allclose(when, np.minimum(times * float(factor), 1.3), atol=1e-6)
    ((plain, _),) = encode(registry.build(stream), [clip])
    assert plain.shape != values.shape or np.abs(plain - values).max() > 1e-3
    assert when.min() == 0 and when.max() == pytest.approx(1.3, abs=0.03) and when.max() <= np.float32(1.3)


def speech(name: str) -> Stream:
    if name == "logmel":
        return Stream(modality="audio", source="a", encoder=name, weights="none")
    small = SMALL["whisper_tiny_en" if name == "whisper" else "hubert_base"]
    return Stream(modality="audio", source="a", encoder=name, weights="random:0", architecture=small)


def test_rates_are_of_the_clip_as_it_is(encode):
    """Four rows a second of the clip, whatever the speed: windows of the view lie where those of the plain rows do."""
    stream = speech("hubert").model_copy(update={"rate": 4.0, "pooling": "mean"})
    clip = Clip("a", waveform=sound(2.0), rate=RATE, duration=2.0)
    for view in (None, "speed:0.9", "speed:1.25"):
        ((values, times),) = encode(registry.build(stream, view), [clip])
        assert len(values) == 8
        np.testing.assert_allclose(times.mean(1), np.arange(8) / 4 + 0.125, atol=0.03)


def test_a_mirrored_picture_is_mirrored_to_the_pixel(frames_clip, encode):
    clip = frames_clip(2)
    pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in clip.frames]
    for data, picture in zip(clip.frames, pixels, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(repaint(data, ImageOps.mirror)))), picture[:, ::-1])

    def png(picture: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        return buffer.getvalue()

    small = SMALL["clip_base"]
    stream = Stream(modality="face", source="f", encoder="clip", weights="random:0", architecture=small, views=("mirror",))
    by_hand = Clip("b", frames=[png(one[:, ::-1].copy()) for one in pixels], frame_times=clip.frame_times)
    ((expected, when),) = encode(registry.build(stream), [by_hand])
    ((values, times),) = encode(registry.build(stream, "mirror"), [clip])
    ((plain, _),) = encode(registry.build(stream), [clip])
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(times, when)
    assert np.abs(values - plain).max() > 1e-3


@pytest.mark.parametrize("factor", [0.6, 1.3])
@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_a_tinted_picture_is_away_from_black_or_grey_by_the_factor(kind, factor):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    light = (pixels @ [0.299, 0.587, 0.114])[..., None]  # Rec. 601
    origin = {"brightness": 0.0, "contrast": light.mean(), "saturation": light}[kind]
    found = np.asarray(Image.open(io.BytesIO(repaint(buffer.getvalue(), Tint(kind, factor)))))
    np.testing.assert_allclose(found, np.clip(origin + factor * (pixels - origin), 0, 255), atol=1.5)


def test_a_tint_is_part_of_the_identity_by_its_value(frames_clip, encode):
    def build(view: str):
        return registry.build(
            Stream(modality="face", source="f", encoder="clip", weights="random:0", architecture=SMALL["clip_base"]), view
        )

    names = ["brightness:0.8", "brightness:0.9", "contrast:0.8", "saturation:0.8", "mirror"]
    made = {name: build(name) for name in names}
    assert len({json.dumps(one.identity, sort_keys=True) for one in made.values()}) == len(names)
    assert build("brightness:0.80").identity == made["brightness:0.8"].identity
    clip = frames_clip(2)
    rows = {name: encode(one, [clip])[0] for name, one in made.items()}
    for name in names[1:]:
        assert np.abs(rows[name][0] - rows[names[0]][0]).max() > 1e-4, name
        np.testing.assert_array_equal(rows[name][1], rows[names[0]][1])


def test_a_frame_without_a_face_stays_without(frames_clip):
    clip = frames_clip(2)
    clip = Clip("a", frames=[clip.frames[0], b"", clip.frames[2]], frame_times=clip.frame_times)
    stream = Stream(modality="face", source="f", encoder="clip", weights="random:0", architecture=SMALL["clip_base"])
    extractor = registry.build(stream, "mirror")
    assert len(extractor.prepare(clip).times) == 2


def test_pictures_alone_equal_among_neighbours(neighbours):
    stream = Stream(modality="face", source="f", encoder="clip", weights="random:0", architecture=SMALL["clip_base"])
    neighbours(registry.build(stream, "mirror"))


@pytest.mark.parametrize("name", ["whisper", "hubert"])
def test_sounds_alone_equal_among_neighbours(name, encode):
    extractor = registry.build(speech(name), "speed:0.9")
    clips = [Clip(f"c{i}", waveform=sound(0.4 + 0.17 * i, i), rate=RATE, duration=0.4 + 0.17 * i) for i in range(6)]
    among = encode(extractor, clips)
    for i in (0, 3, 5):
        ((values, times),) = encode(extractor, [clips[i]])
        np.testing.assert_allclose(values, among[i][0], atol=1e-5)
        np.testing.assert_array_equal(times, among[i][1])


def test_the_store_holds_each_view_in_a_group(corpus):
    found = store("speed:1.1", "speed:0.9", max_rate=1.0, store={"dtype": "float32"})
    assert list(found.views) == ["speed:0.9", "speed:1.1"] and found.ids == ["clip0", "clip1", "clip2", "clip3", "mute"]
    plain = store(out="plain.h5", store={"dtype": "float32"})
    np.testing.assert_array_equal(found.values, plain.values)
    assert found.attributes["identity_digest"] == plain.attributes["identity_digest"] and plain.views == {}
    with h5py.File("features/audio.h5") as file:
        view = file["views/speed:0.9"]
        assert set(view) == {"offsets", "values", "times", "status", "sums"}
        rows = slice(*view["offsets"][1:3])
        assert view["values"][rows, 1] == pytest.approx([0.5 / 0.9] * 5, abs=1e-4)
        np.testing.assert_allclose(view["times"][rows], 0.09 * np.stack([np.arange(5), np.arange(1, 6)], 1), atol=1e-6)
        assert json.loads(view.attrs["failures"]) == {"clip3": LONG}
    view = found.views["speed:0.9"]
    assert view.offsets.shape == (6,) and view.status.tolist() == [0, 0, 0, 2, 1]
    assert "views/speed:0.9/values" in describe("features/audio.h5")
    assert "clips of views/speed:0.9: 3 ok, 1 missing, 1 failed" in describe("features/audio.h5")


def test_a_view_that_cannot_be_had_is_named_with_its_reason(corpus, caplog):
    found = store("speed:0.9", "speed:1.5")
    assert found.status.tolist() == [0, 0, 0, 0, 1]
    assert found.views["speed:0.9"].attributes["failures"] == {"clip3": LONG}
    assert found.views["speed:1.5"].status.tolist() == [1, 0, 0, 0, 1]
    assert found.views["speed:1.5"].attributes["failures"] == {"clip0": "too short to hear anything"}
    assert "audio, view speed:1.5: 1 clips are without it; clip0: too short to hear anything" in caplog.text
    (facts,) = describe_streams(settings("speed:0.9", "speed:1.5"), corpus / "features")
    assert facts.failures == {"clip3": f"view speed:0.9: {LONG}", "clip0": "view speed:1.5: too short to hear anything"}
    with pytest.raises(QuarantineError, match="view speed:0.8: 1 of 5 clips failed"):
        store("speed:0.8", max_rate=0.1)


def test_a_clip_that_fails_as_it_is_is_not_tried_again(corpus, monkeypatch):
    """3 is too long as it is: quickened it would not be, but nothing learns from a view of a clip that is not there."""
    wave = flac.encode(sound(1.05), RATE)
    rows = tables.read("manifest.parquet").sort("id").to_dicts()
    with ClipCache("audio", {"rate": 2}) as cache:
        cache.put({f"c{i}": media_store.join_files([wave], np.array([[0, 1.05]])) for i in (3,)})
        cache.put({f"c{i}": media_store.join_files([flac.encode(sound(0.5, i), RATE)], np.array([[0, 0.5]])) for i in range(3)})
        media_store.pack(corpus / "audio.h5", rows, "audio", cache, {"rate": RATE}, {})
    found = store("speed:1.25")
    assert found.status.tolist() == found.views["speed:1.25"].status.tolist() == [0, 0, 0, 2, 1]


def test_nothing_is_encoded_twice(corpus):
    store()
    plain = (corpus / "features/audio.h5").read_bytes()
    assert prepared(corpus) == ["0.30", "0.50", "0.70", "0.95"]
    store("speed:1.1")
    assert prepared(corpus) == ["0.45", "0.64", "0.86"]  # 0.27 is too short
    store("speed:1.1", "speed:1.05")
    assert prepared(corpus) == ["0.48", "0.67", "0.90"]
    views = (corpus / "features/audio.h5").read_bytes()
    store("speed:1.05", "speed:1.1")
    assert (corpus / "features/audio.h5").read_bytes() == views
    found = store("speed:1.10")  # written otherwise, the same
    assert list(found.views) == ["speed:1.10"]
    store()
    assert prepared(corpus) == [] and (corpus / "features/audio.h5").read_bytes() == plain


def test_a_run_that_is_stopped_goes_on_where_it_was(corpus, monkeypatch):
    monkeypatch.setenv("STOP", "0.64")
    with pytest.raises(KeyboardInterrupt):
        store("speed:1.1", "speed:1.05")
    assert not (corpus / "features/audio.h5").exists()
    before = prepared(corpus)
    monkeypatch.delenv("STOP")
    found = store("speed:1.1", "speed:1.05")
    after = prepared(corpus)
    assert len(before) >= 4 + 3 and len(before) + len(after) == 4 + 3 + 3
    assert not set(before) & set(after)
    path = corpus / "other"
    monkeypatch.setenv("AFFECTORY_CACHE", str(path))
    store("speed:1.1", "speed:1.05", out="whole.h5")
    assert (corpus / "whole.h5").read_bytes() == found.path.read_bytes()


def test_the_index_gives_the_views(corpus):
    chosen = settings("speed:0.9", max_rate=1.0)
    extract(chosen, "audio", manifest="manifest.parquet")
    (corpus / "data").mkdir()
    folds = [{"fold": 0, "id": f"clip{i}", "role": "train" if i < 3 else "test"} for i in range(4)]
    tables.write(pl.DataFrame(folds), "data/folds.parquet", sort=("fold", "id"))
    index.build(chosen, manifest="manifest.parquet")
    stream = Index("data/index.h5").stream("audio")
    view = stream.views["speed:0.9"]
    assert view is stream.store.views["speed:0.9"] and view.status[stream.row].tolist() == [0, 0, 0, 2, 1]
    plain = stream.store.values[: stream.store.offsets[3]].astype(np.float64)
    np.testing.assert_allclose(stream.mean[0], plain.mean(0), rtol=1e-4)
    with pytest.raises(StoreError, match="holds the views speed:0.9; stream 'audio' has none. Run `dvc repro extract@audio`"):
        index.build(settings(), manifest="manifest.parquet")


@pytest.mark.parametrize(
    ("modality", "views", "said"),
    [
        ("audio", ["sped:0.9"], "there is no view 'sped:0.9' of audio; there is speed:FACTOR"),
        ("audio", ["mirror"], "there is no view 'mirror' of audio"),
        ("audio", ["speed:1"], "speed:1'"),
        ("audio", ["speed:1.000"], "speed:1.000'"),
        ("audio", ["speed:0"], "speed:0'"),
        ("audio", ["speed:-1"], "speed:-1'"),
        ("audio", ["speed:nan"], "speed:nan'"),
        ("audio", ["speed:inf"], "speed:inf'"),
        ("audio", ["speed:"], "speed:'"),
        ("audio", ["speed:0.05"], "0.1 to 10"),
        ("audio", ["speed:0.9", "speed:0.90"], "view 'speed:0.90' is there twice"),
        ("video", ["speed:0.9"], "there is no view 'speed:0.9' of video; there is mirror"),
        ("face", ["mirror", "mirror"], "twice"),
        ("face", ["contrast:1.2", "contrast:1.20"], "view 'contrast:1.20' is there twice"),
        ("face", ["brightness:1"], "brightness:1'"),
        ("video", ["hue:0.9"], "there is no view 'hue:0.9' of video; there is mirror, brightness:FACTOR"),
        ("audio", ["brightness:0.9"], "there is no view 'brightness:0.9' of audio"),
        ("face", ["Mirror"], "there is mirror"),
        ("text", ["mirror"], "there are no views of text"),
        ("audio", "speed:0.9", "tuple"),
        ("audio", [0.9], "string"),
    ],
)
def test_a_view_that_is_none_is_one_line(modality, views, said):
    with pytest.raises(ParamsError) as error:
        parameters.parse_stream(
            {"modality": modality, "source": "a", "encoder": "x", "weights": "none", "views": views}, "p.yaml"
        )
    assert said in str(error.value) and "views" in str(error.value) and "\n" not in str(error.value)


def test_imports_have_no_views():
    with pytest.raises(ParamsError, match="views: there are no views of imported features"):
        parameters.parse_stream(
            {"modality": "audio", "source": "a", "encoder": "import", "weights": "file:a", "views": ["speed:0.9"]}, "p.yaml"
        )


def test_pictures_decoded_on_a_gpu_are_not_mirrored():
    spec = {"architecture": SMALL["clip_base"], "options": {"decoder": "nvjpeg"}, "views": ("mirror",)}
    stream = Stream(modality="face", source="f", encoder="clip", weights="random:0", **spec)
    with pytest.raises(ParamsError, match="set options.decoder to pillow"):
        registry.build(stream, "mirror")


def test_a_store_in_several_files_is_the_store_of_one(corpus):
    views, tiny = ("speed:0.7", "speed:1.1"), {"shard": 1e-9}
    one, many = store(*views, out="one/audio.h5"), store(*views, out="many/audio.h5", store=tiny)
    shards = sorted((corpus / "many/shards/audio").glob("*.h5"))
    assert len(shards) == len(one) and not list((corpus / "one/shards/audio").glob("*.h5"))
    for mine, theirs in ((many, one), *((many.views[view], one.views[view]) for view in views)):
        assert mine.ids == theirs.ids and mine.attributes == theirs.attributes
        np.testing.assert_array_equal(np.asarray(mine.values), theirs.values)
        for name in ("offsets", "times", "status", "sums"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    assert many.views["speed:0.7"].attributes["failures"]
    before = [(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in shards]
    again = store(*views, out="many/audio.h5", store=tiny)
    assert [(path.name, path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(shards)] == before
    assert again.seal == many.seal
