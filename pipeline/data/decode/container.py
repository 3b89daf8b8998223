"""Opening media containers: only local files, only formats meant for media, one presentation clock."""

from __future__ import annotations

import heapq
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
from av.packet import Packet
from av.stream import Stream

from . import extent
from .errors import DecodeError
from .failures import FAILURES, blame, short

#: Containers that are opened. Left out on purpose: playlists (they fetch other files), text that
#: FFmpeg would draw as a picture (`tty`), raw streams that any bytes could be taken for.
FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,mxf,gif,wav,w64,aiff,caf,au,flac,mp3,aac,amr,wv,ape,tta"

#: Neither side of a frame may be longer.
MAX_SIDE = 16384

#: Share of packets that may fail before the clip counts as corrupt.
MAX_BAD = 0.1

av.logging.set_level(None)
logging.getLogger("libav").setLevel(logging.CRITICAL)


class Medium:
    """An open media file: its film, its sound, its packets on one clock.

    Attributes:
        path: of the file.
        container: as opened now; `seek` and `rewind` may open it anew, so streams are asked for after them.
        ends: stream's index → when the last of its shown packets read so far ends, in seconds from `origin`.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            DecodeError: unreadable, memory, access.
        """
        self.path = path
        self.ends: dict[int, float] = {}
        self.container = self._open()

    def _open(self) -> InputContainer:
        try:
            container = av.open(
                f"file:{self.path.absolute()}",
                metadata_errors="replace",
                options={"protocol_whitelist": "file", "format_whitelist": FORMATS, "enable_drefs": "0"},
            )
        except FAILURES as error:
            raise DecodeError(blame(error), short(error), self.path) from error
        for stream in container.streams.video:
            if stream.codec_context is not None:
                stream.codec_context.thread_count = 1  # processes are the parallelism
        return container

    @property
    def format(self) -> str:
        """FFmpeg's first name of the container."""
        return self.container.format.name.split(",")[0]

    @property
    def video(self) -> av.VideoStream | None:
        """The video stream that is the film: no cover picture, and of several the longest; the first among equals.

        Cameras put a thumbnail before the film. Where no length is declared, streams count as equally long.
        """
        return max((stream for stream in self.pictures if stream.codec_context is not None), key=_declared_seconds, default=None)

    @property
    def pictures(self) -> list[av.VideoStream]:
        """Video streams that are no cover picture, also those without a decoder."""
        return [s for s in self.container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]

    @property
    def audio(self) -> av.AudioStream | None:
        return next((s for s in self.container.streams.audio if s.codec_context is not None), None)

    @property
    def origin(self) -> float:
        """Presentation time, in seconds, that a player shows as 0.

        A transport stream starts anywhere, so its first stream's start is 0. Times before 0 are
        decoder priming, which is never shown.
        """
        start = self.container.start_time
        return max(0.0, start / av.time_base) if start is not None else 0.0

    @property
    def declared(self) -> float | None:
        """When the container says that its last track ends, in seconds from `origin`; None when it does not say."""
        container = self.container
        if not container.duration:
            return None
        return container.duration / av.time_base + min(0.0, (container.start_time or 0) / av.time_base)

    def packets(self) -> Iterator[Packet]:
        """Packets of all streams, from where the container stands; what they tell of lengths goes to `ends`.

        Raises:
            one of FAILURES: the demuxer lost its way: what is left of the file cannot be reached.
        """
        origin = self.origin
        for packet in self.container.demux():
            at = self.moment(packet)
            if packet.size and at is not None and not packet.is_discard:
                end = at - origin + (seconds(packet.duration, packet.time_base) or 0.0)
                self.ends[packet.stream.index] = max(end, self.ends.get(packet.stream.index, 0.0))
            yield packet

    def moment(self, packet: Packet) -> float | None:
        """When a packet is shown, in seconds of its stream's clock. AVI tells but when it is decoded: FFmpeg guesses the rest."""
        guessed = self.format == "avi" and packet.dts is not None
        return seconds(packet.dts if guessed or packet.pts is None else packet.pts, packet.time_base)

    def decoded(self, stream: Stream, sought: bool = False) -> Iterator[Any]:
        """Frames of a stream in presentation order, from where the container stands.

        A packet that cannot be decoded is skipped, as a player does. After a search, those before the first frame do not
        count: it may have led into the middle of one.

        Raises:
            DecodeError: corrupt, when more than `MAX_BAD` of the packets failed; memory, access.
        """
        packets = bad = 0
        last, reason = "", "corrupt"
        waiting: list[int] = []  # times of decoding: in their order, and without others, those of showing
        demuxer = self.packets()
        while True:
            try:
                packet = next(demuxer)
            except StopIteration:
                break
            except FAILURES as error:
                reason = blame(error, reason)
                bad, last = bad + 1, short(error)
                break
            if packet.stream.index != stream.index:
                continue
            packets += packet.size > 0
            try:
                frames = packet.decode()
            except FAILURES as error:
                reason = blame(error, reason)
                bad, last = bad + 1, short(error)
                continue
            if sought and frames:
                packets, bad, sought = 1, 0, False
            if stream.type == "video" and self.format == "avi" and packet.size and packet.dts is not None:
                heapq.heappush(waiting, packet.dts)
            for frame in frames:
                if waiting:
                    frame.pts = heapq.heappop(waiting)
                yield frame
        if bad and bad > MAX_BAD * packets:
            raise DecodeError(reason, f"{bad} of {packets} packets failed, last: {last}", self.path)

    def seek(self, moment: float, stream: Stream) -> None:
        """Go to the last key frame at or before `moment` (seconds of the stream's own clock), else to the start.

        Raises:
            DecodeError: unreadable, when not even the start can be reached.
        """
        if moment > 0 and stream.time_base:
            try:
                self.container.seek(int(moment / stream.time_base), stream=stream, backward=True)
                return
            except FAILURES:
                pass  # no index: decode from the start
        self.rewind()

    def rewind(self) -> None:
        """Go to the start. Some files cannot be sought back to it (FLV whose first key frame comes later): opened anew.

        Raises:
            DecodeError: unreadable, memory, access.
        """
        try:
            self.container.seek(0)
        except FAILURES:
            self.container.close()
            self.container = self._open()

    def check_whole(self) -> None:
        """Judge whether the file is all there, once its packets have been read to the end.

        A file cut short ends before the bytes it declares, or all its tracks end well before the length it declares: by
        more than half a second and a tenth of it. One track that ends before another is no damage.

        Raises:
            DecodeError: truncated.
        """
        known = extent.check(self.path)
        declared = self.declared if extent.declares_length(self.path, self.format, known) else None
        reached = max(self.ends.values(), default=0.0)
        if declared is not None and declared - reached > max(0.5, 0.1 * declared):
            raise DecodeError("truncated", f"its tracks end at {max(reached, 0.0):.2f} s of {declared:.2f} s", self.path)


@contextmanager
def opened(path: str | Path) -> Iterator[Medium]:
    """Open a media file for reading.

    Raises:
        DecodeError: missing, empty, unreadable, memory, access.
    """
    path = Path(path)
    check(path)
    medium = Medium(path)
    try:
        yield medium
    finally:
        medium.container.close()


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


def _declared_seconds(stream: av.VideoStream) -> float:
    return math.inf if not stream.duration or stream.time_base is None else float(stream.duration * stream.time_base)


def seconds(value: int | None, base: Fraction | None) -> float | None:
    return None if value is None or not base else float(value * base)
