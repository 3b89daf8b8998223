"""Of several faces the one whose mouth moves with the sound."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.data.demo import face, voice
from pipeline.data.demo.cast import speaker
from pipeline.data.demo.expression import Expression
from pipeline.data.faces import speaking
from pipeline.data.faces.detection import Detection
from pipeline.data.faces.find import find_face
from pipeline.data.faces.track import Track
from pipeline.params import Faces
from pipeline.storage import jpeg
from pipeline.storage.media_store import split_files

RATE = 8000
#: Who says something, one after the other: seconds.
TURNS = (0.5, 1.6), (2.4, 3.4)


def moments(seconds: float = 4.0, fps: float = 8.0) -> np.ndarray:
    edges = np.arange(round(seconds * fps) + 1) / fps
    return np.stack([edges[:-1], edges[1:]], 1)


def opening(times: np.ndarray, turns, generator: np.random.Generator) -> np.ndarray:
    """How far a mouth is open at each frame: syllables within the turns, shut outside."""
    middles = times.mean(1)
    inside = np.any([(middles > low) & (middles < high) for low, high in turns], axis=0)
    return np.where(inside, generator.uniform(0.1, 1, len(middles)), 0.0)


def noise(turns, seconds: float = 4.0) -> np.ndarray:
    """A waveform that is loud in the turns."""
    generator = np.random.default_rng(0)
    at = np.arange(round(seconds * RATE)) / RATE
    loud = np.any([(at > low) & (at < high) for low, high in turns], axis=0)
    return (generator.normal(0, 0.1, len(at)) * np.where(loud, 1.0, 0.01)).astype(np.float32)


def quiet(turns, seconds: float = 4.0):
    """The time between the turns."""
    edges = [0.0, *(edge for turn in turns for edge in turn), seconds]
    return tuple(zip(edges[::2], edges[1::2], strict=True))


@pytest.fixture(scope="module")
def drawn():
    """Pictures of two drawn faces side by side: the left one speaks in the turns, the right one moves between them."""
    people, generator, times = [speaker(3, 0, place) for place in (0, 1)], np.random.default_rng(1), moments()
    left, right = opening(times, TURNS, generator), opening(times, quiet(TURNS), generator)
    pictures = []
    for i in range(len(times)):
        sway = 0.01 * np.sin(i), 0.01 * np.cos(2 * i)
        sides = [face.draw(person, Expression(open=one[i]), sway, 96) for person, one in zip(people, (left, right), strict=True)]
        pictures.append(Image.fromarray(np.concatenate(sides, 1)))
    boxes = [Detection((20.0 + 96 * i, 18.0, 76.0 + 96 * i, 84.0)) for i in range(2)]
    return pictures, times, [Track(dict.fromkeys(range(len(times)), box)) for box in boxes]


def test_a_drawn_mouth_is_followed(drawn):
    pictures, times, (left, right) = drawn
    assert speaking.speaker([right, left], pictures, times, (noise(TURNS), RATE)) is left
    assert speaking.speaker([left, right], pictures, times, (noise(quiet(TURNS)), RATE)) is right


def test_with_the_demos_voice(drawn):
    """Syllables of the generator of voices, heard through its own clock."""
    pictures, times, (left, right) = drawn
    marks = np.array([[t, t + 0.18] for low, high in TURNS for t in np.arange(low, high - 0.1, 0.22)])
    person, generator = speaker(3, 0, 0), np.random.default_rng(2)
    sound = voice.speak("neutral", person, marks, np.zeros(len(times)), 4.0, 16000, generator)
    assert speaking.speaker([left, right], pictures, times, (sound, 16000)) is left


def test_nothing_is_told_without_a_sound_that_varies(drawn):
    pictures, times, tracks = drawn
    for sound in (np.zeros(4 * RATE, np.float32), np.zeros(0, np.float32), np.full(4 * RATE, 0.1, np.float32)):
        assert speaking.speaker(tracks, pictures, times, (sound, RATE)) is None
    assert speaking.speaker([], pictures, times, (noise(TURNS), RATE)) is None


def test_nothing_is_told_when_no_mouth_moves(drawn):
    pictures, times, tracks = drawn
    assert speaking.speaker(tracks, pictures[:1] * len(times), times, (noise(TURNS), RATE)) is None


def test_nothing_is_told_of_a_moment(drawn):
    pictures, times, tracks = drawn
    short = [Track({n: track.boxes[n] for n in range(6)}) for track in tracks]
    assert speaking.speaker(short, pictures[:6], times[:6], (noise(TURNS), RATE)) is None


def test_a_face_that_passes_by_is_not_compared(drawn):
    pictures, times, (left, right) = drawn
    passing = Track({n: left.boxes[n] for n in range(12)})
    assert speaking.speaker([passing, right], pictures, times, (noise(TURNS), RATE)) is None


def test_a_head_that_moves_is_no_mouth(drawn):
    """The box stands still and the whole picture moves by a few pixels: hardly any movement is left."""
    pictures, _, (left, _) = drawn
    still = [pictures[0], pictures[0].transform(pictures[0].size, Image.Transform.AFFINE, (1, 0, 3, 0, 1, -2))]
    pair = Track({n: left.boxes[n] for n in range(2)})
    raw = np.abs(np.diff([np.asarray(one.convert("L"), float) for one in still], axis=0)).mean()
    assert speaking.movement(pair, still)[0] < 0.35 * raw


def test_movement_is_nan_where_the_face_is_gone(drawn):
    pictures, _, (left, _) = drawn
    track = Track({n: left.boxes[n] for n in (0, 1, 3, 4, 5)})
    assert np.isnan(speaking.movement(track, pictures[:8])).tolist() == [False, True, True, False, False, True, True]


def test_loudness_is_of_the_time_between_two_frames():
    level = speaking.loudness(np.repeat(np.array([0, 0.1, 1, 0], np.float32), 100), 100, np.array([0.0, 1, 2, 3, 4]))
    assert level == pytest.approx([-40, -20, 0, -40])
    assert speaking.loudness(np.ones(100, np.float32), 100, np.array([0.0, 1, 2])) == pytest.approx([0, -40])


@pytest.fixture(scope="module")
def people(astronaut):
    """JPEGs of a photographed face twice, the smaller one mirrored, whose drawn mouth opens in the turns; the larger one's
    opens between them."""
    generator, times = np.random.default_rng(5), moments()
    larger = astronaut.crop((120, 20, 330, 250)).resize((190, 208))
    smaller = astronaut.crop((120, 20, 330, 250)).transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((140, 153))
    mouths = opening(times, quiet(TURNS), generator), opening(times, TURNS, generator)
    jpegs = []
    for i in range(len(times)):
        picture = Image.new("RGB", (400, 240), (90, 110, 100))
        for cut, x, opened in ((larger, 5, mouths[0][i]), (smaller, 230, mouths[1][i])):
            cut = cut.copy()
            # The mouth is at (225, 142) of the photograph.
            middle, y, unit = 0.5 * cut.width, 122 / 230 * cut.height, cut.width / 210
            height = (2 + 12 * opened) * unit
            ImageDraw.Draw(cut).ellipse((middle - 20 * unit, y - height, middle + 20 * unit, y + height), fill=(70, 10, 20))
            picture.paste(cut, (x, 20))
        jpegs.append(jpeg.encode(picture, 95))
    return jpegs, times


def sides(entry) -> set[str]:
    return {"left" if box[0] < 200 else "right" for box in entry.extras["boxes"]}


def test_the_one_who_speaks_is_cut_out(people):
    spec = Faces(choice="speaking", size=64)
    small = find_face(spec, people, sound=(noise(TURNS), RATE))
    assert sides(small) == {"right"} and small.extras["heard"].all() and len(split_files(small)) == len(people[1])
    large = find_face(spec, people, sound=(noise(quiet(TURNS)), RATE))
    assert sides(large) == {"left"} and large.extras["heard"].all()


@pytest.mark.parametrize("sound", [None, (np.zeros(4 * RATE, np.float32), RATE)])
def test_without_sound_the_largest_is_taken_and_that_is_told(people, sound):
    found = find_face(Faces(choice="speaking", size=64), people, sound=sound)
    assert sides(found) == {"left"} and not found.extras["heard"].any()


def test_other_choices_do_not_listen(people):
    found = find_face(Faces(choice="largest", size=64), people, sound=(noise(TURNS), RATE))
    assert sides(found) == {"left"} and not found.extras["heard"].any()


def test_one_face_needs_no_sound(people):
    jpegs, times = people
    alone = [jpeg.encode(jpeg.decode(data).crop((0, 0, 215, 240)), 95) for data in jpegs]
    found = find_face(Faces(choice="speaking", size=64), (alone, times), sound=(noise(TURNS), RATE))
    assert len(found.times) == len(times) and not found.extras["heard"].any()
