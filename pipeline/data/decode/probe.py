"""What a media file is: its packets are read, one picture is decoded."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import av
import soundfile
from av.stream import Stream

from pipeline.reasons import OF_BYTES

from . import container as media
from . import extent, folder
from .errors import DecodeError
from .failures import FAILURES, blame
from .orientation import Orientation, read_orientation
from .streamed import W64, open_sound


@dataclass(frozen=True)
class Probe:
    """Facts about a medium; what it has not is None.

    Attributes:
        duration: seconds from the moment the container calls 0 to the last presented one, as its packets tell.
        has_video, has_audio: whether such a stream is there (a cover picture is no video) and, for video, yields a picture.
        start: presentation time the container calls 0, in seconds.
        fps: average frame rate.
        width, height: in pixels as displayed, after rotation and pixel shape.
        rotation: degrees counter-clockwise that a player turns the stored frames, of 0, 90, 180, 270.
        mirrored: it then mirrors them left to right.
        video_codec, audio_codec, format: short names.
        audio_rate: samples per second.
        channels: of the audio.
        video_end, audio_end: when each track ends, in seconds.
        lost: `video`, `audio` → reason and detail of a stream that is there and of no use.
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
    video_end: float | None = None
    audio_end: float | None = None
    lost: dict[str, tuple[str, str]] = field(default_factory=dict)


def probe(path: str | Path) -> Probe:
    """Look at a video file, an audio file or a folder of frame images.

    One video frame is decoded (it carries the rotation, and shows that the decoder accepts the stream), and all packets
    are read: what a container declares of its length, or of a track's, is often wrong.

    Raises:
        DecodeError: missing, empty, unreadable, too_large, truncated.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    media.check(path)
    if is_plain(path):
        return _sound(path)
    with media.opened(path) as medium:
        return _container(medium)


def sound_only(path: Path) -> bool:
    """Whether the first bytes, not the name, say WAV, its longer kinds, or FLAC."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError as error:
        raise DecodeError(blame(error, "missing"), error.strerror or "cannot be opened", path) from error
    return head[:4] == b"fLaC" or head == W64[:12] or (head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE")


def is_plain(path: Path) -> bool:
    """Whether libsndfile reads it all: WAV or FLAC of one or two channels, whose header tells the number of samples."""
    if not sound_only(path):
        return False
    try:
        with open_sound(path) as sound:
            return sound.channels <= 2 and sound.frames < 2**48
    except soundfile.SoundFileError:
        return False  # FFmpeg reads some WAV codecs that libsndfile does not, or names the damage.


def _sound(path: Path) -> Probe:
    with open_sound(path) as info:
        length, rate = info.frames, info.samplerate
    if length <= 0:
        raise DecodeError("empty", "no samples", path)
    extent.check(path)
    return Probe(
        duration=length / rate,
        audio_end=length / rate,
        has_video=False,
        has_audio=True,
        audio_codec=info.subtype,
        audio_rate=rate,
        channels=info.channels,
        format=info.format.lower(),
    )


def _folder(path: Path) -> Probe:
    names = folder.images(path)
    rate = folder.rate(path)
    width, height = folder.picture(names[0]).size
    return Probe(
        duration=len(names) / rate,
        video_end=len(names) / rate,
        has_video=True,
        has_audio=False,
        fps=rate,
        width=width,
        height=height,
        video_codec=names[0].suffix.lower().lstrip("."),
        format="folder",
    )


def _container(medium: media.Medium) -> Probe:
    video, audio, path = medium.video, medium.audio, medium.path
    tracks = {"video": (medium.pictures, video), "audio": (medium.container.streams.audio, audio)}
    lost = {
        name: ("unreadable", f"no decoder knows the codec of the {name} stream")
        for name, (streams, usable) in tracks.items()
        if streams and usable is None
    }
    if video is None and audio is None:
        raise DecodeError("unreadable", next((d for _, d in lost.values()), "neither video nor audio inside"), path)
    found = Probe(0.0, False, audio is not None, medium.origin, format=medium.format, lost=lost)
    if audio is not None:
        sound = audio.codec_context
        found = replace(found, audio_codec=sound.name, audio_rate=sound.sample_rate or None, channels=sound.channels or None)
    if video is not None:
        try:
            found = _look(medium, video, found)
        except DecodeError as error:
            if audio is None or error.reason not in OF_BYTES:
                raise
            lost["video"] = error.reason, error.detail
        medium.rewind()
    try:
        for _ in medium.packets():
            pass
    except FAILURES:
        pass  # What could be read has its length.
    medium.check_whole()
    used: dict[str, Stream | None] = {"video": medium.video if found.has_video else None, "audio": medium.audio}
    ends = {name: medium.ends[s.index] for name, s in used.items() if s is not None and s.index in medium.ends}
    duration = max(ends.values(), default=medium.declared or 0.0)
    return replace(found, duration=duration, video_end=ends.get("video"), audio_end=ends.get("audio"))


def _look(medium: media.Medium, video: av.VideoStream, found: Probe) -> Probe:
    """What the first picture tells."""
    rate = video.average_rate or video.guessed_rate
    frame = next(medium.decoded(video), None)
    if frame is None:
        raise DecodeError("empty", "the video stream yields no frame", medium.path)
    width, height, (rotation, mirrored) = display(frame, video, medium.path)
    return replace(
        found,
        has_video=True,
        fps=float(rate) if rate else None,
        video_codec=video.codec_context.name,
        width=width,
        height=height,
        rotation=rotation,
        mirrored=mirrored,
    )


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
