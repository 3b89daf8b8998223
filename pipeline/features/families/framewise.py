"""What encoders of single images share: pixels of every frame, one row per frame, time from the frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...params import Stream
from .. import pooling
from ..extractor import Clip, Missing, Prepared
from ..images import Preprocessing

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Prepare:
    """Clip → array `pixels` (T, H, W, 3) uint8, one row per frame."""

    images: Preprocessing

    def __call__(self, clip: Clip) -> Prepared:
        jpegs, times = frames(clip)
        return Prepared({"pixels": self.images.pixels(jpegs)}, times, cost=float(len(jpegs)))


def frames(clip: Clip) -> tuple[list[bytes], np.ndarray]:
    """JPEGs and (T, 2) float32 seconds of the frames a clip has; an empty frame (no face in it) is left out.

    Raises:
        Missing: it has none.
        ValueError: frames and times differ in number.
    """
    jpegs = list(clip.frames or ())
    if not jpegs or clip.frame_times is None:
        raise Missing("the clip has no frames")
    times = np.asarray(clip.frame_times, dtype=np.float32)
    if times.shape != (len(jpegs), 2):
        raise ValueError(f"clip {clip.id}: {len(jpegs)} frames with times of shape {times.shape}")
    kept = [i for i, data in enumerate(jpegs) if len(data)]
    if not kept:
        raise Missing("no frame shows a face")
    return [jpegs[i] for i in kept], times[kept]


def forward(encode: Callable[[torch.Tensor], torch.Tensor], stream: Stream, images: Preprocessing, *, device: str,
            chunk: int = 64) -> Callable:
    """`forward` of an extractor from `encode`: (N, 3, H, W) float32 pixels → (N, ...) rows.

    Frames of all clips go through together, at most `chunk` at a time.
    """
    import torch

    @torch.inference_mode()
    def run(batch: Sequence[Prepared]) -> list[tuple[np.ndarray, np.ndarray]]:
        pixels = np.concatenate([item.inputs["pixels"] for item in batch])
        parts = [encode(images.normalise(torch.from_numpy(part).to(device)))
                 for part in np.split(pixels, range(chunk, len(pixels), chunk))]
        rows = torch.split(torch.cat(parts), [len(item.inputs["pixels"]) for item in batch])
        return [pooling.reduce(values, item.times, pooling=stream.pooling, rate=stream.rate)
                for values, item in zip(rows, batch, strict=True)]

    return run
