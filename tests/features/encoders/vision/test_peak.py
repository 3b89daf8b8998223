"""The frame that shows most: on drawn faces whose course is known, and on courses made by hand."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.peak import Size, make_films, rank
from pipeline.features.encoders.vision.peak import find_peak, hold_still
from pipeline.storage import jpeg


def blend(share: float, shift: tuple[int, int] = (0, 0), light: float = 0.0) -> bytes:
    """A patterned picture in which a part gives way to another pattern, as far as `share`."""
    rows, columns = np.mgrid[:96, :96].astype(float)
    rows, columns = rows - shift[0], columns - shift[1]
    rest = 110 + 40 * np.sin(columns / 9) * np.cos(rows / 13) + 30 * (np.hypot(rows - 48, columns - 48) < 30)
    mouth = np.exp(-((rows - 65) ** 2 / 60 + (columns - 48) ** 2 / 200))
    picture = rest - 70 * share * mouth + light
    return jpeg.encode(Image.fromarray(np.repeat(picture.clip(0, 255).astype(np.uint8)[..., None], 3, 2)), 95)


COURSES = {
    "an apex late": [0, 0, 0.1, 0.2, 0.5, 0.8, 1.0, 0.6, 0.2],
    "an apex early": [0, 0.6, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0],
    "mostly strong, neutral at the ends": [0, 0.8, 0.9, 0.9, 1.0, 0.9, 0.9, 0.8, 0],
    "cut off at the apex": [0, 0, 0.1, 0.3, 0.5, 0.9, 1.0],
    "one frame": [0, 0, 0, 0, 1.0, 0, 0],
}


@pytest.mark.parametrize("name", COURSES)
def test_courses(name):
    found = find_peak([blend(share) for share in COURSES[name]])
    assert COURSES[name][found] >= 0.9


def test_what_is_no_expression():
    still = blend(0)
    assert find_peak([still] * 7) == 3, "nothing moves: the middle"
    assert find_peak([still, blend(1)]) == 1 and find_peak([still]) == 0
    assert find_peak([blend(0, light=at) for at in (0, 0, 30, 0, 0, 0, 0)]) == 3, "light alone is no expression"


def test_a_head_that_moves_does_not_hide_the_face():
    shares, way = [0, 0.1, 0.3, 0.6, 1.0, 0.5, 0.2], [(0, 3), (3, 0), (-3, 2), (2, -3), (0, 0), (3, 3), (-3, -2)]
    assert find_peak([blend(share, shift) for share, shift in zip(shares, way, strict=True)]) == 4
    # Two pictures that are one moved lie on each other afterwards.
    rng = np.random.default_rng(0)
    wide = np.asarray(Image.fromarray(rng.uniform(0, 255, (24, 24)).astype(np.float32)).resize((80, 80), 3), float)
    frames = np.stack([wide[8:72, 8:72], wide[8:72, 8:72], wide[10:74, 5:69]])
    inside = hold_still(frames - frames.mean((1, 2), keepdims=True))[:, 8:-8, 8:-8]
    assert np.abs(inside[2] - inside[0]).mean() < 0.1 * np.abs(frames[2] - frames[0]).mean()


def test_the_peak_is_strong_on_the_demo():
    films = [film for film in make_films(Size(sessions=12, dialogues=24, turns=6)) if len(film.jpegs) > 2]
    peak = np.mean([rank(film, find_peak(film.jpegs)) for film in films])
    middle = np.mean([rank(film, len(film.jpegs) // 2) for film in films])
    assert peak > 0.75 and peak > middle, (peak, middle)
