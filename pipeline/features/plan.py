"""What the store of a stream is made of: its clips, the extractor, and that of each view."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError
from pipeline.params import Stream
from pipeline.storage import tables
from pipeline.storage.media_store import Media

from . import transcribe
from .encoders import registry
from .encoders.extractor import Extractor
from .encoders.imports import import_
from .engine.reader import Job, list_jobs

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """The plain rows of a stream, or one view of them.

    Attributes:
        view: None of the clips as they are.
        identity: of the cache and the store: the extractor's, and that of the decoded media it reads.
    """

    view: str | None
    extractor: Extractor
    identity: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What the store of a stream is made of.

    Attributes:
        parts: the plain rows, then the views.
        source: media store the encoder reads; None for text and for imported features.
        jobs: every clip of the manifest, in the order of the store.
    """

    name: str
    stream: Stream
    parts: list[Part]
    source: Path | None
    jobs: list[Job]

    def title(self, part: Part) -> str:
        """What people are told that a part is."""
        return f"{self.name}, view {part.view}" if part.view else self.name


def plan_stream(name: str, stream: Stream, manifest: str | Path) -> Plan:
    """Which clips a stream encodes, with what.

    Raises:
        ParamsError, WeightsError: see `registry.build`.
        StoreError: an imported file that knows none of the clips.
    """
    extractor = registry.build(stream)
    table = tables.read(manifest).sort("id")
    if stream.modality == "text" and stream.source == transcribe.TABLE:
        table = transcribe.fill_texts(table, stream.source)
    if stream.encoder == "import":
        _report_coverage(name, extractor, table["id"].to_list())
    source, read = None, dict[str, Any]()
    if stream.modality != "text" and stream.encoder != "import":
        source = Path(stream.source)
        read["decode"] = Media(source).identity
    extractors = {None: extractor} | {view: registry.build(stream, view) for view in stream.views}
    parts = [Part(view, one, one.identity | read) for view, one in extractors.items()]
    return Plan(name, stream, parts, source, list_jobs(table, stream, turns=extractor.turns))


def _report_coverage(name: str, extractor: Extractor, ids: list[str]) -> None:
    """Say how many clips the imported file knows.

    Raises:
        StoreError: none, which is a wrong column or pattern rather than missing data.
    """
    found = import_.measure_coverage(extractor, ids)
    if not found["covered"]:
        raise StoreError(
            f"stream {name}: the imported file knows none of the {len(ids)} clips (clips like {ids[0]!r}, "
            f"file like {next(iter(found['unused names']), '–')!r}); mend options.file_id and options.clip_id."
        )
    log.info(
        "%s: the imported file covers %d of %d clips; %d of its own are not in the manifest",
        name,
        found["covered"],
        found["clips"],
        found["unused"],
    )
