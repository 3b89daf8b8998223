"""Clips of seeded frames, and what every family of image encoders must hold."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pipeline.features.encoders.extractor import Clip
from pipeline.features.engine.forward import Forward


def _jpeg(generator: np.random.Generator, width: int, height: int) -> bytes:
    coarse = Image.fromarray(generator.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def frames_clip():
    """(seed, frames, size) → Clip of seeded images, a quarter of a second each."""

    def make(seed: int = 0, frames: int = 3, size: tuple[int, int] = (80, 60)) -> Clip:
        generator = np.random.default_rng(seed)
        edges = np.arange(frames + 1, dtype=np.float32) / 4
        return Clip(
            f"clip{seed}",
            frames=[_jpeg(generator, *size) for _ in range(frames)],
            frame_times=np.stack([edges[:-1], edges[1:]], 1),
        )

    return make


@pytest.fixture(scope="session")
def encode():
    """(extractor, clips) → list of (values, times), in one batch on the processor."""

    def run(extractor, clips):
        return Forward(extractor)([extractor.prepare(clip) for clip in clips])

    return run


@pytest.fixture(scope="session")
def neighbours(frames_clip, encode):
    """A clip alone gives what it gives among seven others of other lengths."""

    def check(extractor, *, tolerance: float = 1e-5, **kwargs) -> None:
        clips = [frames_clip(seed, frames=1 + seed % 4, **kwargs) for seed in range(8)]
        among = encode(extractor, clips)
        for position in (0, 3, 7):
            ((values, times),) = encode(extractor, [clips[position]])
            np.testing.assert_allclose(values, among[position][0], atol=tolerance, rtol=0)
            np.testing.assert_array_equal(times, among[position][1])

    return check
