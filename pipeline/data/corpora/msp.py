"""What the MSP corpora of the University of Texas at Dallas share."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from . import table
from .adapter import TableOptions

#: No agreement among the raters.
UNDECIDED = "X"
FOUR = ("angry", "happy", "neutral", "sad")
#: 4: angry, happy, neutral, sad; all: every class on which raters agree.
Classes = Literal["4", "all"]


class MspOptions(TableOptions):
    """Of both corpora."""

    classes: Classes = "4"
    #: keep: turns of no class asked for stay, for valence, arousal and dominance and as context. drop: they are left out.
    others: Literal["keep", "drop"] = "keep"


def emotion_of(code: str, codes: dict[str, str]) -> str | None:
    """The emotion of a letter; None when the raters disagree.

    Raises:
        ValueError: the letter is not of the corpus.
    """
    if code == UNDECIDED:
        return None
    if code not in codes:
        raise ValueError(f"emotion {code!r} is not of this corpus")
    return codes[code]


def is_kept(emotion: str | None, classes: Classes) -> bool:
    """Whether clips of that emotion are among those asked for."""
    return emotion is not None and (classes == "all" or emotion in FOUR)


def read_text(root: Path, relative: str | None, encoding: str | None = None) -> str | None:
    """A transcript as one line; None without file or words."""
    return None if relative is None else table.mend(" ".join(table.text_of(root / relative, encoding).split())) or None
