"""Any corpus: a table (CSV, TSV, JSON, JSONL, XLSX, Parquet) with a row per clip, or a tree of folders."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, Field

from pipeline.data import turns
from pipeline.errors import CorpusError, ParamsError
from pipeline.params import Name
from pipeline.storage.tables import SCHEMA

from . import cells, folder, table
from .adapter import Adapter, TableOptions, Tables
from .patterns import check_media, check_names

LAYOUT = "a table with manifest columns (or others, named in corpus.options.columns), or folders by label"
_SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "development": "val",
    "test": "test",
    "testing": "test",
}
_FILLED = tuple(name for name in SCHEMA if name not in ("corpus", "content", "duration", "video_hash", "audio_hash", "target"))
_MEDIA = ("media", "video", "audio")
_KINDS = (("audio", folder.AUDIO), ("video", folder.VIDEO))
_LOSSLESS = (".wav", ".flac", ".aiff", ".aif")
_SCALED = ("valence", "arousal", "dominance")
#: Cells that say how a line is labelled, and where its media are: left out where one of them cannot be read.
_UNLABELLED = dict.fromkeys(("emotion", "sentiment", *_SCALED), "")
_UNPLACED = dict.fromkeys((*_MEDIA, "start", "end", "channel", "half"), "")


def _table(root: Path, name: str, options: Generic.Options) -> Tables:
    if not folder.inside(root, name):
        raise CorpusError(f"corpus.options.table: {name} leads out of {root}.")
    path = root / name
    rows = table.rows_of(path, options.columns.values(), options.sheet, options.encoding)
    if not rows:
        raise CorpusError(f"{path} holds no rows.")
    known = set(rows[0][1])
    names = {name: options.columns.get(name, name) for name in (*_FILLED, "media")}
    names = {name: column for name, column in names.items() if column in known}
    if not names.keys() & {"media", "video", "audio", "text"}:
        raise CorpusError(
            f"{path} has no column of media or text. Name it in corpus.options.columns (columns: {', '.join(sorted(known))})."
        )
    result = Tables(clips=[])
    # Cells that say "nothing" in words say it.
    lines = [(line, {name: cells.present(row.get(column, "")) for name, column in names.items()}) for line, row in rows]
    comma = any(cells.has_decimal_comma(row.get(name, "")) for _, row in lines for name in ("start", "end", *_SCALED))
    textual = 0
    for line, row in lines:
        if not any(row.get(name) for name in ("text", *_MEDIA)):
            media = ", ".join(f"{names[name]!r}" for name in ("text", *_MEDIA) if name in names)
            detail = f"line {line}: no medium and no text (the cells of {media} are empty)"
            result.problems.append(folder.problem(None, path.name, "missing", detail))
            continue
        if failed := next((name for name, value in row.items() if value == cells.UNCALCULATED or value in cells.FAILED), None):
            why = "a formula that was never calculated" if row[failed] == cells.UNCALCULATED else row[failed]
            detail = f"line {line}: {names[failed]!r} holds {why}; open the table in a spreadsheet program, mend and save it"
            result.problems.append(folder.problem(None, path.name, "missing" if failed in _MEDIA else "row", detail))
            continue
        textual += not any(row.get(name) for name in _MEDIA)
        read = partial(_clip, line=line, options=options, comma=comma)
        try:
            clip: dict | None = read(row)
        except (LookupError, ValueError) as error:
            clip = turns.read_left(read, row, _UNLABELLED, _UNLABELLED | _UNPLACED)
            reason = "label" if isinstance(error, LookupError) else "row"
            detail = f"line {line}: {error.args[0]}{turns.STAYS if clip else ''}"
            result.problems.append(folder.problem(None, path.name, reason, detail))
        if clip:
            result.clips.append(clip | {"where": f"{path.name}, line {line}"})
    if textual and not names.keys().isdisjoint(_MEDIA):
        result.notes["lines without media, kept for their text"] = textual
    result.notes["columns read"] = {name: names[name] for name in sorted(names)}
    return result


def _clip(row: dict[str, str], line: int, options: Generic.Options, comma: bool) -> dict:
    if options.media:
        row = row | {name: options.media.replace("{}", row[name]) for name in _MEDIA if row.get(name)}
    clip: dict = {name: value or None for name, value in row.items() if name != "media"}
    if row.get("media"):
        clip["audio"] = row["media"]
        clip["video"] = None if row["media"].lower().endswith(folder.AUDIO) else row["media"]
    for name in ("start", "end"):
        clip[name] = cells.seconds(row.get(name, ""), comma=comma)
    for name in _SCALED:
        low, high = options.scales.get(name, (-1.0, 1.0))
        clip[name] = table.rescale(cells.number(row.get(name, ""), low, high, comma=comma), low, high)
    clip["turn"] = cells.whole(row.get("turn", ""), comma=comma)
    for name in ("channel", "half"):
        if clip.get(name) not in (None, "left", "right"):
            raise ValueError(f"{name} {clip[name]!r} is not left or right")
    _finish(clip, options)
    clip["id"] = f"{options.name}/{clip.get('id') or f'row{line}'}"
    return clip


def _finish(clip: dict, options: Generic.Options) -> None:
    clip["corpus"] = options.name
    clip["language"] = clip.get("language") or options.language
    if clip.get("split"):
        if clip["split"].lower() not in _SPLITS:
            raise LookupError(f"split {clip['split']!r} is not train, val or test")
        clip["split"] = _SPLITS[clip["split"].lower()]
    if clip.get("emotion"):
        clip |= table.name_emotions(clip["emotion"], options.emotions, options.separator, clip.get("labels"))


def _tree(root: Path, options: Generic.Options) -> Tables:
    found: dict[str, dict] = {}
    problems: list[dict] = []
    others: dict[str, list[str]] = defaultdict(list)
    pattern = re.compile(options.names) if options.names else None
    levels = options.levels
    if levels is None:
        levels = () if pattern and "emotion" in pattern.groupindex else ("emotion",)
    for path in folder.entries(root, problems):
        kind = next((kind for kind, suffixes in _KINDS if path.lower().endswith(suffixes)), None)
        if kind is None:
            others[PurePosixPath(path).suffix.lower()].append(path)
            continue
        parts = PurePosixPath(path).parts
        if len(parts) <= len(levels):
            problems.append(folder.problem(None, path, "name", f"lies above the {len(levels)} levels of folders"))
            continue
        key = str(PurePosixPath(path).with_suffix(""))
        told = pattern.fullmatch(key if "/" in pattern.pattern else PurePosixPath(key).name) if pattern else None
        if pattern and not told:
            problems.append(folder.problem(None, path, "name", "the name is not as corpus.options.names says"))
            continue
        clip = found.setdefault(key, {"id": f"{options.name}/{key}"})
        clip |= {name: part for name, part in zip(levels, parts, strict=False) if name != "_"}
        clip |= told.groupdict() if told else {}
        if kind in clip:
            taken, path = sorted((clip[kind], path), key=_worth)
            problems.append(folder.problem(clip["id"], path, "duplicate", f"another take of that name; {taken} is used"))
            clip[kind] = taken
        else:
            clip[kind] = path
    clips = []
    for clip in found.values():
        read = partial(_finish_leaf, options=options)
        try:
            whole: dict | None = read(clip)
        except (LookupError, ValueError) as error:
            whole = turns.read_left(read, clip, {"emotion": None})
            detail = f"{error.args[0]}{turns.STAYS if whole else ''}"
            problems.append(folder.problem(clip["id"], clip.get("video") or clip.get("audio"), "label", detail))
        if whole:
            clips.append(whole)
    if not found:
        raise CorpusError(f"{root} holds no media below {len(levels)} levels of folders ({'/'.join(levels)}).")
    counts = Counter(clip.get("emotion") or "" for clip in clips)
    return Tables(
        clips, problems=problems + folder.name_others(others), notes={"clips per emotion": dict(sorted(counts.items()))}
    )


def _finish_leaf(clip: dict, options: Generic.Options) -> dict:
    """A file of the tree with the columns its path tells, as a clip."""
    clip = clip | {"turn": cells.whole(clip.get("turn") or ""), "audio": clip.get("audio") or clip.get("video")}
    _finish(clip, options)
    return clip


def _worth(path: str) -> tuple[int, str]:
    """Order of takes of one name: what is not compressed first."""
    kind = PurePosixPath(path).suffix.lower()
    return (_LOSSLESS.index(kind) if kind in _LOSSLESS else len(_LOSSLESS)), path


class Generic(Adapter):
    """Adapter of tables and trees of one's own."""

    title = "Any table or tree of folders"
    licence = "your own"
    homepage = "docs/corpora/generic.md"
    layout = LAYOUT
    checked = "there is no publisher"

    class Options(TableOptions):
        #: Table below the root; null: read the tree of folders.
        table: str | None = None
        #: Sheet of a spreadsheet.
        sheet: str | None = None
        #: Manifest column → table column. `media` fills video and audio alike. Names that agree need no entry.
        columns: dict[str, str] = {}
        #: Path of a medium from its cell, e.g. films/{}.mp4 where the cells are bare names.
        media: Annotated[str, AfterValidator(check_media)] | None = None
        #: Scale of a dimension in the table, e.g. {valence: [1, 5]}; without entry it is [-1, 1].
        scales: dict[str, tuple[float, float]] = {}
        #: Label in the table → emotion; with entries, others are quarantined.
        emotions: dict[str, str] = {}
        #: Between the emotions of a clip that has several, e.g. ";". The first is its class where one is wanted.
        separator: Annotated[str, Field(min_length=1)] | None = None
        #: What the folders of a tree mean, outermost first, e.g. [split, emotion]; `_` for nothing. null: [emotion], or none
        #: where `names` tells the emotion.
        levels: tuple[str, ...] | None = None
        #: What the names of a tree's files mean: a regular expression with a group per column, for the whole name without
        #: its suffix (with a / in it: for the whole path), e.g. (?P<speaker>S\\d+)_(?P<emotion>[a-z]+)_\\d+
        names: Annotated[str, AfterValidator(check_names)] | None = None
        language: str | None = None
        #: Begins the ids of the clips.
        name: Name = "generic"

    options: Options

    def read(self) -> Tables:
        """Clips of the table or of the tree.

        Raises:
            CorpusError: no table, a named column is missing, or the tree holds no media.
            ParamsError: an option names a column the manifest has not.
        """
        options = self.options
        for what, names in (("columns", options.columns), ("levels", options.levels or ()), ("scales", options.scales)):
            allowed = {*_FILLED, "media", "_"} if what != "scales" else set(_SCALED)
            if wrong := [name for name in names if name not in allowed]:
                raise ParamsError(f"corpus.options.{what}: {wrong[0]!r} is not one of {', '.join(sorted(allowed))}.")
        root = self.root
        return _table(root, options.table, options) if options.table else _tree(root, options)
