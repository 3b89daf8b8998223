"""The speakers: what makes one face and one voice differ from the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Colour = tuple[int, int, int]

SKIN: tuple[Colour, ...] = ((242, 208, 180), (230, 190, 152), (206, 160, 120), (178, 130, 94), (148, 104, 76))
HAIR: tuple[Colour, ...] = ((38, 30, 28), (92, 58, 34), (168, 116, 54), (214, 178, 98), (140, 60, 34), (150, 150, 152))
SHIRT: tuple[Colour, ...] = ((70, 96, 140), (150, 72, 70), (84, 128, 92), (150, 124, 70), (108, 84, 138), (90, 90, 96))
WALL: tuple[Colour, ...] = ((200, 204, 208), (206, 203, 198), (200, 206, 200), (205, 201, 206), (196, 199, 204))


@dataclass(frozen=True)
class Speaker:
    """One person. Lengths are shares of the picture's width; `pitch` in Hz; `tract` scales the formants."""

    name: str
    skin: Colour
    hair: Colour
    style: int
    shirt: Colour
    wall: Colour
    glasses: bool
    width: float
    height: float
    x: float
    y: float
    light: float
    pitch: float
    tract: float
    breath: float
    loudness: float


def speaker(seed: int, session: int, place: int) -> Speaker:
    """The speaker at `place` (0 or 1) of a session."""
    generator = np.random.default_rng([seed, 101, session, place])

    def pick(choices: tuple[Colour, ...]) -> Colour:
        return choices[generator.integers(len(choices))]

    # The two of a session differ in register, so that a dyad can be told apart by ear.
    low = (session + place) % 2 == 0
    pitch = generator.uniform(112, 135) if low else generator.uniform(160, 190)
    return Speaker(
        name=f"s{session:02d}{'ab'[place]}",
        skin=pick(SKIN),
        hair=pick(HAIR),
        style=int(generator.integers(4)),
        shirt=pick(SHIRT),
        wall=pick(WALL),
        glasses=bool(generator.random() < 0.25),
        width=generator.uniform(0.32, 0.35),
        height=generator.uniform(0.4, 0.43),
        x=0.5 + generator.uniform(-0.02, 0.02),
        y=0.5 + generator.uniform(-0.015, 0.015),
        light=generator.uniform(-0.12, 0.12),
        pitch=pitch,
        tract=generator.uniform(0.96, 1.01) if low else generator.uniform(1.03, 1.08),
        breath=generator.uniform(0.01, 0.05),
        loudness=generator.uniform(-2, 2),
    )
