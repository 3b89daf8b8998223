"""Views of a clip by name: `speed:0.9`, the sound at that speed; `mirror`, every picture left to right."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

MIRROR = "mirror"
#: Few digits keep the ratio of the resampler small; beyond these speeds nothing is speech.
SPEED = re.compile(r"speed:(\d{1,2}(?:\.\d{1,3})?)")
SLOWEST, FASTEST = Fraction(1, 10), Fraction(10)
#: What a stream of each modality may be seen as, in words.
KNOWN = {
    "audio": "speed:FACTOR (e.g. speed:0.9; 0.1 to 10, not 1, at most three decimals)",
    "video": MIRROR,
    "face": MIRROR,
}


def read_speed(view: str) -> Fraction | None:
    """How fast a view of sound is played; None when it is none.

    >>> read_speed("speed:0.9"), read_speed("mirror"), read_speed("speed:1.0")
    (Fraction(9, 10), None, None)
    """
    found = SPEED.fullmatch(view)
    factor = Fraction(found[1]) if found else None
    return factor if factor is not None and SLOWEST <= factor <= FASTEST and factor != 1 else None


def check_views(views: Sequence[str], modality: str) -> tuple[str, ...]:
    """The views of a stream, in the order in which they are stored.

    Args:
        modality: of the stream; what has no views is named in the error as it is given.

    Raises:
        ValueError: a view that there is not, or one twice.
    """
    if views and modality not in KNOWN:
        raise ValueError(f"there are no views of {modality}; leave views empty")
    seen: list[object] = []
    for view in views:
        meaning: object = read_speed(view) if modality == "audio" else view if view == MIRROR else None
        if meaning is None:
            raise ValueError(f"there is no view {view!r} of {modality}; there is {KNOWN[modality]}")
        if meaning in seen:
            raise ValueError(f"view {view!r} is there twice")
        seen.append(meaning)
    return tuple(sorted(views))
