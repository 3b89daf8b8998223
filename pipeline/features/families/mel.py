"""Log-mel spectrograms in numpy, so that worker processes need nothing else."""

from __future__ import annotations

import numpy as np


def bank(bins: int, size: int, rate: int, low: float = 0.0, high: float | None = None) -> np.ndarray:
    """(size/2 + 1, bins) triangular filters, Slaney's scale and area normalisation, as Whisper's."""
    from transformers.audio_utils import mel_filter_bank

    return mel_filter_bank(
        size // 2 + 1, bins, low, rate / 2 if high is None else high, rate, norm="slaney", mel_scale="slaney"
    )


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
