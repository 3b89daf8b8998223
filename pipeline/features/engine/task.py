"""What an engine is given to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.features.encoders.extractor import Extractor
from pipeline.params import Stream
from pipeline.storage.clip_cache import ClipCache

from .reader import Job, Reader


@dataclass(frozen=True)
class Task:
    """Clips to be encoded, and the cache they end up in.

    Attributes:
        stream, view: of `extractor`; what other processes build it from.
        jobs: the clips that are missing.
    """

    stream: Stream
    extractor: Extractor
    reader: Reader
    jobs: Sequence[Job]
    cache: ClipCache
    view: str | None = None
