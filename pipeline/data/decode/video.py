"""Frames sampled on the clip's own presentation time.

The clip is divided into segments of 1 / fps seconds, and each segment is represented by the frame
that a player shows at its middle. That is right whatever the frame rate does, and a clip stored at
variable rate gives the same frames as the same clip at constant rate.

decord reads plain constant-rate files, PyAV all others. decord 0.6 maps time to frames by the average
rate (wrong under variable rate), ignores rotation, pixel shape and edit lists, and some of its seeks
miss; so it is used only where none of this matters, its own time table is checked against the
packets', and the frames it gives are tested to be PyAV's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
from PIL import Image

from pipeline.params import DecodeVideo
from pipeline.reasons import OF_BYTES
from pipeline.storage import jpeg

from . import container as media
from . import folder, plain
from .errors import DecodeError
from .failures import FAILURES
from .picture import shrink, take_half
from .probe import display
from .timeline import Packets, packets, segments

#: Seconds by which a frame may be late and still count as shown at a moment (time bases of 1 ms).
SLACK = 1e-3


@dataclass(frozen=True)
class Frames:
    """Sampled frames of one clip.

    Attributes:
        jpegs: T JPEG files, in time order.
        times: (T, 2) float32, start and end of the segment each stands for, seconds from clip start.
        lost: why pictures of a folder are not among them, a line each.
    """

    jpegs: list[bytes]
    times: np.ndarray
    lost: tuple[str, ...] = ()


def read_frames(
    path: str | Path,
    spec: DecodeVideo,
    start: float | None = None,
    end: float | None = None,
    half: str | None = None,
    *,
    reader: str | None = None,
) -> Frames:
    """Sample the video of a clip.

    Args:
        path: a media file or a folder of frame images.
        spec: frames per second, shorter side in pixels, most frames (more are thinned evenly), JPEG quality.
        start, end: cut, in seconds of presentation time; None is the medium's own start or end.
        half: `left` or `right` half of the picture as displayed, before it is made smaller; None = all of it.
        reader: `decord` or `pyav` to insist on one (for tests); the frames are the same.

    Returns:
        At least one frame. A stream that starts late lacks the segments before its first frame.

    Raises:
        DecodeError: missing, empty, unreadable, no_video, truncated, corrupt, out_of_range, too_large.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path, spec, start, end, half)
    with media.opened(path) as medium:
        if medium.video is None:
            raise DecodeError("no_video", f"{len(medium.container.streams)} stream(s), none of them video", path)
        low, high, table = start or 0.0, end, None
        if high is None:
            table = packets(medium)
            medium.check_whole()
            medium.rewind()
            high = table.end if table.times.size else medium.declared or 0.0
        if high <= low and low > 0:
            raise DecodeError("out_of_range", f"clip starts at {low:g} s of {high:.2f} s", path)
        spans = segments(max(high - low, 0.0), spec.fps, spec.max_frames)
        moments = spans.mean(axis=1) + low
        try:
            return _keep(_shots(medium, table, moments, low, reader), spans, spec, path, half)
        except _RanDry as dry:
            medium.check_whole()
            if table is not None:
                raise DecodeError("truncated", f"video ends at {dry.until:.2f} s of {moments[-1]:.2f} s", path) from None
            if low >= dry.until - SLACK:
                raise DecodeError("out_of_range", f"clip starts at {low:g} s of {dry.until:.2f} s", path) from None
            until = dry.until
    # The pictures end before the cut does: the clip's picture is what there is.
    return read_frames(path, spec, start, until, half, reader=reader)


class _RanDry(Exception):
    """The film ended, at `until` seconds, before the last moments that were asked for."""

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.until = until


def _shots(
    medium: media.Medium, table: Packets | None, moments: np.ndarray, low: float, reader: str | None
) -> Iterator[tuple[int, Image.Image]]:
    """(position in `moments`, picture as displayed) for every moment that has one."""
    done = -1
    if reader != "pyav" and table is not None and plain.suits(medium, table):
        try:
            for done, picture in plain.read(medium.path, table, moments):
                yield done, picture
            return
        except plain.Refused:
            pass  # PyAV gives the rest.
    if reader == "decord":
        raise ValueError(f"{medium.path} is not a file decord can be trusted with")
    # How far short of the last moment the film may end: a cut may be longer than its film, but a time table may not.
    slack = max(0.5, 0.1 * (moments[-1] - low)) if table is not None else 0.0
    yield from (shot for shot in _walk(medium, moments, low, slack) if shot[0] > done)


def _walk(
    medium: media.Medium, moments: np.ndarray, low: float, slack: float, seek: bool = True
) -> Iterator[tuple[int, Image.Image]]:
    """PyAV: decode forward from the key frame before the clip, convert only what is shown.

    Raises:
        _RanDry: the film ends more than `slack` seconds before the last moment.
    """
    sought, zero = seek and low > 1.0, medium.origin
    assert medium.video is not None
    medium.seek(low + zero if sought else 0.0, medium.video)
    stream = medium.video  # after the search, which may open the file anew
    position, held, until, last = 0, None, 0.0, -1.0
    step = 1.0 / float(stream.average_rate or stream.guessed_rate or 25)
    for frame in medium.decoded(stream, sought):
        at = media.seconds(frame.pts if frame.pts is not None else frame.dts, frame.time_base)
        at = last + step if at is None else at - zero
        if held is None and sought and at > moments[0] + SLACK:
            break  # the file's index led past the clip
        while held is not None and position < len(moments) and moments[position] < at - SLACK:
            yield position, _picture(held, stream, medium.path)
            position += 1
        if held is None:
            # A stream that starts late shows nothing before its first frame; the moments before it have no
            # frame, but a clip shorter than a frame must still give one.
            while position < len(moments) - 1 and moments[position] < at - SLACK:
                position += 1
        if position >= len(moments):
            return
        held, last = frame, at
        until = at + (media.seconds(frame.duration, frame.time_base) or step)
    if held is None and sought:
        yield from _walk(medium, moments, low, slack, seek=False)
        return
    if held is None:
        return
    if moments[-1] - until > slack + SLACK and (position or low >= until - SLACK):
        raise _RanDry(until)
    while position < len(moments):
        if moments[position] > until + SLACK and position:
            break
        yield position, _picture(held, stream, medium.path)
        position += 1


def _picture(frame: av.VideoFrame, stream: av.VideoStream, path: Path) -> Image.Image:
    width, height, orientation = display(frame, stream, path)
    try:
        image = Image.fromarray(frame.to_ndarray(format="rgb24"))
    except FAILURES as error:
        raise DecodeError("unreadable", f"pixel format {frame.format.name}: {error}", path) from error
    image = orientation.apply(image)
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BICUBIC)


def _keep(shots: Iterator[tuple[int, Image.Image]], spans: np.ndarray, spec: DecodeVideo, path: Path, half: str | None) -> Frames:
    jpegs, rows = [], []
    for position, image in shots:
        jpegs.append(jpeg.encode(shrink(take_half(image, half), spec.size), spec.quality))
        rows.append(position)
    if not jpegs:
        raise DecodeError("unreadable", "the video stream yields no frame", path)
    return Frames(jpegs, spans[rows].astype(np.float32))


def _folder(path: Path, spec: DecodeVideo, start: float | None, end: float | None, half: str | None) -> Frames:
    names, rate, low = folder.images(path), folder.rate(path), start or 0.0
    high = min(len(names) / rate, end if end is not None else np.inf)
    if low >= high:
        raise DecodeError("out_of_range", f"clip starts at {low:g} s of {high:.2f} s", path)
    spans = segments(high - low, spec.fps, spec.max_frames)
    chosen = np.minimum((spans.mean(axis=1) + low) * rate + SLACK, len(names) - 1).astype(int)
    lost: dict[int, DecodeError] = {}

    def shots() -> Iterator[tuple[int, Image.Image]]:
        for i, n in enumerate(chosen):
            try:
                yield i, folder.picture(names[n])
            except DecodeError as error:
                if error.reason not in OF_BYTES:
                    raise  # it may be there the next time
                lost[n] = error

    try:
        kept = _keep(shots(), spans, spec, path, half)
    except DecodeError as error:
        raise next(iter(lost.values()), error) from error  # not one is left
    return replace(kept, lost=tuple(f"{names[n].name}: {error.reason}" for n, error in lost.items()))
