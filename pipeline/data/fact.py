"""What one look at a medium tells: length, tracks, level."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass

from pipeline.reasons import OF_BYTES

from .decode.folder import SUFFIXES


@dataclass(frozen=True)
class Fact:
    """What examining a medium found.

    Attributes:
        duration: seconds of the medium; NaN when unknown.
        video, audio: whether it has a picture, sound.
        level: root mean square level of the sound in dBFS over the whole file, or None when there is no sound.
        reason, detail: why it cannot be used, or "".
    """

    duration: float = math.nan
    video: bool = False
    audio: bool = False
    level: float | None = None
    reason: str = ""
    detail: str = ""

    def dump(self) -> str:
        """As text, for the memo."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Fact:
        """Inverse of `dump`."""
        return cls(**json.loads(text))


def examine_folder(path: str) -> Fact:
    """A folder of frame images: a picture whose length the annotation knows."""
    with os.scandir(path) as found:
        some = any(entry.name.lower().endswith(tuple(SUFFIXES)) for entry in found)
    return Fact(video=True) if some else Fact(reason="empty", detail="the folder holds no frame images")


def examine_file(path: str) -> Fact:
    """Probe one file and measure its sound.

    Raises:
        DecodeError: no decoder can read it.
    """
    from .decode.audio import level, read_waveform
    from .decode.errors import DecodeError
    from .decode.probe import probe

    found = probe(path)
    loudness = None
    if found.has_audio:
        try:
            # The source's own rate: nothing is resampled to measure a level.
            loudness = max(level(read_waveform(path, found.audio_rate or 16000)), -200.0)
        except DecodeError as error:
            # A film keeps its picture when its sound is broken.
            if not found.has_video or error.reason not in OF_BYTES:
                raise
            return Fact(
                duration=float(found.duration),
                video=True,
                audio=False,
                detail=f"the sound cannot be decoded ({' '.join(str(error).split())})",
            )
    return Fact(duration=float(found.duration), video=found.has_video, audio=found.has_audio, level=loudness)
