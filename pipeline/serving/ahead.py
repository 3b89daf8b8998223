"""Many files one after the other: each is decoded while those before it go through the encoders."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pipeline.data.decode.errors import DecodeError
from pipeline.features.encoders.extractor import Missing
from pipeline.params import Params
from pipeline.workers.outcome import Outcome

from .looks import Looks
from .source import Source


@dataclass(frozen=True)
class Look:
    """All looks at a file that streams of these modalities need, in the process that calls it.

    Args:
        pieces: look at a film longer than a clip no further than at its length: it is read piece by piece.
    """

    modalities: tuple[str, ...]
    pieces: bool = False

    def __call__(self, source: Source) -> dict[str, Outcome[str, Any]]:
        if source.known is not None:  # and all that was made of it
            return {}
        with suppress(DecodeError):
            for modality in () if self.pieces and source.is_long else self.modalities:
                with suppress(Missing, DecodeError):
                    source.look(modality)
        return source.decoded


def look_ahead(sources: Iterable[Source], look: Look, params: Params, looks: Looks) -> Iterator[Source]:
    """Files in their order, looked at in `run.workers` processes, a few ahead.

    What crashed a process, or took too long in it, is looked at again when it is asked for, track by track.
    """
    waiting = deque[Source]()

    def tasks() -> Iterator[tuple[str, Source]]:
        for source in sources:
            waiting.append(source)
            yield str(source.path), source.bare

    for outcome in looks.many(params, look, tasks()):
        source = waiting.popleft()
        yield replace(source, decoded=dict(outcome.value)) if outcome.ok else source
