"""Drawing a talking head."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .cast import Colour, Speaker
from .expression import Expression

#: Drawn this much larger and reduced, so that edges are smooth.
OVERSAMPLING = 2


def draw(person: Speaker, face: Expression, sway: tuple[float, float], size: int) -> np.ndarray:
    """One picture.

    Args:
        sway: offset of the head, shares of the width.
        size: width and height in pixels.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    full = size * OVERSAMPLING
    flush = (face.red, face.green, face.blue)
    # The wall takes the mood's light, as on a stage; it helps encoders that see colour before shape.
    image = Image.new("RGB", (full, full), _mix(person.wall, flush))
    pen = _Pen(ImageDraw.Draw(image), full, person.x + sway[0], person.y + sway[1] + face.lean, person.width, person.height)
    skin = _mix(person.skin, flush)
    _body(pen, person, skin)
    _eyes(pen, person, face, skin)
    _brows(pen, person, face)
    _nose(pen, face, skin)
    _mouth(pen, face, skin)
    return np.asarray(image.reduce(OVERSAMPLING))


class _Pen:
    """Draws in face coordinates: (0, 0) is the middle of the face, (1, 1) its right lower extent."""

    def __init__(self, canvas: ImageDraw.ImageDraw, full: int, x: float, y: float, width: float, height: float):
        self.canvas, self.full = canvas, full
        self.x, self.y, self.width, self.height = x * full, y * full, width * full, height * full

    def point(self, x: float, y: float) -> tuple[float, float]:
        return self.x + x * self.width, self.y + y * self.height

    def oval(self, x: float, y: float, width: float, height: float, fill: Colour) -> None:
        left, top = self.point(x - width, y - height)
        right, bottom = self.point(x + width, y + height)
        self.canvas.ellipse((left, top, max(left, right), max(top, bottom)), fill=fill)

    def shape(self, points: np.ndarray, fill: Colour) -> None:
        self.canvas.polygon([self.point(x, y) for x, y in points], fill=fill)

    def stroke(self, points: np.ndarray, fill: Colour, thick: float) -> None:
        width = max(1, round(thick * self.width))
        self.canvas.line([self.point(x, y) for x, y in points], fill=fill, width=width, joint="curve")


def _mix(colour: Colour, shift: tuple[float, float, float]) -> Colour:
    red, green, blue = (int(np.clip(base + step, 0, 255)) for base, step in zip(colour, shift, strict=True))
    return red, green, blue


def _dim(colour: Colour, share: float) -> Colour:
    red, green, blue = (int(part * share) for part in colour)
    return red, green, blue


def _body(pen: _Pen, person: Speaker, skin: Colour) -> None:
    if person.style in (1, 3):  # long hair falls behind the neck
        pen.oval(0, 0.15, 1.16, 1.15, person.hair)
    pen.oval(0, 1.75, 1.55, 0.75, person.shirt)
    pen.shape(np.array([(-0.36, 0.7), (0.36, 0.7), (0.42, 1.2), (-0.42, 1.2)]), _dim(skin, 0.86))
    for side in (-1, 1):
        pen.oval(side * 0.98, 0.0, 0.13, 0.18, _dim(skin, 0.92))
    pen.oval(0, -0.12, 1.06, 1.0, person.hair)
    pen.oval(0, 0.06, 0.97, 0.95, skin)
    angle = np.linspace(np.pi, 2 * np.pi, 24)
    fringe = {0: 0.46, 1: 0.6, 2: 0.28, 3: 0.5}[person.style]
    upper = np.stack([1.02 * np.cos(angle), -0.12 + 1.0 * np.sin(angle)], axis=1)
    lower = np.stack([0.98 * np.cos(angle[::-1]), -0.42 + fringe * 0.75 * np.sin(angle[::-1])], axis=1)
    pen.shape(np.concatenate([upper, lower]), person.hair)


def _eyes(pen: _Pen, person: Speaker, face: Expression, skin: Colour) -> None:
    height = 0.15 * face.eye
    for side in (-1, 1):
        x, y = side * 0.4, -0.12
        if height < 0.03:
            pen.stroke(np.array([(x - 0.2, y), (x, y + 0.03), (x + 0.2, y)]), _dim(skin, 0.45), 0.05)
        else:
            pen.oval(x, y, 0.225, height + 0.02, _dim(skin, 0.55))
            pen.oval(x, y, 0.2, height, (250, 250, 248))
            iris = min(0.105, height)
            pen.oval(x, y, iris, iris * 0.95, (58, 52, 60))
            pen.oval(x + 0.035, y - iris * 0.4, 0.03, 0.03, (255, 255, 255))
        if person.glasses:
            angle = np.linspace(0, 2 * np.pi, 28)
            ring = np.stack([x + 0.31 * np.cos(angle), y + 0.25 * np.sin(angle)], axis=1)
            pen.stroke(ring, (60, 60, 66), 0.045)
        if face.tear > 0.3:
            pen.oval(x + side * 0.12, y + 0.22 + 0.1 * face.tear, 0.06, 0.1 * face.tear, (120, 190, 250))


def _brows(pen: _Pen, person: Speaker, face: Expression) -> None:
    for side in (-1, 1):
        height = -0.4 - 0.13 * face.brow
        inner = (side * 0.17, height + 0.14 * face.slant)
        outer = (side * 0.66, height - 0.07 * face.slant + 0.03)
        middle = (side * 0.42, height - 0.05 + 0.03 * face.slant)
        pen.stroke(np.array([inner, middle, outer]), _dim(person.hair, 0.7), 0.1)


def _nose(pen: _Pen, face: Expression, skin: Colour) -> None:
    shade = _dim(skin, 0.72)
    pen.stroke(np.array([(0.0, 0.02), (-0.1, 0.26), (0.06, 0.28)]), shade, 0.06)
    if face.wrinkle > 0.2:
        for level in (0.0, 0.09):
            reach = 0.13 * face.wrinkle
            pen.stroke(np.array([(-reach, level), (0, level + 0.04), (reach, level)]), _dim(skin, 0.55), 0.045)
        for side in (-1, 1):
            fold = np.array([(side * 0.18, 0.24), (side * 0.42, 0.5)])
            pen.stroke(fold, _dim(skin, 0.62), 0.05 * face.wrinkle)


def _mouth(pen: _Pen, face: Expression, skin: Colour) -> None:
    lips = (178, 74, 78)
    across = np.linspace(-1, 1, 21)
    arch = 1 - across**2
    middle = 0.56 - 0.04 * face.smile
    base = middle + 0.2 * face.smile * (arch - 0.5)
    lift = 0.07 * face.wrinkle * np.abs(np.sin(across * np.pi)) * arch
    upper = base - 0.08 * face.open * arch - lift
    lower = base + 0.3 * face.open * arch + 0.012
    x = 0.42 * face.width * across
    outline = np.concatenate([np.stack([x, upper], 1), np.stack([x[::-1], lower[::-1]], 1)])
    pen.shape(outline, (84, 26, 32))
    if face.open > 0.2:
        teeth = np.minimum(upper + 0.07 * min(1, face.open * 1.5), lower)
        pen.shape(np.concatenate([np.stack([x, upper], 1), np.stack([x[::-1], teeth[::-1]], 1)]), (246, 244, 238))
    pen.stroke(np.concatenate([outline, outline[:1]]), lips, 0.075)
