"""What a cell of a table says: nothing, a number, a time."""

from __future__ import annotations

import json
import math
import re

from pipeline.errors import CorpusError

#: Spellings of a missing value that pandas reads as one, and the dash. By the letter: "none" and "Nan" are words and names.
ABSENT = frozenset(
    "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|NaT|None|n/a|nan|null|-".split("|")
)
#: What a spreadsheet shows where a formula fails, and what stands here for one that was never calculated.
FAILED = frozenset(
    "#REF! #NAME? #VALUE! #DIV/0! #NULL! #NUM! #SPILL! #CALC! #FIELD! #BUSY! #BLOCKED! #CONNECT! #UNKNOWN!".split()
)
UNCALCULATED = "#FORMULA!"
_COMMA = re.compile(r"[+-]?\d+,\d+")
#: So might a thousand be written.
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2}(?:[.,]\d+)?)")


def plain(value: object, where: str) -> str:
    """Any value as stripped text; "" for none, JSON for lists and records.

    Raises:
        CorpusError: it holds half a character (a lone surrogate, as JSON can spell it).
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value).strip()
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise CorpusError(f"{where}: {ascii(text)} holds half a character.")
    return text


def present(text: str) -> str:
    """The cell, "" when it is the mark of a missing value.

    >>> present("None"), present("none")
    ('', 'none')
    """
    return "" if text in ABSENT else text


def has_decimal_comma(text: str) -> bool:
    """Whether a cell can only be a number with a decimal comma: `0,5`, not `1,234`."""
    return bool(_COMMA.fullmatch(text)) and not _THOUSANDS.fullmatch(text)


def number(text: str, least: float = -math.inf, most: float = math.inf, *, comma: bool = False) -> float | None:
    """A finite number in a range; None for an empty cell.

    Args:
        comma: decimal commas are in use, so that `1,234` is one and a bit.

    Raises:
        ValueError: it is no number, or out of the range.
    """
    if not present(text):
        return None
    if _THOUSANDS.fullmatch(text) and not comma:
        raise ValueError(f"{text} may be {text.replace(',', '.')} or {text.replace(',', '')}; write it with a point")
    try:
        value = float(text.replace(",", ".") if _COMMA.fullmatch(text) else text)
    except ValueError:
        raise ValueError(f"{text!r} is no number") from None
    if not math.isfinite(value) or not least <= value <= most:
        raise ValueError(f"{text} is not between {least:g} and {most:g}")
    return value


def whole(text: str, *, comma: bool = False) -> int | None:
    """A whole number; `3.0`, as tables with gaps are written, is 3.

    Raises:
        ValueError: it is none.
    """
    value = number(text, comma=comma)
    if value is not None and not value.is_integer():
        raise ValueError(f"{text} is no whole number")
    return None if value is None else int(value)


def seconds(text: str, *, comma: bool = False) -> float | None:
    """A moment: seconds, or a clock's `h:mm:ss` or `mm:ss`, as spreadsheets show times.

    Raises:
        ValueError: it is none, or negative.
    """
    if clock := _CLOCK.fullmatch(text):
        hours, minutes, rest = clock.groups()
        return int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
    return number(text, 0, comma=comma)
