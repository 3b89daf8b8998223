"""Which adapter reads a folder or a table, and with which options."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.data import corpora
from pipeline.data.corpora import folder
from pipeline.errors import CorpusError, UserError
from pipeline.params import Corpus

from .sheet import TABLES, Sheet, read_sheet
from .tree import read_tree

#: Adapters that would take what is nobody's layout, or make their own.
GENERAL = ("generic", "joined", "merr")
#: Share of the media that a known layout must account for.
KNOWN = 0.8


@dataclass
class Recognised:
    """How a corpus is read.

    Attributes:
        told: what was seen, in sentences. odd: what could not be used.
    """

    corpus: Corpus
    told: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)


def recognise(path: Path, name: str) -> Recognised:
    """What a folder of media, or a table beside media, is.

    A layout that the project knows goes before a table of one's own, and that before a tree of folders.

    Args:
        name: what the corpus will be called.

    Raises:
        CorpusError: it is not there, holds no media and no text, or a table that names none that are there.
    """
    if not path.exists():
        raise CorpusError(f"{path} is not there.")
    given = None
    if not path.is_dir():
        if path.suffix.lower() not in TABLES:
            raise CorpusError(f"{path} is no folder and no table ({', '.join(TABLES)}); give the folder that holds it.")
        path, given = path.parent, path.name
    problems: list[dict] = []
    entries = list(folder.entries(path, problems))
    media = [one for one in entries if one.lower().endswith(folder.AUDIO + folder.VIDEO)]
    if given:
        return _by_table(path, name, given, read_sheet(path, given, media))
    if known := _by_known(path, media):
        return known
    sheets, refused = _read_sheets(path, media)
    if sheets:
        best = max(sheets, key=lambda one: (sheets[one].found, "emotion" in _columns(sheets[one]), one))
        return _by_table(path, name, best, sheets[best], [one for one in sheets if one != best])
    if not media:
        other = f" {refused[0]}" if refused else ""
        raise CorpusError(f"{path} holds no film or sound ({len(entries)} other files).{other}")
    options, odd = read_tree(media)
    levels = "/".join(options["levels"]) if options["levels"] else "none"
    told = [f"a tree of folders (their meaning: {levels})", *([f"file names: {options['names']}"] if "names" in options else [])]
    refused = [f"not read: {one}" for one in refused]
    return Recognised(Corpus(name="generic", root=str(path), options=options | {"name": name}), told, odd + refused)


def _columns(sheet: Sheet) -> set[str]:
    return {*sheet.options["columns"]}


def _by_table(root: Path, name: str, table: str, sheet: Sheet, others: list[str] | None = None) -> Recognised:
    columns = ", ".join(f"{key} from {column!r}" for key, column in sheet.options["columns"].items())
    told = [f"the table {table} of {sheet.lines} lines ({sheet.found} name media that are there)"]
    told += [f"columns: {columns}"] if columns else []
    odd = sheet.odd + [f"the table {other} is not read; `start {root / other}` takes it" for other in others or ()]
    return Recognised(Corpus(name="generic", root=str(root), options=sheet.options | {"name": name}), told, odd)


def _read_sheets(root: Path, media: list[str]) -> tuple[dict[str, Sheet], list[str]]:
    """The tables in a folder that can be read, and why others cannot."""
    sheets, refused = {}, []
    for table in sorted(entry.name for entry in os.scandir(root) if entry.is_file() and not entry.name.startswith(".")):
        if Path(table).suffix.lower() in TABLES:
            try:
                sheets[table] = read_sheet(root, table, media)
            except CorpusError as error:
                refused.append(str(error))
    return sheets, refused


def _by_known(root: Path, media: list[str]) -> Recognised | None:
    """The corpus whose published layout this is."""
    found: dict[str, float] = {}
    for name in corpora.names():
        adapter = corpora.find_adapter(name)
        if adapter.generated or name in GENERAL:
            continue
        try:
            clips = corpora.open_corpus(Corpus(name=name, root=str(root))).read().clips
        except UserError:
            continue
        used: set[Any] = {clip.get(kind) for clip in clips for kind in ("video", "audio")}
        share = len(used & set(media)) / len(media) if media else float(bool(clips))
        if clips and share >= KNOWN:
            found[name] = share
    if not found:
        return None
    called = next((name for name in found if name.replace("_", "") in root.resolve().name.lower().replace("_", "")), None)
    name = called or max(found, key=lambda one: found[one])
    told = [f"the layout of {corpora.find_adapter(name).title}; conf/recipe/{name}.yaml is made for it"]
    odd = [f"{', '.join(one for one in found if one != name)} would fit as well"] if len(found) > 1 else []
    return Recognised(Corpus(name=name, root=str(root)), told, odd)
