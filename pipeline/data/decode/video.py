"""Sampled frames of a clip: decord first, PyAV where decord cannot be trusted.

decord returns the presentation time of every frame, so frames are chosen by time and variable
frame rate is no problem; it ignores rotation and fails on some codecs: those go to PyAV.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...params import DecodeVideo
from .probe import images, opened, picture, turn
from .problem import DecodeError, NoModality
from .sampling import TOLERANCE, grid, pick

#: Frame folders carry no clock. The usual rate of annotated film corpora.
FOLDER_FPS = 25.0


@dataclass(frozen=True)
class Frames:
    """Sampled frames.

    Attributes:
        jpegs: T JPEG files.
        times: (T, 2) float32 seconds from clip start, the slot each frame stands for.
        reader: decord, pyav or images.
    """

    jpegs: list[bytes]
    times: np.ndarray
    reader: str


def read_frames(path: str | Path, spec: DecodeVideo, start: float | None = None, end: float | None = None) -> Frames:
    """Sample the frames of a medium, or of the part between `start` and `end` seconds.

    Raises:
        NoModality: the medium has no picture.
        DecodeError: missing, empty or unreadable; a cut beyond the end.
    """
    path = Path(path)
    if path.is_dir():
        return _from_folder(path, spec, start, end)
    with opened(path) as container:
        stream = picture(container)
        if stream is None:
            raise NoModality(f"{path.name} has no video track")
        rotation = turn(stream)
        base = container.start_time / 1e6 if container.start_time else 0.0
    chosen = None if rotation else _decord(path, spec, start, end, base)
    reader = "decord"
    if chosen is None:
        chosen, reader = _pyav(path, spec, start, end, base, rotation), "pyav"
    pictures, times = chosen
    return Frames([encode(p, spec) for p in pictures], times, reader)


def slots(duration: float, spec: DecodeVideo) -> tuple[np.ndarray, np.ndarray]:
    """(T,) sampling times and (T, 2) float32 slots of a clip of `duration` seconds."""
    wanted = grid(duration, spec.fps, spec.max_frames)
    edges = np.linspace(0.0, duration, len(wanted) + 1)
    return wanted, np.stack([edges[:-1], edges[1:]], 1).astype(np.float32)


def _span(times: np.ndarray, last: float, start: float | None, end: float | None, name: str) -> tuple[float, float]:
    """Start and end of the clip on the medium's clock, clamped to what there is."""
    low = start or 0.0
    high = min(end, last) if end is not None else last
    if low >= last or high <= low:
        raise DecodeError("empty", f"{name}: no picture between {low:g} and {high:g} s (it ends at {last:g} s)")
    return low, high


def _decord(path: Path, spec: DecodeVideo, start: float | None, end: float | None, base: float):
    import decord

    try:
        video = decord.VideoReader(str(path), num_threads=1)
        stamps = video.get_frame_timestamp(np.arange(len(video)))
        times = stamps[:, 0].astype(np.float64) - base
        if len(times) == 0 or not np.isfinite(stamps).all() or (np.diff(times) <= 0).any() or times[0] < -TOLERANCE:
            return None
        low, high = _span(times, float(stamps[-1, 1]) - base, start, end, path.name)
        wanted, slot = slots(high - low, spec)
        chosen = pick(times, wanted + low)
        unique, back = np.unique(chosen, return_inverse=True)
        pixels = video.get_batch(unique).asnumpy()
        return [pixels[i] for i in back], slot
    except (decord.DECORDError, RuntimeError, ValueError, IndexError, MemoryError):
        return None


def _pyav(path: Path, spec: DecodeVideo, start: float | None, end: float | None, base: float, rotation: int):
    """Two passes, so that memory holds the chosen frames only: all times, then those frames."""
    with opened(path) as container:
        stream = picture(container)
        stream.thread_type = "AUTO"
        stamps = [(float(f.pts * f.time_base) - base, f.duration and float(f.duration * f.time_base))
                  for f in _decode(container, stream) if f.pts is not None]
    if not stamps:
        raise DecodeError("unreadable", f"{path.name} holds no decodable frame")
    order = np.argsort([t for t, _ in stamps], kind="stable")
    times = np.array([stamps[i][0] for i in order])
    tail = stamps[order[-1]][1] or (float(np.median(np.diff(times))) if len(times) > 1 else 1.0 / spec.fps)
    low, high = _span(times, float(times[-1] + tail), start, end, path.name)
    wanted, slot = slots(high - low, spec)
    chosen = order[pick(times, wanted + low)]
    needed, kept = set(chosen.tolist()), {}
    with opened(path) as container:
        stream = picture(container)
        stream.thread_type = "AUTO"
        dated = (f for f in _decode(container, stream) if f.pts is not None)
        for number, frame in enumerate(dated):
            if number in needed:
                kept[number] = np.rot90(frame.to_ndarray(format="rgb24"), rotation // 90)
            if len(kept) == len(needed):
                break
    return [kept[i] for i in chosen], slot


def _decode(container, stream) -> Iterable:
    """Frames up to the first damage: what a player would show of a truncated file."""
    import av

    shown = 0
    try:
        for frame in container.decode(stream):
            shown += 1
            yield frame
    except av.error.FFmpegError:
        if not shown:
            raise


def _from_folder(path: Path, spec: DecodeVideo, start: float | None, end: float | None) -> Frames:
    files = images(path)
    if not files:
        raise DecodeError("empty", f"{path.name} holds no frame images")
    times = np.arange(len(files)) / FOLDER_FPS
    low, high = _span(times, len(files) / FOLDER_FPS, start, end, path.name)
    wanted, slot = slots(high - low, spec)
    jpegs, kept = [], []
    for file, row in zip([files[i] for i in pick(times, wanted + low)], slot, strict=True):
        try:
            with Image.open(file) as image:
                jpegs.append(encode(np.asarray(image.convert("RGB")), spec))
                kept.append(row)
        except (UnidentifiedImageError, OSError, ValueError):
            continue  # a damaged frame leaves a gap in the times, not a black picture
    if not jpegs:
        raise DecodeError("unreadable", f"{path.name} holds no readable frame image")
    return Frames(jpegs, np.stack(kept), "images")


def encode(pixels: np.ndarray, spec: DecodeVideo) -> bytes:
    """(H, W, 3) uint8 RGB → JPEG with the shorter side at `spec.size`, antialiased, never enlarged."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if spec.size and min(image.size) > spec.size:
        scale = spec.size / min(image.size)
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=spec.quality, subsampling=0)
    return buffer.getvalue()
