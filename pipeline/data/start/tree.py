"""What folders and file names of a tree of media tell: `corpus.options` of the adapter `generic`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

from . import words

#: Between the parts of a file name, and what a part is.
_BETWEEN, _PART = r"[_\-. ]+", r"[^_\-. ]+"
#: Share of the names that must agree on what a part means.
AGREE = 0.9
#: Folders that are classes though nobody knows their names: at most so many.
MOST_CLASSES = 40


def read_tree(files: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """(options, what is odd) from the relative paths of media.

    Folders are known by their names (emotions, splits, speakers, sessions); a level of other names is one of classes when it is
    the only one, has at least two, and each holds several clips. Parts of file names are emotions or speakers.
    """
    parts = [PurePosixPath(file).parts for file in files]
    depth = Counter(len(part) - 1 for part in parts).most_common(1)[0][0]
    odd = [f"{len(shallow)} files lie above the others' folders, e.g. {shallow[0]}"] if (shallow := _above(files, depth)) else []
    kept = [part for part in parts if len(part) - 1 >= depth]
    levels = [_name_level({part[level] for part in kept}) for level in range(depth)]
    stems = [PurePosixPath(part[-1]).stem for part in kept]
    told = _read_names(stems, known=levels)
    if "emotion" not in levels and "emotion" not in told and "_" in levels:
        level = next(place for place in range(depth - 1, -1, -1) if levels[place] == "_")
        names = Counter(part[level] for part in kept)
        if 2 <= len(names) <= MOST_CLASSES and min(names.values()) >= 2 and levels.count("_") == 1:
            levels[level] = "emotion"
    # A column that both tell is the folders'.
    told = {name: place for name, place in told.items() if name not in levels}
    options: dict[str, Any] = {"table": None, "levels": levels}
    if told:
        options["names"] = _write_pattern(told)
    return options, odd


def _above(files: Sequence[str], depth: int) -> list[str]:
    return [file for file in files if len(PurePosixPath(file).parts) - 1 < depth]


def _name_level(names: set[str]) -> str:
    tests: tuple[tuple[str, Callable[[str], bool]], ...] = (
        ("emotion", words.is_emotion),
        ("split", lambda name: name.lower() in words.SPLITS),
        ("session", words.is_session),
        ("speaker", words.is_speaker),
    )
    for column, test in tests:
        if sum(map(test, names)) >= max(1, AGREE * len(names)) and (column != "emotion" or len(names) > 1):
            return column
    known = sum(map(words.is_emotion, names))
    return "emotion" if len(names) > 2 and known >= len(names) / 2 else "_"


def _read_names(stems: Sequence[str], known: Sequence[str]) -> dict[str, int]:
    """Column → which part of the name says it."""
    split = [re.split(_BETWEEN, stem) for stem in stems]
    fewest = min(map(len, split))
    if len(stems) < 2:
        return {}
    found: dict[str, int] = {}
    for place in range(fewest):
        column = [part[place] for part in split]
        if "emotion" not in {*known, *found} and sum(map(words.is_emotion, column)) >= AGREE * len(column):
            if len(set(column)) > 1:
                found["emotion"] = place
        elif "speaker" not in {*known, *found} and 1 < len(set(column)) < len(column):
            if sum(map(words.is_speaker, column)) >= AGREE * len(column):
                found["speaker"] = place
    return found


def _write_pattern(told: dict[str, int]) -> str:
    """A regular expression of a name's parts, with a group for each that tells something; what follows the last is free."""
    columns = {place: name for name, place in told.items()}
    parts = [f"(?P<{columns[i]}>{_PART})" if i in columns else _PART for i in range(max(columns) + 1)]
    return _BETWEEN.join(parts) + f"(?:{_BETWEEN}.*)?"
