"""Sound as it is stored: 16-bit mono FLAC, which any player plays."""

from __future__ import annotations

import io

import numpy as np
import soundfile


def encode(waveform: np.ndarray, rate: int) -> bytes:
    """(S,) float32 → FLAC file; what exceeds full scale is clipped."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(waveform, -1.0, 1.0 - 2**-15), rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode(flac: bytes) -> tuple[np.ndarray, int]:
    """FLAC file → (S,) float32 in [-1, 1] and its samples per second.

    >>> wave, rate = decode(encode(np.array([0.0, 0.5, -0.5], np.float32), 16000))
    >>> wave.tolist(), rate
    ([0.0, 0.5, -0.5], 16000)
    """
    return soundfile.read(io.BytesIO(flac), dtype="float32")
