"""Opening media containers: only local files, only formats meant for media, one presentation clock."""

from __future__ import annotations

import errno
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
from av.container import InputContainer
from av.stream import Stream

from .errors import DecodeError

#: Containers that are opened. Left out on purpose: playlists (they fetch other files), text that
#: FFmpeg would draw as a picture (`tty`), raw streams that any bytes could be taken for.
FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,mxf,gif,wav,w64,aiff,caf,au,flac,mp3,aac,amr,wv,ape,tta"

#: Neither side of a frame may be longer.
MAX_SIDE = 16384

#: Share of packets that may fail before the clip counts as corrupt.
MAX_BAD = 0.1

#: What a decoder raises on bytes it cannot use. PyAV's errors are OSError or ValueError by kind.
FAILURES = (av.FFmpegError, OSError, ValueError, EOFError)

#: Errors that tell of the machine. Not EIO: demuxers say it of a file that ends too early.
MACHINE = (errno.EACCES, errno.EPERM, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT)

av.logging.set_level(None)
logging.getLogger("libav").setLevel(logging.CRITICAL)


@contextmanager
def opened(path: str | Path) -> Iterator[av.container.InputContainer]:
    """Open a media file for reading.

    Raises:
        DecodeError: missing, empty, unreadable, memory, access.
    """
    path = Path(path)
    check(path)
    try:
        container = av.open(
            f"file:{path.absolute()}",
            metadata_errors="replace",
            options={"protocol_whitelist": "file", "format_whitelist": FORMATS, "enable_drefs": "0"},
        )
    except FAILURES as error:
        raise DecodeError(blame(error), _short(error), path) from error
    with container:
        yield container


def check(path: Path) -> None:
    """Raise DecodeError (missing, empty) unless `path` is a file that holds bytes."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DecodeError(blame(error, "missing"), error.strerror or "cannot be looked up", path) from error
    if not path.is_file():
        raise DecodeError("unreadable", "neither a file nor a folder of frames", path)
    if size == 0:
        raise DecodeError("empty", "0 bytes", path)


def blame(error: BaseException, otherwise: str = "unreadable") -> str:
    """The reason of a failure: `memory` or `access` where the machine is to blame, else `otherwise`."""
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return "memory"
    return "access" if number in MACHINE else otherwise


def _short(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The video stream that is the film: no cover picture, and of several the longest; the first among equals.

    Cameras put a thumbnail before the film. Where no length is declared, streams count as equally long.
    """
    found = [
        stream
        for stream in container.streams.video
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None
    ]
    return max(found, key=_declared_seconds, default=None)


def _declared_seconds(stream: av.VideoStream) -> float:
    return math.inf if not stream.duration or stream.time_base is None else float(stream.duration * stream.time_base)


def audio_stream(container: av.container.InputContainer) -> av.AudioStream | None:
    return next((s for s in container.streams.audio if s.codec_context is not None), None)


def origin(container: av.container.InputContainer) -> float:
    """Presentation time, in seconds, that a player shows as 0.

    A transport stream starts anywhere, so its first stream's start is 0. Times before 0 are
    decoder priming, which is never shown.
    """
    start = container.start_time
    return max(0.0, start / av.time_base) if start is not None else 0.0


def declared_end(container: av.container.InputContainer, stream: av.stream.Stream) -> float | None:
    """When the container says the stream ends, in seconds from `origin`; None when it does not say."""
    base = stream.time_base
    if stream.duration and base:
        return float((stream.duration + (stream.start_time or 0)) * base) - origin(container)
    if container.duration:
        return container.duration / av.time_base + min(0.0, (container.start_time or 0) / av.time_base)
    return None


def check_whole(container: InputContainer, stream: Stream, end: float, path: str | Path) -> None:
    """Raise DecodeError (truncated) when `end`, the last moment decoded, falls well short of what is declared.

    Well short: by more than half a second and a tenth of the length.
    """
    declared = declared_end(container, stream)
    if declared is not None and declared - end > max(0.5, 0.1 * declared):
        raise DecodeError("truncated", f"{stream.type} ends at {max(end, 0.0):.2f} s of {declared:.2f} s", path)


def decoded(container: InputContainer, stream: Stream, path: str | Path) -> Iterator[Any]:
    """Frames of a stream in presentation order, from where the container stands.

    A packet that cannot be decoded is skipped, as a player does.

    Raises:
        DecodeError: corrupt, when more than `MAX_BAD` of the packets failed; memory, access.
    """
    packets = bad = 0
    last, reason = "", "corrupt"
    demuxer = container.demux(stream)
    while True:
        try:
            packet = next(demuxer)
        except StopIteration:
            break
        except FAILURES as error:
            reason = blame(error, reason)
            # The demuxer lost its way: what is left of the file cannot be reached.
            bad, last = bad + 1, _short(error)
            break
        packets += packet.size > 0
        try:
            frames = packet.decode()
        except FAILURES as error:
            reason = blame(error, reason)
            bad, last = bad + 1, _short(error)
            continue
        yield from frames
    if bad and bad > MAX_BAD * packets:
        raise DecodeError(reason, f"{bad} of {packets} packets failed, last: {last}", path)


def seek(container: InputContainer, stream: Stream, moment: float, path: str | Path) -> None:
    """Go to the last key frame at or before `moment` (seconds of the stream's own clock), else to the start.

    Raises:
        DecodeError: unreadable, when not even the start can be reached.
    """
    if moment > 0 and stream.time_base:
        try:
            container.seek(int(moment / stream.time_base), stream=stream, backward=True)
            return
        except FAILURES:
            pass  # no index: decode from the start
    try:
        container.seek(0)
    except FAILURES as error:
        raise DecodeError("unreadable", f"the index leads nowhere: {_short(error)}", path) from error


def seconds(value: int | None, base: Fraction | None) -> float | None:
    return None if value is None or not base else float(value * base)
