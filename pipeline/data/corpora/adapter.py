"""What a corpus adapter is: a page of facts and two functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import params


@dataclass
class Tables:
    """What an adapter reads from a corpus folder.

    Attributes:
        clips: one dict per clip with columns of `manifest.SCHEMA` (all but `content`, `duration`), and what the
            check needs beside them: `expected` (seconds annotated), `where` (table and line), `landmarks`
            (digest of face points the corpus gives).
        annotations: rows of `manifest.ANNOTATIONS`, frame-level truth; empty when there is none.
        problems: rows of `manifest.QUARANTINE`: lines and files that did not become clips.
        notes: facts for the data card, e.g. the counts found or an official split that leaks.
    """

    clips: list[dict]
    annotations: list[dict] = field(default_factory=list)
    problems: list[dict] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Adapter:
    """One corpus.

    Attributes:
        name: as in `corpus.name`.
        title, licence, homepage, layout: for the documentation table and for people who lack the data.
        classes: emotion names in the corpus' own order.
        read: (corpus parameters) → Tables. Raises CorpusError with file and row.
        prepare: (corpus parameters, output folder) → None; generates or checks the corpus. None: check only.
        checked: which of the publisher's own files the reader was tried on; "" when replicas alone prove it.
    """

    name: str
    title: str
    licence: str
    homepage: str
    layout: str
    classes: tuple[str, ...]
    read: Callable[[params.Corpus], Tables]
    prepare: Callable[[params.Corpus, Path], None] | None = None
    checked: str = ""
