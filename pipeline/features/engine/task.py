"""What an engine is given to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.features.encoders.extractor import Extractor
from pipeline.params import Stream
from pipeline.storage.clip_cache import ClipCache

from .forward import Forward
from .reader import Job, Reader


@dataclass
class Held:
    """The network of a stream, from its first clip to its last view."""

    forward: Forward | None = None


@dataclass(frozen=True)
class Other:
    """Another stream whose rows come from the same pass: of the same clips, into its own cache."""

    stream: Stream
    extractor: Extractor
    cache: ClipCache


@dataclass(frozen=True)
class Task:
    """Clips to be encoded, and the cache they end up in.

    Attributes:
        stream, view: of `extractor`; what other processes build it from.
        jobs: the clips that are missing.
        others: streams that lack the same clips and share their pass.
        held: the network, when there was one before on the only device.
    """

    stream: Stream
    extractor: Extractor
    reader: Reader
    jobs: Sequence[Job]
    cache: ClipCache
    view: str | None = None
    others: Sequence[Other] = ()
    held: Held = field(default_factory=Held)
