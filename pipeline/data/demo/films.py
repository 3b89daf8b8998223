"""A corpus in AFEW-VA's layout: drawn faces whose expression follows valence and arousal known at every frame."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from pipeline.errors import CorpusError
from pipeline.params import Group
from pipeline.storage.atomic import write_text

from . import face
from .cast import Speaker, speaker
from .emotions import POINTS
from .expression import EXPRESSIONS, Expression

#: As films run, and as the decoder takes folders of pictures.
RATE = 25
#: Labels are whole numbers in [-10, 10].
SCALE = 10
README = "README.md"
#: Distance in the plane of valence and arousal over which one expression turns into the next.
REACH = 0.3

_PAGE = """# Generated corpus in the layout of AFEW-VA

{films} films of {actors} drawn actors, {least} to {most} pictures each, {size} pixels wide. `NNN/NNNNN.png` are the pictures,
`NNN/NNN.json` holds actor, valence, arousal and 68 landmarks of every picture. Valence and arousal wander by themselves, and the
face follows them. Everything here was computed from a seed; no person is shown and no licence applies.
"""


class Options(Group):
    """`corpus.options` of the corpus `demo_afew_va`. The same options give the same bytes."""

    seed: int = Field(default=0, ge=0)
    actors: int = Field(default=15, ge=2, le=99)
    #: Of each actor.
    films: int = Field(default=5, ge=1, le=99)
    #: Pictures of a film, 25 per second.
    least: int = Field(default=30, ge=5)
    most: int = Field(default=90, le=1500)
    #: Width and height of a picture in pixels.
    size: int = Field(default=112, ge=48, le=1024, multiple_of=2)

    @model_validator(mode="after")
    def _fits(self) -> Options:
        if self.most < self.least:
            raise ValueError(f"most {self.most} is below least {self.least}")
        if self.actors * self.films > 999:
            raise ValueError(f"{self.actors} actors with {self.films} films each are more than the 999 that have a number")
        return self


@dataclass(frozen=True)
class Film:
    """One film: its number, actor, and the (T, 2) valence and arousal in [-1, 1] that the face follows."""

    number: int
    actor: Speaker
    course: np.ndarray
    seed: tuple[int, int]


def write_films(options: Options, out: Path) -> None:
    """Write the corpus into `out`, anew where an earlier one lies.

    Raises:
        CorpusError: the folder holds something else, or cannot be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not _is_ours(out):
            raise CorpusError(f"{out} holds other files; name an empty folder.")
        for place in out.glob("[0-9][0-9][0-9]"):
            shutil.rmtree(place)
        facts = options.model_dump() | {"films": options.actors * options.films}
        write_text(out / README, _PAGE.format(**facts))
        for film in plan_films(options):
            _write_film(film, options, out / f"{film.number:03}")
    except OSError as error:
        raise CorpusError(f"The corpus cannot be written to {out}: {error.strerror or error}.") from error


def _is_ours(out: Path) -> bool:
    page = out / README
    return page.is_file() and page.read_text(encoding="utf-8").startswith(_PAGE.partition("\n")[0])


def plan_films(options: Options) -> list[Film]:
    """All films; those of one actor are not numbered in a row."""
    films = []
    for number in range(options.actors * options.films):
        seed = (options.seed, number)
        generator = np.random.default_rng([*seed, 11])
        length = int(generator.integers(options.least, options.most + 1))
        actor = speaker(options.seed, *divmod(number % options.actors, 2))
        films.append(Film(number + 1, actor, wander(length, generator), seed))
    return films


def wander(length: int, generator: np.random.Generator) -> np.ndarray:
    """(T, 2) valence and arousal: from anywhere on the plane, along two slow sines each."""
    times = np.arange(length)[:, None, None] / RATE
    middle = generator.uniform(-0.6, 0.6, 2)
    pace, phase = generator.uniform(0.15, 0.9, (2, 2)), generator.uniform(0, 2 * np.pi, (2, 2))
    course = middle + 0.6 * np.sin(2 * np.pi * pace * times + phase).mean(-1)
    return np.clip(course, -1, 1)


def express(valence: float, arousal: float) -> Expression:
    """The face of a point of the plane: the expressions of the emotions near it, blended, and what is left of the way."""
    centres = np.array([point[:2] for point in POINTS.values()])
    near = np.exp(-((centres - (valence, arousal)) ** 2).sum(1) / (2 * REACH**2)) + 1e-9
    near /= near.sum()
    values = {
        item.name: float(sum(w * getattr(EXPRESSIONS[name], item.name) for w, name in zip(near, POINTS, strict=True)))
        for item in fields(Expression)
    }
    left = (valence, arousal) - near @ centres
    blended = Expression(**values)
    return replace(
        blended,
        smile=float(np.clip(blended.smile + 0.6 * left[0], -1.2, 1.2)),
        eye=max(0.05, blended.eye + 0.4 * float(left[1])),
        open=float(np.clip(blended.open + 0.25 * left[1], 0, 1.2)),
    )


def _write_film(film: Film, options: Options, place: Path) -> None:
    place.mkdir()
    generator = np.random.default_rng([*film.seed, 12])
    phase, light = generator.uniform(0, 2 * np.pi, 2), 1 + film.actor.light + generator.normal(0, 0.05)
    entries = {}
    for frame, (valence, arousal) in enumerate(film.course):
        shown, time = express(valence, arousal), frame / RATE
        sway = (0.012 * np.sin(3 * time + phase[0]), 0.012 * np.sin(5 * time + phase[1]))
        picture = face.draw(film.actor, shown, sway, options.size) * light
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(place / f"{frame:05}.png", compress_level=1)
        points = find_landmarks(film.actor, shown, sway) * options.size
        entries[f"{frame:05}"] = {
            "landmarks": points.round(2).tolist(),
            "valence": round(SCALE * valence),
            "arousal": round(SCALE * arousal),
        }
    value = {"video_id": f"{film.number:03}", "actor": film.actor.name, "frames": entries}
    write_text(place / f"{film.number:03}.json", json.dumps(value))


def find_landmarks(person: Speaker, shown: Expression, sway: tuple[float, float]) -> np.ndarray:
    """(68, 2) points of a drawn face in the order of 300-W, shares of the picture's width."""
    jaw = np.linspace(0, np.pi, 17)
    six, twelve, eight = (np.pi + np.linspace(0, 2 * np.pi, n, endpoint=False) for n in (6, 12, 8))
    brow, bridge = np.linspace(-0.66, -0.17, 5), np.linspace(-0.1, 0.2, 4)
    lid, lips = 0.15 * shown.eye, 0.42 * shown.width
    parts = [
        (-0.97 * np.cos(jaw), 0.06 + 0.95 * np.sin(jaw)),
        (brow, np.full(5, -0.4 - 0.13 * shown.brow)),
        (-brow[::-1], np.full(5, -0.4 - 0.13 * shown.brow)),
        (np.zeros(4), bridge),
        (np.linspace(-0.12, 0.12, 5), np.full(5, 0.28)),
        (-0.4 + 0.2 * np.cos(six), -0.12 + lid * np.sin(six)),
        (0.4 + 0.2 * np.cos(six), -0.12 + lid * np.sin(six)),
        (lips * np.cos(twelve), 0.56 + (0.06 + 0.15 * shown.open) * np.sin(twelve)),
        (0.8 * lips * np.cos(eight), 0.56 + (0.02 + 0.12 * shown.open) * np.sin(eight)),
    ]
    points = np.concatenate([np.stack(part, 1) for part in parts])
    middle = (person.x + sway[0], person.y + sway[1] + shown.lean)
    return middle + points * (person.width, person.height)
