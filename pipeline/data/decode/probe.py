"""What is in a medium, from its headers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av

from .problem import DecodeError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
#: What PyAV raises on damaged media: its own errors, and Python's from bad headers and names.
DECODER_ERRORS = (av.error.FFmpegError, OSError, ValueError, IndexError, RuntimeError, MemoryError, OverflowError)


@dataclass(frozen=True)
class Probe:
    """Facts of a medium; numbers that the headers do not tell are None.

    Attributes:
        duration: seconds, of the longest track; NaN when unknown.
        rotation: degrees counter-clockwise a player turns the picture.
    """

    duration: float
    has_video: bool
    has_audio: bool
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    rotation: int = 0
    audio_rate: int | None = None
    channels: int | None = None


def probe(path: str | Path) -> Probe:
    """Read the headers of a media file, or count the images of a folder of frames.

    Raises:
        DecodeError: missing, empty or unreadable.
    """
    path = Path(path)
    if path.is_dir():
        if not images(path):
            raise DecodeError("empty", f"{path.name} holds no frame images")
        return Probe(math.nan, True, False)
    with opened(path) as container:
        video, sound = picture(container), container.streams.audio[0] if container.streams.audio else None
        if video is None and sound is None:
            raise DecodeError("unreadable", f"{path.name} has neither a video nor an audio track")
        lengths = [float(s.duration * s.time_base) for s in (video, sound) if s is not None and s.duration]
        if container.duration:
            lengths.append(container.duration / av.time_base)
        return Probe(
            duration=max(lengths, default=math.nan),
            has_video=video is not None,
            has_audio=sound is not None,
            fps=float(video.average_rate) if video is not None and video.average_rate else None,
            width=video.width if video is not None else None,
            height=video.height if video is not None else None,
            rotation=turn(video) if video is not None else 0,
            audio_rate=sound.rate if sound is not None else None,
            channels=sound.channels if sound is not None else None,
        )


@contextmanager
def opened(path: Path) -> Iterator[av.container.InputContainer]:
    """Open a medium; whatever the decoder raises inside becomes a DecodeError."""
    if not path.exists():
        raise DecodeError("missing", f"{path} is not there")
    if path.stat().st_size == 0:
        raise DecodeError("empty", f"{path.name} has no bytes")
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            yield container
    except DecodeError:
        raise
    except DECODER_ERRORS as error:
        raise DecodeError("unreadable", f"{path.name}: {error}") from error


def picture(container: av.container.InputContainer) -> av.video.stream.VideoStream | None:
    """The first moving picture; cover art of a sound file is none."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


def turn(stream: av.video.stream.VideoStream) -> int:
    """Rotation in the first frame's display matrix, degrees counter-clockwise, a multiple of 90."""
    container = stream.container
    rotation = 0
    for frame in container.decode(stream):
        rotation = int(round(frame.rotation / 90) * 90)
        break
    container.seek(0)
    return rotation % 360


def images(folder: Path) -> list[Path]:
    """Frame images of a folder, in the order of their names' numbers."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGES]
    return sorted(found, key=lambda path: (int(path.stem) if path.stem.isdigit() else -1, path.name))
