"""Views of a clip by name: `speed:0.9`, the sound at that speed; `mirror`, every picture left to right; `brightness:0.8`,
`contrast:1.2`, `saturation:0.5`, every picture so tinted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

MIRROR = "mirror"
#: Few digits keep the ratio of the resampler small; beyond these speeds nothing is speech.
FACTOR = re.compile(r"(speed|brightness|contrast|saturation):(\d{1,2}(?:\.\d{1,3})?)")
LEAST, MOST = Fraction(1, 10), Fraction(10)
_RANGE = "0.1 to 10, not 1, at most three decimals"
#: What a stream of each modality may be seen as, in words.
KNOWN = {
    "audio": f"speed:FACTOR (e.g. speed:0.9; {_RANGE})",
    "video": f"{MIRROR}, brightness:FACTOR, contrast:FACTOR, saturation:FACTOR (e.g. brightness:0.8; {_RANGE})",
}
KNOWN["face"] = KNOWN["video"]


def read_speed(view: str) -> Fraction | None:
    """How fast a view of sound is played; None when it is none.

    >>> read_speed("speed:0.9"), read_speed("mirror"), read_speed("speed:1.0")
    (Fraction(9, 10), None, None)
    """
    found = _read_factor(view)
    return found[1] if found and found[0] == "speed" else None


def read_tint(view: str) -> tuple[str, Fraction] | None:
    """What a view of pictures changes, `brightness`, `contrast` or `saturation`, and by which factor; None when it is none.

    >>> read_tint("brightness:0.80"), read_tint("mirror"), read_tint("speed:0.9")
    (('brightness', Fraction(4, 5)), None, None)
    """
    found = _read_factor(view)
    return found if found and found[0] != "speed" else None


def _read_factor(view: str) -> tuple[str, Fraction] | None:
    found = FACTOR.fullmatch(view)
    factor = Fraction(found[2]) if found else Fraction(1)
    return (found[1], factor) if found and LEAST <= factor <= MOST and factor != 1 else None


def is_steady(view: str) -> bool:
    """Whether what is seen lies in the same seconds as in the clip as it is.

    >>> is_steady("mirror"), is_steady("contrast:1.2"), is_steady("speed:0.9")
    (True, True, False)
    """
    return read_speed(view) is None


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
        meaning: object = read_speed(view) if modality == "audio" else view if view == MIRROR else read_tint(view)
        if meaning is None:
            raise ValueError(f"there is no view {view!r} of {modality}; there is {KNOWN[modality]}")
        if meaning in seen:
            raise ValueError(f"view {view!r} is there twice")
        seen.append(meaning)
    return tuple(sorted(views))
