"""The seven emotions in valence, arousal and dominance, and how they move over a clip."""

from __future__ import annotations

import numpy as np

#: Centres in [-1, 1]: valence, arousal, dominance. After the usual picture of the circumplex
#: (Russell 1980) with the dominance axis of Mehrabian (1996); the exact numbers are ours.
POINTS: dict[str, tuple[float, float, float]] = {
    "neutral": (0.0, -0.15, 0.05),
    "joy": (0.75, 0.45, 0.4),
    "sadness": (-0.6, -0.55, -0.45),
    "anger": (-0.55, 0.7, 0.55),
    "surprise": (0.3, 0.75, -0.1),
    "fear": (-0.65, 0.55, -0.6),
    "disgust": (-0.7, 0.1, 0.2),
}
EMOTIONS = tuple(POINTS)

#: What each modality is mistaken for. The lists differ between modalities on purpose: where the
#: face fails (fear looks like surprise) the voice and the words need not.
CONFUSED: dict[str, dict[str, tuple[str, ...]]] = {
    "face": {
        "neutral": ("sadness", "disgust"),
        "joy": ("surprise", "neutral"),
        "sadness": ("neutral", "fear"),
        "anger": ("disgust", "neutral"),
        "surprise": ("fear", "joy"),
        "fear": ("surprise", "sadness"),
        "disgust": ("anger", "joy"),
    },
    "voice": {
        "neutral": ("disgust", "sadness"),
        "joy": ("anger", "surprise"),
        "sadness": ("disgust", "neutral"),
        "anger": ("joy", "fear"),
        "surprise": ("joy", "fear"),
        "fear": ("surprise", "anger"),
        "disgust": ("neutral", "sadness"),
    },
    "words": {
        "neutral": ("joy", "anger"),
        "joy": ("neutral", "sadness"),
        "sadness": ("fear", "anger"),
        "anger": ("sadness", "surprise"),
        "surprise": ("disgust", "neutral"),
        "fear": ("disgust", "joy"),
        "disgust": ("surprise", "fear"),
    },
}


def sentiment(emotion: str) -> str:
    """positive | neutral | negative. Surprise has no fixed sign and counts as neutral."""
    if emotion in ("neutral", "surprise"):
        return "neutral"
    return "positive" if POINTS[emotion][0] > 0 else "negative"


def _wander(generator: np.random.Generator, seconds: np.ndarray) -> np.ndarray:
    """A slow curve of unit size: two sines below 1 Hz."""
    frequency = generator.uniform(0.15, 0.8, size=2)
    phase = generator.uniform(0, 2 * np.pi, size=2)
    return np.sin(2 * np.pi * frequency * seconds[:, None] + phase).mean(axis=1)


def envelope(seconds: np.ndarray, duration: float, peak: float) -> np.ndarray:
    """How far the expression has developed, in [0.55, 1]: onset, apex at `peak` (share), offset."""
    position = seconds / duration
    shape = np.where(position < peak, position / peak, 1 - 0.5 * (position - peak) / (1 - peak))
    return 0.55 + 0.45 * np.sin(np.clip(shape, 0, 1) * np.pi / 2) ** 2


def trajectory(
    emotion: str, intensity: float, seconds: np.ndarray, duration: float, generator: np.random.Generator
) -> np.ndarray:
    """Valence and arousal at given times.

    Returns:
        (T, 2) in [-1, 1], rounded to four decimals as written to the annotation file.
    """
    centre = np.array(POINTS[emotion][:2]) + generator.normal(0, 0.05, size=2)
    course = envelope(seconds, duration, generator.uniform(0.3, 0.7)) * intensity
    wander = np.stack([_wander(generator, seconds), _wander(generator, seconds)], axis=1)
    return np.round(np.clip(centre * course[:, None] + 0.12 * wander, -1, 1), 4)
