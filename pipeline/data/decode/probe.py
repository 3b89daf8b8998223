"""What a media file is, without decoding all of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import av
import soundfile
from av.container import InputContainer
from av.stream import Stream

from . import container as media
from . import folder
from .errors import DecodeError
from .orientation import Orientation, read_orientation


@dataclass(frozen=True)
class Probe:
    """Facts about a medium; what it has not is None.

    Attributes:
        duration: seconds from the first presented moment to the last, as declared by the container.
        has_video, has_audio: whether such a stream is there (a cover picture is no video).
        start: presentation time the container calls 0, in seconds.
        fps: average frame rate.
        width, height: in pixels as displayed, after rotation and pixel shape.
        rotation: degrees counter-clockwise that a player turns the stored frames, of 0, 90, 180, 270.
        mirrored: it then mirrors them left to right.
        video_codec, audio_codec, format: short names.
        audio_rate: samples per second.
        channels: of the audio.
    """

    duration: float
    has_video: bool
    has_audio: bool
    start: float = 0.0
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    rotation: int = 0
    mirrored: bool = False
    video_codec: str | None = None
    audio_codec: str | None = None
    audio_rate: int | None = None
    channels: int | None = None
    format: str = ""


def probe(path: str | Path) -> Probe:
    """Look at a video file, an audio file or a folder of frame images.

    One video frame is decoded (it carries the rotation, and shows that the decoder accepts the stream).

    Raises:
        DecodeError: missing, empty, unreadable, too_large.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    media.check(path)
    if sound_only(path):
        try:
            return _sound(path)
        except soundfile.SoundFileError:
            pass  # FFmpeg reads some WAV codecs that libsndfile does not.
    with media.opened(path) as container:
        return _container(container, path)


def sound_only(path: Path) -> bool:
    """Whether the first bytes, not the name, say WAV or FLAC."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError as error:
        raise DecodeError(media.blame(error, "missing"), error.strerror or "cannot be opened", path) from error
    return head[:4] == b"fLaC" or (head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE")


def _sound(path: Path) -> Probe:
    info = soundfile.info(str(path))
    if info.frames <= 0:
        raise DecodeError("empty", "no samples", path)
    return Probe(
        duration=info.frames / info.samplerate,
        has_video=False,
        has_audio=True,
        audio_codec=info.subtype,
        audio_rate=info.samplerate,
        channels=info.channels,
        format=info.format.lower(),
    )


def _folder(path: Path) -> Probe:
    names = folder.images(path)
    rate = folder.rate(path)
    width, height = folder.picture(names[0]).size
    return Probe(
        duration=len(names) / rate,
        has_video=True,
        has_audio=False,
        fps=rate,
        width=width,
        height=height,
        video_codec=names[0].suffix.lower().lstrip("."),
        format="folder",
    )


def _container(container: av.container.InputContainer, path: Path) -> Probe:
    video, audio = media.video_stream(container), media.audio_stream(container)
    stream = audio if video is None else video
    if stream is None:
        raise DecodeError("unreadable", "neither video nor audio inside", path)
    ends = [media.declared_end(container, s) for s in (video, audio) if s is not None]
    duration = max((e for e in ends if e is not None), default=0.0)
    start = media.origin(container)
    found = Probe(duration, video is not None, audio is not None, start, format=container.format.name.split(",")[0])
    if audio is not None:
        sound = audio.codec_context
        found = replace(found, audio_codec=sound.name, audio_rate=sound.sample_rate or None, channels=sound.channels or None)
    if video is not None:
        rate = video.average_rate or video.guessed_rate
        found = replace(found, fps=float(rate) if rate else None, video_codec=video.codec_context.name)
        frame = next(media.decoded(container, video, path), None)
        if frame is None:
            raise DecodeError("empty" if audio is None else "unreadable", "the video stream yields no frame", path)
        width, height, (rotation, mirrored) = display(frame, video, path)
        found = replace(found, width=width, height=height, rotation=rotation, mirrored=mirrored)
    if not duration:
        found = replace(found, duration=_counted(container, stream, path, start))
    return found


def display(frame: av.VideoFrame, stream: av.VideoStream, path: str | Path) -> tuple[int, int, Orientation]:
    """(width, height, orientation) of a frame as a player shows it.

    Raises:
        DecodeError: too_large.
    """
    width, height = frame.width, frame.height
    if max(width, height) > media.MAX_SIDE:
        raise DecodeError("too_large", f"{width}x{height} pixels", path)
    shape = stream.sample_aspect_ratio
    if shape and 0.25 <= shape <= 4:
        width = max(1, round(width * shape))
    orientation = read_orientation(frame)
    return (height, width, orientation) if orientation.rotation in (90, 270) else (width, height, orientation)


def _counted(container: InputContainer, stream: Stream, path: Path, start: float) -> float:
    """Duration of a stream whose container does not tell: the end of its last packet."""
    end = 0.0
    try:
        for packet in container.demux(stream):
            moment = media.seconds(packet.pts, packet.time_base)
            if moment is not None and math.isfinite(moment):
                end = max(end, moment + (media.seconds(packet.duration, packet.time_base) or 0.0))
    except media.FAILURES:
        pass  # What could be counted is the duration.
    return max(0.0, end - start)
