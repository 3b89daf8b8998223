"""How strong the expression is on the frame that `frames: peak` keeps, on generated films whose course is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.demo import emotions, render, script, voice
from pipeline.data.demo.options import Options
from pipeline.features.encoders.vision.peak import find_peak
from pipeline.storage import jpeg

from .figures import Figure


@dataclass(frozen=True)
class Size:
    sessions: int = 12
    dialogues: int = 24
    turns: int = 14


TINY = Size(1, 1, 4)


@dataclass(frozen=True)
class Film:
    """Frames as the demo decodes them, how strong each is (distance of valence and arousal from neutral), and what is shown."""

    jpegs: list[bytes]
    strength: np.ndarray
    shown: str


def make_films(size: Size) -> Iterator[Film]:
    """The clips of the demo that have a picture, at 4 frames per second."""
    options = Options(sessions=size.sessions, dialogues=size.dialogues, turns=size.turns, fps=4, size=128)
    for line in script.write(options):
        if not line.picture:
            continue
        known = render.truth(line, options)
        marks = voice.syllables(line.shown["voice"], line.duration, np.random.default_rng([*line.seed, 2]))
        frames = render.pictures(line, known, marks, options)
        strength = np.linalg.norm(known.affect - emotions.POINTS["neutral"][:2], axis=1)
        yield Film([jpeg.encode(Image.fromarray(one), 95) for one in frames], strength, line.shown["face"])


def rank(film: Film, position: int) -> float:
    """Which share of the clip's other frames is weaker than this one; half of those that are as strong."""
    weaker, equal = (film.strength < film.strength[position]).sum(), (film.strength == film.strength[position]).sum() - 1
    return float((weaker + equal / 2) / (len(film.strength) - 1))


def measure(folder: Path, size: Size) -> list[Figure]:
    """Mean percentile of true intensity of the peak frame, and of the middle one."""
    films = [film for film in make_films(size) if len(film.jpegs) > 2]
    chosen: dict[str, Callable[[Film], int]] = {
        "peak": lambda film: find_peak(film.jpegs),
        "middle": lambda film: len(film.jpegs) // 2,
    }
    figures = []
    for name, choose in chosen.items():
        ranks = np.array([rank(film, choose(film)) for film in films])
        moved = np.array([film.shown != "neutral" for film in films])
        for what, part in (("all clips", ranks), ("faces that show an emotion", ranks[moved])):
            target = ">= 0.75" if name == "peak" else ""
            note = f"mean over {len(part)} clips; 0.5 is chance"
            figures.append(Figure(f"{name} frame, percentile of true intensity, {what}", float(part.mean()), "", target, note))
    return figures
