"""What an emotion does to a face, as a few numbers that blend."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from .emotions import POINTS


@dataclass(frozen=True)
class Expression:
    """A face's state; the comments name the action units of FACS (Ekman and Friesen 1978) they stand for.

    Attributes:
        smile: corners of the mouth, -1 down to 1 up (AU12, AU15). open: of the mouth, 0 to 1 (AU25-27).
        width: of the mouth, 1 at rest (AU18, AU20). brow: height, -1 to 1 (AU1+2, AU4).
        slant: inner ends of the brows, -1 up to 1 down. eye: lids, 0 shut, 0.8 at rest (AU5, AU7, AU43).
        wrinkle: of the nose, with the upper lip raised (AU9, AU10). tear: 0 to 1.
        red, green, blue: flush of the face, in 8-bit steps. lean: of the head, share of the width.
    """

    smile: float = 0.05
    open: float = 0.03
    width: float = 1.0
    brow: float = 0.0
    slant: float = 0.0
    eye: float = 0.8
    wrinkle: float = 0.0
    tear: float = 0.0
    red: float = 0.0
    green: float = 0.0
    blue: float = 0.0
    lean: float = 0.0


EXPRESSIONS: dict[str, Expression] = {
    "neutral": Expression(),
    "joy": Expression(smile=1.0, open=0.5, width=1.3, brow=0.3, eye=0.65, red=26, green=4, blue=-6),
    "sadness": Expression(
        smile=-0.8, open=0.0, width=0.8, brow=0.1, slant=-1.0, eye=0.4, tear=1.0,
        red=-26, green=-14, blue=22, lean=0.035,
    ),
    "anger": Expression(
        smile=-0.55, open=0.35, width=1.05, brow=-0.8, slant=1.0, eye=0.7, red=42, green=-34, blue=-34, lean=0.01
    ),
    "surprise": Expression(smile=0.05, open=1.0, width=0.6, brow=1.0, eye=1.4, red=14, green=14, blue=2, lean=-0.02),
    "fear": Expression(
        smile=-0.45, open=0.45, width=1.15, brow=0.7, slant=-0.9, eye=1.3, red=-14, green=6, blue=30, lean=-0.01
    ),
    "disgust": Expression(
        smile=-0.5, open=0.08, width=0.9, brow=-0.5, slant=0.45, eye=0.3, wrinkle=1.0, red=-30, green=18, blue=-30
    ),
}  # fmt: skip


def express(emotion: str, valence: float, arousal: float, speech: float, blink: float) -> Expression:
    """The face at one moment.

    Args:
        emotion: what the face shows. valence, arousal: at this moment, in [-1, 1].
        speech: opening of the mouth by speech, in [0, 1]. blink: 0 open to 1 shut.
    """
    centre = np.array(POINTS[emotion][:2])
    # How far along the emotion's own direction the moment is: 1 at its centre.
    strength = 1.0
    if emotion != "neutral":
        strength = float(np.clip(np.dot((valence, arousal), centre) / np.dot(centre, centre), 0.35, 1.3))
    rest, full = EXPRESSIONS["neutral"], EXPRESSIONS[emotion]
    values = {}
    for item in fields(Expression):
        low, high = getattr(rest, item.name), getattr(full, item.name)
        values[item.name] = low + strength * (high - low)
    away = np.array((valence, arousal)) - strength * centre
    values["smile"] = float(np.clip(values["smile"] + 0.5 * away[0], -1.2, 1.2))
    values["eye"] = max(0.0, values["eye"] + 0.25 * away[1]) * (1 - blink)
    values["open"] = float(np.clip(values["open"] + 0.2 * away[1] + 0.3 * speech, 0, 1.2))
    return Expression(**values)
