"""Log-mel spectrograms in numpy, so that worker processes need nothing else."""

from __future__ import annotations

import numpy as np


def bank(bins: int, size: int, rate: int, low: float = 0.0, high: float | None = None) -> np.ndarray:
    """(size/2 + 1, bins) triangular filters on Slaney's scale (Auditory Toolbox, 1998), each of unit area, as Whisper's."""
    ends = _mels(np.array([low, rate / 2 if high is None else high]))
    edges = _hertz(np.linspace(ends[0], ends[1], bins + 2))
    tones = np.linspace(0, rate // 2, size // 2 + 1)[:, None]
    rising, falling = (tones - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - tones) / np.diff(edges)[1:]
    return np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))


def _mels(hertz: np.ndarray) -> np.ndarray:
    """Linear to 1000 Hz (mel 15), then logarithmic: 27 mels more for a factor of 6.4."""
    return np.where(hertz < 1000.0, 3.0 * hertz / 200.0, 15.0 + np.log(np.maximum(hertz, 1.0) / 1000.0) * (27.0 / np.log(6.4)))


def _hertz(mels: np.ndarray) -> np.ndarray:
    """Inverse of `_mels`."""
    return np.where(mels < 15.0, 200.0 * mels / 3.0, 1000.0 * np.exp(np.log(6.4) / 27.0 * (mels - 15.0)))


def power(samples: np.ndarray, size: int, hop: int, bank: np.ndarray) -> np.ndarray:
    """(bins, F) mel power of a (S,) waveform, F = S // hop + 1: Hann windows centred on multiples of `hop`.

    The ends are mirrored, as torch and librosa do; computed in float64.
    """
    mirrored = np.pad(samples.astype(np.float64), size // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(mirrored, size)[::hop]
    hann = np.hanning(size + 1)[:-1]
    return bank.T @ (np.abs(np.fft.rfft(windows * hann, axis=1)) ** 2).T


def whisper(samples: np.ndarray, frames: int, size: int, hop: int, bank: np.ndarray) -> np.ndarray:
    """(bins, frames) float32 input of Whisper: log10 power, 80 dB below its peak at least, then (x + 4) / 4."""
    log = np.log10(np.maximum(power(samples, size, hop, bank)[:, :frames], 1e-10))
    return ((np.maximum(log, log.max() - 8.0) + 4.0) / 4.0).astype(np.float32)
