"""CREMA-D: 91 actors say twelve sentences in six emotions (Cao et al. 2014)."""

from __future__ import annotations

import re

from . import table
from .acted import read_takes
from .adapter import Adapter, Tables

EMOTIONS = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
_NAME = re.compile(r"(1\d{3})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX|X)", re.ASCII)


def parse_name(stem: str) -> dict:
    """Columns told by a name like `1001_DFA_ANG_XX`.

    Raises:
        ValueError: it is no such name.
    """
    match = _NAME.fullmatch(stem)
    if not match or match[2] not in SENTENCES or match[3] not in EMOTIONS:
        raise ValueError("the name is not ACTOR_SENTENCE_EMOTION_LEVEL")
    level = {"LO": "low", "MD": "medium", "HI": "high"}.get(match[4], "unspecified")
    return {
        "speaker": match[1],
        "text": SENTENCES[match[2]],
        "emotion": EMOTIONS[match[3]],
        "language": "en",
        "labels": table.labels(level=level),
    }


class CremaD(Adapter):
    """Adapter of CREMA-D."""

    title = "CREMA-D, crowd-sourced emotional multimodal actors"
    licence = "ODbL 1.0"
    homepage = "https://github.com/CheyneyComputerScience/CREMA-D"
    layout = "AudioWAV/<actor>_<sentence>_<emotion>_<level>.wav (and VideoFlash/….flv)"
    classes = tuple(EMOTIONS.values())

    def read(self) -> Tables:
        """One clip per performance, sound and film joined by name."""
        return read_takes(self, parse_name)
