"""What one look at a medium tells: length, tracks, level."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, field

from pipeline.reasons import OF_BYTES

from .decode.folder import is_image


@dataclass(frozen=True)
class Fact:
    """What examining a medium found.

    Attributes:
        duration: seconds until its last track ends, as found by reading it; NaN when unknown.
        video, audio: whether it has a picture, sound.
        level: root mean square level of the loudest second of the sound in dBFS, or None when there is no sound.
        reason, detail: why it cannot be used, or "".
        lost: `video`, `audio` → reason and detail of a track that is there and cannot be used.
    """

    duration: float = math.nan
    video: bool = False
    audio: bool = False
    level: float | None = None
    reason: str = ""
    detail: str = ""
    lost: dict[str, tuple[str, str]] = field(default_factory=dict)

    def dump(self) -> str:
        """As text, for the memo."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Fact:
        """Inverse of `dump`."""
        found = json.loads(text)
        return cls(**found | {"lost": {track: (reason, detail) for track, (reason, detail) in found["lost"].items()}})


def examine_folder(path: str) -> Fact:
    """A folder of frame images: a picture whose length the annotation knows."""
    with os.scandir(path) as found:
        some = any(is_image(entry.name) for entry in found)
    return Fact(video=True) if some else Fact(reason="empty", detail="the folder holds no frame images")


def examine_file(path: str) -> Fact:
    """Probe one file and measure its sound. A track that cannot be decoded is lost by itself.

    Raises:
        DecodeError: no decoder can read it.
    """
    from .decode.audio import measure
    from .decode.errors import DecodeError
    from .decode.probe import probe

    found = probe(path)
    seen, heard, level, lost = found.video_end, found.audio_end, None, dict(found.lost)
    if found.has_audio:
        try:
            end, level = measure(path)
        except DecodeError as error:
            # A film keeps its picture when its sound is broken.
            if not found.has_video or error.reason not in OF_BYTES:
                raise
            lost["audio"], heard = (error.reason, error.detail), None
        else:
            level = max(level, -200.0)
            # The last packet tells how much of its samples is meant to be heard; otherwise what was decoded is the length.
            heard = heard if heard and 0 <= end - heard < 0.1 else end
    ends = [end for end in (seen, heard) if end is not None]
    return Fact(
        duration=max(ends, default=found.duration),
        video=found.has_video,
        audio=found.has_audio and "audio" not in lost,
        level=level,
        lost=lost,
    )
