"""Options that say how names of files are written."""

from __future__ import annotations

import re

#: What the name of a file may tell.
NAMED_COLUMNS = ("speaker", "emotion", "sentiment", "session", "dialogue", "turn", "split", "language", "text")


def check_names(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"is no regular expression ({error})") from error
    if not groups:
        raise ValueError("names no column; write e.g. (?P<speaker>S[0-9]+)_.*")
    if unknown := [name for name in groups if name not in NAMED_COLUMNS]:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(NAMED_COLUMNS)}")
    return pattern


def check_media(pattern: str) -> str:
    if pattern.count("{}") != 1:
        raise ValueError("has no {} where the cell goes, e.g. films/{}.mp4")
    return pattern
