"""Names of emotions, as corpora have them and in common."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from ruamel.yaml import YAML

from pipeline.errors import CorpusError, one_of

#: Names after `emotion`.
COMMON = ("anger", "contempt", "disgust", "fear", "joy", "neutral", "sadness", "surprise")

#: The 27 labels of GoEmotions (Demszky et al. 2020), neutral apart.
FINE = (
    "admiration",
    "amusement",
    "anger",
    "annoyance",
    "approval",
    "caring",
    "confusion",
    "curiosity",
    "desire",
    "disappointment",
    "disapproval",
    "disgust",
    "embarrassment",
    "excitement",
    "fear",
    "gratitude",
    "grief",
    "joy",
    "love",
    "nervousness",
    "optimism",
    "pride",
    "realization",
    "relief",
    "remorse",
    "sadness",
    "surprise",
)


@cache
def mapping(name: str) -> dict:
    """A map of `pipeline/data/maps`: emotions or goemotions."""
    return YAML(typ="safe", pure=True).load((files(__package__) / "maps" / f"{name}.yaml").read_text(encoding="utf-8"))


def emotion(label: str) -> str | None:
    """The common name of a corpus' label; None where it has no counterpart (boredom, other).

    A fine label of GoEmotions has one when it belongs to a single basic class.

    >>> emotion("Happy"), emotion("annoyance"), emotion("boredom")
    ('joy', 'anger', None)
    """
    label = label.strip().lower()
    if common := mapping("emotions").get(label):
        return common
    found = basic([label]) if label in FINE else set()
    return found.pop() if len(found) == 1 else None


def basic(fine: Iterable[str]) -> set[str]:
    """Basic classes that fine GoEmotions labels belong to; a label may belong to two, or to none."""
    wanted = set(fine)
    if unknown := sorted(wanted - {*FINE, "neutral"}):
        raise one_of("GoEmotions label", unknown[0], FINE, CorpusError)
    found = {name for name, members in mapping("goemotions").items() if wanted & set(members)}
    return found | ({"neutral"} & wanted)


def fine(name: str) -> tuple[str, ...]:
    """Fine GoEmotions labels of a basic class.

    Raises:
        CorpusError: it is not one of the seven.
    """
    known = mapping("goemotions")
    if name not in known:
        raise one_of("basic emotion", name, known, CorpusError)
    return tuple(known[name])
