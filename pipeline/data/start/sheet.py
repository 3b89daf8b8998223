"""What the columns of a table are: `corpus.options` of the adapter `generic`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.corpora import cells
from pipeline.data.corpora.folder import inside
from pipeline.data.corpora.table import rows_of
from pipeline.errors import CorpusError

from . import words

#: Suffixes of tables.
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xlsx", ".xlsm", ".parquet")
#: Ranges that dimensions are rated on, the first that holds all is taken.
RANGES = ((0, 1), (-1, 1), (1, 5), (1, 7), (1, 9), (0, 10), (1, 10), (-10, 10), (0, 100), (-100, 100))
#: Share of the lines whose media must be there.
ENOUGH = 0.5


@dataclass
class Sheet:
    """A table as `generic` can read it.

    Attributes:
        lines: how many rows. found: how many of them name a medium that is there.
        odd: sentences on what could not be used.
    """

    options: dict[str, Any]
    lines: int
    found: int
    odd: list[str] = field(default_factory=list)


def read_sheet(root: Path, name: str, media: Sequence[str]) -> Sheet:
    """Which column is what.

    Args:
        name: of the table, below the root. media: relative paths of the media there are.

    Raises:
        CorpusError: the table cannot be read or is empty; no column names media that are there, or words.
    """
    path = root / name
    rows = [row for _, row in rows_of(path)]
    if not rows:
        raise CorpusError(f"{path} holds no rows.")
    columns = list(dict.fromkeys(column for row in rows for column in row if column))
    values = {column: [cells.present(row.get(column, "")) for row in rows] for column in columns}
    values = {column: given for column, given in values.items() if any(given)}
    named, odd = _name_columns(values), []
    pattern, found = None, 0
    if place := _find_media(root, values, media):
        column, pattern, found = place
        for key in [key for key, taken in named.items() if taken == column]:
            del named[key]
        if not ({"video", "audio"} & named.keys()):
            named["media"] = column
    elif not ({"video", "audio"} & named.keys()):
        named.pop("media", None)
        if "text" not in named:
            tried = next((one for one in columns if words.plain(one) in words.COLUMNS["media"]), None)
            example = f" ({tried!r} says {next(filter(None, values.get(tried or '', [])), '')!r})" if tried else ""
            raise CorpusError(f"{path}: no column names media that are in {root}{example}. Columns: {', '.join(columns)}.")
    if "emotion" not in named and (guess := _find_emotion(values, named)):
        named["emotion"] = guess
    if "text" not in named and (guess := _find_text(values, named)):
        named["text"] = guess
    options: dict[str, Any] = {"table": name}
    scales = {}
    for key in ("valence", "arousal", "dominance"):
        if key in named:
            scale = _find_scale(values[named[key]])
            if scale is None:
                odd.append(f"column {named[key]!r} was not taken for {key}: it holds no numbers of a known scale")
                del named[key]
            elif scale != (-1, 1):
                scales[key] = list(scale)
                odd.append(f"{key} is taken to be on {scale[0]} to {scale[1]}; mend corpus.options.scales if it is not")
    if "split" in named and not {value.lower() for value in values[named["split"]] if value} <= words.SPLITS:
        odd.append(f"column {named['split']!r} was not taken for a split: it says more than train, val and test")
        del named["split"]
    for key in ("start", "end", "turn"):
        if key in named and not all(_is_number(value, key) for value in values[named[key]]):
            odd.append(f"column {named[key]!r} was not taken for {key}: not all of it are numbers")
            del named[key]
    if "id" in named and len(set(values[named["id"]])) < len(rows):
        del named["id"]
    medium = named.get("media") or named.get("video") or named.get("audio")
    if "id" not in named and medium and len(set(values[medium])) == len(rows):
        named["id"] = medium
    options["columns"] = {key: column for key, column in sorted(named.items()) if key != column}
    if pattern not in (None, "{}"):
        options["media"] = pattern
    if scales:
        options["scales"] = scales
    return Sheet(options, len(rows), found, odd)


def _name_columns(values: dict[str, list[str]]) -> dict[str, str]:
    """Manifest column → column of the table, by its name; the first name of a list counts most."""
    known = {words.plain(column): column for column in reversed(values)}
    named: dict[str, str] = {}
    for key, names in words.COLUMNS.items():
        found = next((known[name] for name in names if name in known and known[name] not in named.values()), None)
        if found:
            named[key] = found
    # Alone, a letter is no dimension.
    if len(named.keys() & {"valence", "arousal"}) < 2:
        for key in ("valence", "arousal", "dominance"):
            if len(named.get(key, "long")) == 1:
                del named[key]
    return named


def _find_media(root: Path, values: dict[str, list[str]], media: Sequence[str]) -> tuple[str, str, int] | None:
    """(column, pattern that makes a path of its cells, how many lines meet a file) of the column that meets most."""
    places: dict[str, list[str]] = defaultdict(list)
    for one in media:
        for key in {PurePosixPath(one).name, PurePosixPath(one).stem}:
            places[key].append(one)
    best: tuple[str, str, int] | None = None
    for column, given in values.items():
        patterns = {"{}"}
        for value in given[:50]:
            for one in places.get(PurePosixPath(value.replace("\\", "/")).name, ()) if value else ():
                if one.count(value) == 1 and "{" not in one:
                    patterns.add(one.replace(value, "{}"))
        for pattern in sorted(patterns, key=lambda text: (text != "{}", text)):
            met = sum(_is_there(root, pattern.replace("{}", value)) for value in given if value)
            if met and (best is None or met > best[2]):
                best = column, pattern, met
    lines = len(next(iter(values.values()), []))
    return best if best and best[2] >= ENOUGH * lines else None


def _is_there(root: Path, relative: str) -> bool:
    if os.path.isabs(relative) and Path(relative).is_relative_to(root.resolve()):
        return os.path.lexists(relative)
    relative = relative.replace("\\", "/")
    return inside(root, relative) and os.path.isfile(root / relative)


def _find_emotion(values: dict[str, list[str]], named: dict[str, str]) -> str | None:
    """A column that nobody named so, and that holds emotions."""
    for column, given in values.items():
        words_of = {value for value in given if value}
        if column not in named.values() and len(words_of) > 1 and sum(map(words.is_emotion, words_of)) >= 0.6 * len(words_of):
            return column
    return None


def _find_text(values: dict[str, list[str]], named: dict[str, str]) -> str | None:
    """A column of sentences: most have several words, and hardly one comes twice."""
    for column, given in values.items():
        said = [value for value in given if value]
        several = sum(len(value.split()) > 2 for value in said)
        if column not in named.values() and several > len(said) / 2 and len(set(said)) > 0.8 * len(said):
            return column
    return None


def _find_scale(given: Sequence[str]) -> tuple[int, int] | None:
    comma = any(map(cells.has_decimal_comma, given))
    try:
        numbers = [cells.number(value, comma=comma) for value in given if value]
    except ValueError:
        return None
    known = [number for number in numbers if number is not None]
    if not known:
        return None
    return next((scale for scale in RANGES if scale[0] <= min(known) and max(known) <= scale[1]), None)


def _is_number(value: str, key: str) -> bool:
    try:
        cells.whole(value) if key == "turn" else cells.seconds(value)
    except ValueError:
        return False
    return True
