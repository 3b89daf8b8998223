"""Labels of different corpora made comparable, by name and never by position."""

from __future__ import annotations

from pipeline.errors import CorpusError, one_of

from .corpora import find_adapter
from .names import COMMON, FINE, basic, emotion, fine, mapping

__all__ = [
    "COMMON",
    "FINE",
    "basic",
    "between",
    "emotion",
    "fine",
    "from_unit",
    "mapping",
    "scale",
    "sentiment",
    "to_unit",
    "valence",
]


def to_unit(value: float, corpus: str) -> float:
    """A dimension on the corpus' own scale in [-1, 1].

    Raises:
        CorpusError: there is no such corpus.
    """
    low, high = scale(corpus)
    return 2 * (value - low) / (high - low) - 1


def from_unit(value: float, corpus: str) -> float:
    """Inverse of `to_unit`."""
    low, high = scale(corpus)
    return low + (value + 1) * (high - low) / 2


def scale(corpus: str) -> tuple[float, float]:
    """(low, high) of a corpus' dimensions, as annotated.

    Raises:
        CorpusError: there is no such corpus.
    """
    return find_adapter(corpus).scale


def between(value: float, source: str, target: str) -> float:
    """From one corpus' scale to another's: MSP-Podcast's 1..7 on IEMOCAP's 1..5 is (x - 1) * 4 / 6 + 1."""
    return from_unit(to_unit(value, source), target)


def sentiment(valence: float, margin: float = 0.0) -> str:
    """Polarity of a valence in [-1, 1]; within `margin` of nought it is neutral."""
    return "positive" if valence > margin else "negative" if valence < -margin else "neutral"


def valence(polarity: str) -> float:
    """The middle of a polarity's third of [-1, 1].

    Raises:
        CorpusError: it is no polarity.
    """
    known = {"negative": -2 / 3, "neutral": 0.0, "positive": 2 / 3}
    if polarity not in known:
        raise one_of("polarity", polarity, known, CorpusError)
    return known[polarity]
