"""Words that come with a raw file."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.features.encoders.extractor import Turn


@dataclass(frozen=True)
class Spoken:
    """What is known of the words, beside the file.

    Attributes:
        text: what is said; None or blank when nobody wrote it down.
        speaker: who says it.
        context: earlier turns of the dialogue, oldest first.
    """

    text: str | None = None
    speaker: str | None = None
    context: tuple[Turn, ...] = ()


def turn(said: str) -> Turn:
    """`Ann: Did it rain?` → a turn of Ann's; without a name nobody is known to have said it."""
    speaker, colon, text = said.partition(": ")
    return Turn(speaker.strip() or None, text.strip()) if colon else Turn(None, said.strip())
