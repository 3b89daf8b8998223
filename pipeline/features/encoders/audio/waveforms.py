"""Raw waveforms for models with a convolutional front end: pieces, frames and their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.features.encoders import pooling
from pipeline.features.encoders.extractor import Clip, Prepared

from . import sound

RATE = 16000


@dataclass(frozen=True)
class Prepare:
    """Clip → one array `waveform` (S,) float32."""

    normalise: bool
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    chunk: float | None = None

    def __call__(self, clip: Clip) -> Prepared:
        samples = sound.waveform(clip, RATE)
        duration = len(samples) / RATE
        if self.normalise:
            samples = sound.normalise_wave(samples)
        if (short := receptive_field(self.kernels, self.strides) - len(samples)) > 0:
            samples = np.pad(samples, (0, short))
        step, times, position = float(np.prod(self.strides)) / RATE, [], 0.0
        for piece in split_lengths(len(samples), self.chunk, receptive_field(self.kernels, self.strides)):
            count = count_frames(piece, self.kernels, self.strides)
            times.append(position + pooling.frame_times(count, 1 / step, piece / RATE))
            position += piece / RATE
        slots = np.minimum(np.concatenate(times), duration).astype(np.float32)
        return Prepared({"waveform": samples}, slots, cost=duration)


def count_frames(samples: int, kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Frames the convolutional front end gives for `samples`: 49 for one second of 16 kHz."""
    for kernel, stride in zip(kernels, strides, strict=True):
        samples = (samples - kernel) // stride + 1
    return samples


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """The least number of samples that gives a frame."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def split_lengths(samples: int, chunk: float | None, least: int) -> list[int]:
    """Lengths of the pieces a waveform is encoded in; a rest too short for a frame joins its neighbour."""
    if not chunk:
        return [samples]
    size = max(least, round(chunk * RATE))
    lengths = [size] * (samples // size) + ([samples % size] if samples % size else [])
    if len(lengths) > 1 and lengths[-1] < least:
        lengths[-2:] = [lengths[-2] + lengths[-1]]
    return lengths
