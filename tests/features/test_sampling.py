"""A stream's own frames per second and size: which pictures an encoder sees, and what is refused before anything runs."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import params as parameters
from pipeline.errors import ParamsError
from pipeline.features.encoders import registry
from pipeline.features.encoders.extractor import Clip
from pipeline.features.encoders.sampling import Sampled, choose_frames, shrink
from pipeline.storage import jpeg

STREAMS = {name: stream for name, (stream, _) in registry.read_streams(Path(__file__).parents[2] / "conf/stream").items()}


def spans(fps: float, length: float) -> np.ndarray:
    edges = np.append(np.arange(round(length * fps)) / fps, length)
    return np.stack([edges[:-1], edges[1:]], 1).astype(np.float32)


def clip(fps: float, length: float = 2.0, side: int = 96) -> Clip:
    times = spans(fps, length)
    shades = np.linspace(0, 250, len(times)).astype(np.uint8)
    return Clip("c", frames=[jpeg.encode(Image.new("RGB", (side + 32, side), (s, s, s)), 95) for s in shades], frame_times=times)


@pytest.mark.parametrize(("decoded", "asked"), [(4, 4), (16, 16), (16, 4), (12, 4), (25, 4), (10, 4), (8, 0.5), (6, 5), (4, 16)])
@pytest.mark.parametrize("length", [0.2, 1.0, 2.3])
def test_each_piece_has_the_frame_nearest_to_its_middle(decoded, asked, length):
    times = spans(decoded, max(length, 1 / decoded))
    places, pieces = choose_frames(times, asked)
    assert len(places) == len(pieces) >= 1 and (np.diff(places) > 0).all()
    assert (np.diff(pieces[:, 0]) > 0).all() and (pieces[1:, 0] >= pieces[:-1, 1] - 1e-6).all()
    middles = times.mean(1)
    for place, (low, high) in zip(places, pieces, strict=True):
        assert low - 1e-3 <= middles[place] <= high + 1e-3
        assert abs(middles[place] - (low + high) / 2) <= np.abs(middles - (low + high) / 2).min() + 1e-3
    if asked == decoded:
        np.testing.assert_array_equal(places, np.arange(len(times)))
        np.testing.assert_allclose(pieces, times, atol=1e-6)


def test_where_no_face_is_there_is_no_piece():
    times = np.delete(spans(8, 3.0), np.s_[8:16], 0)  # none in the second second
    assert choose_frames(times, 2)[1][:, 0].tolist() == [0.0, 0.5, 2.0, 2.5]


def test_where_a_face_was_goes_with_its_frame():
    film, seen = clip(8), []
    frames = [b"" if i in (4, 5) else data for i, data in enumerate(film.frames)]
    places = np.arange(16 * 4, dtype=np.float32).reshape(16, 4)
    Sampled(seen.append, fps=2.0)(replace(film, frames=frames, places=places))
    (given,) = seen
    chosen = [film.frames.index(data) for data in given.frames]
    assert len(chosen) == 4 and not {4, 5} & set(chosen)
    np.testing.assert_array_equal(given.places, places[chosen])


def test_a_picture_is_made_smaller_and_never_larger():
    data = clip(4).frames[3]
    assert Image.open(io.BytesIO(shrink(data, 48))).size == (64, 48)
    assert shrink(data, 96) == data == shrink(data, 500)


def test_what_asks_nothing_is_as_it_was_and_what_asks_sees_less(encode):
    stream = STREAMS["clip_tiny"]
    plain, own = registry.build(stream), registry.build(stream.model_copy(update={"fps": 4.0, "size": 48}))
    assert "sampling" not in plain.identity and own.identity["sampling"]["fps"] == 4.0
    assert own.identity != registry.build(stream.model_copy(update={"fps": 4.0})).identity != plain.identity
    fine = clip(16)
    ((rows, times),) = encode(own, [fine])
    places, pieces = choose_frames(fine.frame_times, 4.0)
    by_hand = Clip("c", frames=[shrink(fine.frames[place], 48) for place in places], frame_times=pieces)
    ((expected, when),) = encode(plain, [by_hand])
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(times, when)
    assert len(rows) == 8


def test_videomae_has_sixteen_frames_of_its_own():
    prepare = registry.build(STREAMS["videomae_tiny"]).prepare
    for fps, distinct in ((16, 16), (4, 4)):
        pixels = prepare(clip(fps, 1.0)).inputs["pixels"]
        assert len(np.unique(pixels.reshape(16, -1), axis=0)) == distinct


STREAM = {"modality": "video", "source": "data/frames.h5", "encoder": "clip", "weights": "random:0"}


@pytest.mark.parametrize(
    ("name", "stream", "said"),
    [
        ("video", {"fps": 8}, "streams.video.fps is 8, but decode.video.fps decodes 4; raise decode.video.fps to it"),
        ("video", {"size": 448}, "streams.video.size is 448, but decode.video.size decodes 256"),
        ("face", {"modality": "face", "size": 256}, "streams.face.size is 256, but faces.size decodes 224"),
        ("audio", {"modality": "audio", "fps": 2}, "streams.audio.fps is 2: only streams that encode pictures"),
        ("video", {"encoder": "import", "weights": "file:x.csv", "size": 64}, "only streams that encode pictures"),
        ("video", {"fps": 0}, "greater than 0"),
    ],
)
def test_more_than_is_decoded_is_one_line(name, stream, said):
    values = {"recipe": "t", "corpus": {"name": "demo", "root": "x"}, "fusion": {"name": "concat"}}
    with pytest.raises(ParamsError, match=said) as error:
        parameters.parse(values | {"streams": {name: STREAM | stream}})
    assert "\n" not in str(error.value)
    fits = {"fps": 4, "size": 128}
    assert parameters.parse(values | {"streams": {"video": STREAM | fits}}).streams["video"].size == 128


def test_pictures_decoded_on_a_gpu_are_not_made_smaller():
    with pytest.raises(ParamsError, match="cannot be made smaller"):
        registry.build(STREAMS["clip_tiny"].model_copy(update={"size": 48, "options": {"decoder": "nvjpeg"}}))
