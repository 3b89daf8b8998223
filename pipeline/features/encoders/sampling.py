"""Fewer or smaller pictures than were decoded, for a stream that asks for its own `fps` or `size`.

Frames are decoded once, at the finest that any stream asks for; what a stream sees of them is decided here, before its family
prepares the clip.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from pipeline.code import code_digest
from pipeline.errors import ParamsError
from pipeline.params import Stream
from pipeline.storage.jpeg import decode

from .extractor import Clip, Extractor, Prepared


@dataclass(frozen=True)
class Sampled:
    """Pictures `fps` per second and at most `size` pixels along their shorter side; None leaves them as they are."""

    prepare: Callable[[Clip], Prepared]
    fps: float | None = None
    size: int | None = None

    def __call__(self, clip: Clip) -> Prepared:
        frames, times, where = clip.frames, clip.frame_times, clip.places
        if frames is None or times is None or len(frames) != len(times) or not any(len(data) for data in frames):
            return self.prepare(clip)  # which says what is wrong
        if self.fps is not None:
            seen = np.flatnonzero([len(data) > 0 for data in frames])  # a frame without a face is empty
            places, times = choose_frames(np.asarray(times)[seen], self.fps)
            frames = [frames[seen[place]] for place in places]
            where = None if where is None else where[seen[places]]
        if self.size is not None:
            frames = [shrink(data, self.size) if len(data) else data for data in frames]
        return self.prepare(replace(clip, frames=frames, frame_times=times, places=where))

    @property
    def modules(self) -> tuple[str, ...]:
        """What a worker imports for it."""
        return (type(self.prepare).__module__,)


def choose_frames(times: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """Of each piece of 1 / fps seconds, the frame nearest to its middle; a piece that no frame is in stays without.

    Args:
        times: (T, 2) seconds of the frames that there are.

    Returns:
        (K,) places, ascending, and (K, 2) float32 seconds of the pieces; the last one takes the remainder, as in decoding.

    >>> choose_frames(np.array([[0, 0.25], [0.25, 0.5], [0.5, 0.75], [0.75, 1.0]]), 1.0)[0].tolist()
    [1]
    """
    middles, end = np.asarray(times, np.float64).mean(1), float(times[-1, 1])
    count = max(1, int(end * fps + 0.5))
    edges = np.append(np.arange(count) / fps, max(end, (count - 1) / fps))
    pieces = np.clip(np.floor(middles * fps + 1e-4), 0, count - 1).astype(int)
    kept = np.unique(pieces)
    # Rounded: of two that are as near, the earlier.
    off = np.round(np.abs(middles - (edges[pieces] + edges[pieces + 1]) / 2), 4)
    places = [int(where[off[where].argmin()]) for where in (np.flatnonzero(pieces == piece) for piece in kept)]
    return np.array(places), np.stack([edges[kept], edges[kept + 1]], 1).astype(np.float32)


def shrink(data: bytes, size: int) -> bytes:
    """A picture whose shorter side is at most `size` pixels, in bytes that lose nothing; a smaller one as it is."""
    picture = decode(data)
    if min(picture.size) <= size:
        return data
    scale, buffer = size / min(picture.size), io.BytesIO()
    width, height = (max(1, round(side * scale)) for side in picture.size)
    picture.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "PPM")
    return buffer.getvalue()


def sample(extractor: Extractor, stream: Stream) -> Extractor:
    """The extractor of a stream as it asks for its pictures; the same one, and the same features, where it asks nothing.

    Raises:
        ParamsError: pictures that are decoded on a GPU are to be made smaller, and never come by here.
    """
    if stream.fps is None and stream.size is None:
        return extractor
    if stream.size is not None and stream.options.get("decoder") == "nvjpeg":
        raise ParamsError(
            f"size {stream.size}: pictures decoded by nvjpeg cannot be made smaller; set options.decoder to pillow."
        )
    fps = None if stream.fps is None else float(stream.fps)
    asked: dict[str, Any] = {"fps": fps, "size": stream.size, "pillow": Image.__version__, "code": code_digest(__name__)}
    return replace(
        extractor, identity=extractor.identity | {"sampling": asked}, prepare=Sampled(extractor.prepare, fps, stream.size)
    )
