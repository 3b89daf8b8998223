"""Films of any length: read piece by piece, so that no more of one is in memory than a clip has frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from pipeline.params import Stream
from pipeline.runs.inputs import Features
from pipeline.storage.feature_store import Status

from .prediction import StreamUse
from .source import Source

#: What reads streams of a source, by name: features of those that are there, and the use of every one.
Read = Callable[[Source, Sequence[str]], tuple[dict[str, Features], dict[str, StreamUse]]]


def read_film(
    source: Source, encoders: Mapping[str, Stream], read: Read
) -> tuple[dict[str, Features], dict[str, StreamUse], str | None]:
    """Features of a film, the use of every stream, and what was heard in it; words that were given are of the whole."""
    given = bool(source.spoken.text and source.spoken.text.strip())
    whole = [name for name, one in encoders.items() if one.encoder == "import" or (one.modality == "text" and given)]
    reel = Reel.read(source, lambda piece: read(piece, [name for name in encoders if name not in whole]))
    features, use = read(source, whole)
    return reel.features | features, reel.use | use, " ".join(reel.heard) or None


def divide(source: Source) -> Iterator[Source]:
    """The film in pieces of `decode.video.max_frames` frames, one after the other; together they are sampled at its full rate."""
    video = source.params.decode.video
    frames = max(1, int(source.duration * video.fps + 0.5))
    pieces, low = -(-frames // video.max_frames), source.start or 0.0
    length = video.max_frames / video.fps
    for place in range(pieces):
        end = low + (place + 1) * length if place + 1 < pieces else source.end
        yield replace(source, start=low + place * length, end=end, known=source.facts, decoded={})


@dataclass
class Reel:
    """What was read of a film, piece by piece.

    Attributes:
        heard: the words recognised in each piece.
    """

    rows: dict[str, list[Features]] = field(default_factory=dict)
    use: dict[str, StreamUse] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, source: Source, read: Callable[[Source], tuple[dict[str, Features], dict[str, StreamUse]]]) -> Reel:
        """Read every piece; where a stream lacks one, it has no rows there."""
        reel, begin = cls(), source.start or 0.0
        for piece in divide(source):
            features, use = read(piece)
            shift = (piece.start or 0.0) - begin
            for name, (values, times) in features.items():
                reel.rows.setdefault(name, []).append((values, (times + shift).astype(np.float32)))
            for name, one in use.items():
                before = reel.use.get(name)
                if before is None or (before.status != Status.OK and one.status == Status.OK):
                    reel.use[name] = one
                elif before.status == one.status == Status.OK:
                    reel.use[name] = replace(one, rows=before.rows + one.rows)
            reel.heard += [piece.heard] if piece.heard else []
        return reel

    @property
    def features(self) -> dict[str, Features]:
        """Rows and seconds of each stream, over the whole film."""
        return {
            name: (np.concatenate([v for v, _ in parts]), np.concatenate([t for _, t in parts]))
            for name, parts in self.rows.items()
        }
