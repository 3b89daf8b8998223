"""The sound of a file as it is heard, piece by piece: nothing longer than a second or so is held at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile

from . import container as media
from . import extent
from .downmix import to_mono
from .errors import DecodeError
from .failures import FAILURES
from .probe import is_plain
from .streamed import open_sound

#: Holes between packets shorter than this (seconds) are rounding, longer ones are silence.
GAP = 0.05

#: Samples a piece of a plain sound file has.
BLOCK = 1 << 18


@dataclass(frozen=True)
class Piece:
    """Samples, and the silence before them.

    Attributes:
        rate: samples per second, the same in all pieces.
        silence: samples that pass before nothing is told of.
        samples: (S,) float32 mono.
    """

    rate: int
    silence: int
    samples: np.ndarray


def listen(path: Path, start: float | None = None, end: float | None = None, channel: int | None = None) -> Iterator[Piece]:
    """The sound from `start` to `end` (seconds of presentation time), the first piece beginning at `start`.

    Raises:
        DecodeError: missing, empty, unreadable, no_audio, truncated, corrupt, out_of_range; also after pieces were given.
    """
    if path.is_dir():
        raise DecodeError("no_audio", "a folder of frame images", path)
    media.check(path)
    begun = False
    if is_plain(path):
        try:
            for piece in _soundfile(path, start or 0.0, end, channel):
                begun = True
                yield piece
            return
        except soundfile.SoundFileError as error:
            # FFmpeg may know the codec, or name the damage.
            if begun:
                raise DecodeError("corrupt", str(error), path) from error
    with media.opened(path) as medium:
        yield from hear(medium, start or 0.0, end, channel)


def _soundfile(path: Path, start: float, end: float | None, channel: int | None) -> Iterator[Piece]:
    with open_sound(path) as sound:
        rate, total = sound.samplerate, sound.frames
        low = round(start * rate)
        high = total if end is None else min(total, round(end * rate))
        if total <= 0:
            raise DecodeError("empty", "no samples", path)
        if low >= total:
            raise DecodeError("out_of_range", f"clip starts at {start:g} s of {total / rate:.2f} s", path)
        extent.check(path)
        sound.seek(low)
        left = high - low
        while left > 0:
            block = sound.read(min(left, BLOCK), dtype="float32", always_2d=True).T
            if not block.shape[1]:
                break
            left -= block.shape[1]
            yield Piece(rate, 0, to_mono(block, "", channel))
    if left > max(0.5 * rate, 0.1 * (high - low)):
        raise DecodeError("truncated", f"{high - low - left} of {high - low} samples", path)


def hear(medium: media.Medium, low: float, end: float | None, channel: int | None) -> Iterator[Piece]:
    """`listen` by FFmpeg. When all is asked for, the packets are read to the end of the file."""
    path = medium.path
    if medium.audio is None:
        raise DecodeError("no_audio", f"{len(medium.container.streams)} stream(s), none of them audio", path)
    begun = False
    if low > 1.0 and not (medium.format == "ogg" and extent.has_links(path)):
        # A little early: coded audio needs packets of run-up before its samples are right.
        medium.seek(low + medium.origin - 0.5, medium.audio)
        try:
            for piece in _walk(medium, low, end, channel, sought=True):
                if not begun and piece.silence:
                    break  # The file's index led past the clip.
                begun = True
                yield piece
        except DecodeError:
            if begun:
                raise
        if not begun:
            medium.rewind()
    if not begun:
        for piece in _walk(medium, low, end, channel):
            begun = True
            yield piece
    if end is None:
        for _ in _rest(medium):
            pass
        medium.check_whole()
    if not begun:
        if medium.audio.index not in medium.ends:
            raise DecodeError("empty", "no samples", path)
        if low:
            raise DecodeError("out_of_range", f"clip starts at {low:g} s, where no sound is left", path)
        raise DecodeError("unreadable", "the audio stream yields no samples", path)


def _rest(medium: media.Medium) -> Iterator[object]:
    try:
        yield from medium.packets()
    except FAILURES:
        return


def _walk(medium: media.Medium, low: float, end: float | None, channel: int | None, sought: bool = False) -> Iterator[Piece]:
    """Decode forward from where the container stands; nothing is given when the first time after a seek is unknown."""
    stream, path, zero = medium.audio, medium.path, medium.origin
    assert stream is not None
    rate, want = 0, math.inf
    filled = clock = None  # samples given; where the next frame stands if it follows the last, both from `low`
    for frame in medium.decoded(stream, sought):
        if frame.samples <= 0:
            continue
        if not rate:
            rate = frame.sample_rate
            if not rate or rate <= 0:
                raise DecodeError("unreadable", f"sample rate {rate}", path)
            want = math.inf if end is None else max(0, round((end - low) * rate))
        if frame.sample_rate != rate:
            raise DecodeError("corrupt", f"the sample rate changes from {rate} to {frame.sample_rate}", path)
        block = to_mono(_planes(frame), frame.layout.name, channel)
        at = media.seconds(frame.pts, frame.time_base)
        position = clock if at is None else round((at - zero - low) * rate)
        if position is None:
            if sought:
                return
            position = -round(low * rate)
        if clock is not None and position < clock - GAP * rate:
            position = clock  # a clock that begins again: one file behind another
        clock = position + block.size
        if filled is None:
            if clock <= 0:
                continue  # before the cut
            block, position, filled = block[max(0, -position) :], max(0, position), 0
            gap = position
        else:
            gap = position - filled
            gap = gap if gap > GAP * rate and _is_credible(medium, low + filled / rate, low + position / rate) else 0
            clock = filled + gap + block.size
        if filled + gap >= want:
            return
        block = block[: int(min(block.size, want - filled - gap))]
        yield Piece(rate, gap, block)
        filled += gap + block.size
        if filled >= want:
            return


def _is_credible(medium: media.Medium, now: float, then: float) -> bool:
    """Whether time may leap so: not beyond the file's declared end, unless what was heard has shown that to be wrong."""
    return medium.declared is None or then <= medium.declared + 1.0 or now > medium.declared + 1.0


def _planes(frame: av.AudioFrame) -> np.ndarray:
    """An audio frame as (C, S) float32, full scale 1."""
    array: np.ndarray = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128.0) / 128.0
    if array.dtype.kind == "i":
        return array.astype(np.float32) / float(-np.iinfo(array.dtype).min)
    return array.astype(np.float32, copy=False)
