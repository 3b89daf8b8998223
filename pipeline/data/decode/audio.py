"""Waveforms: mono float32 at the wanted rate, sample 0 at the clip's start."""

from __future__ import annotations

import math
from collections import deque
from pathlib import Path

import numpy as np

from .errors import DecodeError
from .heard import listen

#: Samples beyond this are not sound but broken floats; full scale is 1.
MAX_SAMPLE = 100.0

#: Sound that is decoded at once may not be longer (seconds): at 48 kHz this is 700 MB.
MAX_SECONDS = 3600

#: Largest resampling kernel (taps); odd pairs of rates beyond it go to FFmpeg's resampler.
MAX_TAPS = 20_000_000

_CHANNELS = {None: None, "left": 0, "right": 1}


def read_waveform(
    path: str | Path, rate: int, start: float | None = None, end: float | None = None, channel: str | None = None
) -> np.ndarray:
    """Decode the sound of a clip.

    Args:
        path: any media file; a folder of frames has no sound.
        rate: samples per second of the result.
        start, end: cut, in seconds of presentation time; None is the medium's own start or end.
        channel: `left`, `right`, or None for all channels, mixed as `downmix.to_mono` tells.

    Returns:
        (S,) float32. A stream that starts late is preceded by silence, so that sample i is at
        i / rate seconds from the clip's start. Sound that ends before the
        cut does is given as it is. Values may slightly exceed 1 where the source clips.

    Raises:
        DecodeError: missing, empty, unreadable, no_audio, truncated, corrupt, not_finite, out_of_range, too_long.
    """
    if channel not in _CHANNELS:
        raise ValueError(f"channel must be left, right or None, not {channel!r}")
    path = Path(path)
    parts: list[np.ndarray] = []
    native = filled = 0
    for piece in listen(path, start, end, _CHANNELS[channel]):
        native, filled = piece.rate, filled + piece.silence + piece.samples.size
        if filled > MAX_SECONDS * native:
            raise DecodeError("too_long", f"more than {MAX_SECONDS} s of sound at once; cut it into clips", path)
        if piece.silence:
            parts.append(np.zeros(piece.silence, np.float32))
        parts.append(piece.samples)
    wave = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if wave.size == 0:
        raise DecodeError("empty", "no samples", path)
    bad = count_bad(wave)
    if bad:
        raise DecodeError("not_finite", f"{bad} of {wave.size} samples", path)
    return resample(wave, native, rate)


def measure(path: str | Path) -> tuple[float, float]:
    """(seconds, level) of all the sound of a file: how long it is heard, and `level` of its loudest second.

    In memory a second or so at a time, however long it is and whatever holes it has.

    Raises:
        DecodeError: as `read_waveform`.
    """
    path, total, bad, rate = Path(path), 0, 0, 0
    meter = Meter()
    for piece in listen(path):
        rate, total = piece.rate, total + piece.silence + piece.samples.size
        bad += count_bad(piece.samples)
        meter.add(piece.rate, piece.silence, piece.samples)
    if not total:
        raise DecodeError("empty", "no samples", path)
    if bad:
        raise DecodeError("not_finite", f"{bad} of {total} samples", path)
    return total / rate, meter.level


def count_bad(wave: np.ndarray) -> int:
    """Samples that are no sound."""
    return int(np.count_nonzero(~(np.abs(wave) <= MAX_SAMPLE)))


class Meter:
    """The level of the loudest second of what passes, to a tenth of a second."""

    PARTS = 10

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=self.PARTS)
        self._rest = np.zeros(0, np.float32)
        self._best, self._samples, self._rate = 0.0, 0, 0

    def add(self, rate: int, silence: int, samples: np.ndarray) -> None:
        """Let silence pass, then samples."""
        self._rate, step = rate, max(1, rate // self.PARTS)
        self._samples += silence + samples.size
        # More silence than fills a second tells nothing new.
        padded = np.zeros(min(silence, rate + step), np.float32)
        wave = np.concatenate([self._rest, padded, samples])
        whole = wave.size - wave.size % step
        for power in np.square(wave[:whole].reshape(-1, step), dtype=np.float64).sum(axis=1):
            self._push(float(power))
        self._rest = wave[whole:].copy()

    def _push(self, power: float) -> None:
        self._recent.append(power)
        self._best = max(self._best, math.fsum(self._recent))

    @property
    def level(self) -> float:
        """In dBFS; of sound shorter than a second, of all of it."""
        rest = float(np.square(self._rest, dtype=np.float64).sum())
        power = max(self._best, math.fsum([*self._recent, rest][-self.PARTS :]))
        return decibel(power / max(1, min(self._samples, self._rate)))


def loudest(waveform: np.ndarray, rate: int) -> float:
    """Level in dBFS of the loudest second of a waveform."""
    meter = Meter()
    meter.add(rate, 0, waveform)
    return meter.level


def level(waveform: np.ndarray) -> float:
    """Root mean square level in dBFS (0 = full-scale square wave); -inf for digital silence."""
    if waveform.size == 0:
        return -math.inf
    return decibel(float(np.mean(np.square(waveform, dtype=np.float64))))


def decibel(power: float) -> float:
    """A power as a level; -inf for none."""
    return 10.0 * math.log10(power) if power > 0 else -math.inf


def resample(wave: np.ndarray, native: int, rate: int) -> np.ndarray:
    """(S,) float32 at `native` → (ceil(S * rate / native),) float32 at `rate`, windowed sinc."""
    if native == rate:
        return np.ascontiguousarray(wave, dtype=np.float32)
    common = math.gcd(native, rate)
    taps = (rate // common) * (native // common + 12 * max(1, native // rate))
    if taps > MAX_TAPS:
        return _swresample(wave, native, rate)
    # Imported here: most clips are at the wanted rate already, and torch is heavy to load.
    import torch
    from torchaudio.functional import resample as sinc

    with torch.inference_mode():
        return sinc(torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32)), native, rate).numpy().copy()


def _swresample(wave: np.ndarray, native: int, rate: int) -> np.ndarray:
    import av

    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(wave, dtype=np.float32)[None], format="fltp", layout="mono")
    frame.sample_rate = native
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=rate)
    parts = [f.to_ndarray()[0] for f in (*resampler.resample(frame), *resampler.resample(None))]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)
