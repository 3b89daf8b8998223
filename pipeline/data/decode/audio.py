"""The sound of a clip: mono float32 at the rate asked for, time 0 at the clip's start."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import soundfile

from .probe import opened
from .problem import DecodeError, NoModality

SOUNDFILE = (".wav", ".flac", ".ogg", ".aiff", ".aif")


def read_waveform(path: str | Path, rate: int, start: float | None = None, end: float | None = None,
                  channel: str | None = None) -> np.ndarray:
    """(S,) float32 in [-1, 1], mono, at `rate` samples per second.

    Channels are averaged, or one of `left`, `right` is taken. Sound that starts later than the
    medium is preceded by silence, so that samples and frames share a clock.

    Raises:
        NoModality: the medium has no sound.
        DecodeError: missing, empty, unreadable; samples that are not finite.
    """
    path = Path(path)
    samples, native = _soundfile(path, start, end) if path.suffix.lower() in SOUNDFILE else _pyav(path, start, end)
    if samples.shape[0] == 0:
        raise DecodeError("empty", f"{path.name} has no sound between {start or 0:g} and {end or float('inf'):g} s")
    mono = _mix(samples, channel, path)
    if not np.isfinite(mono).all():
        raise DecodeError("invalid", f"{path.name} holds samples that are not numbers")
    return resample(np.clip(mono, -1.0, 1.0), native, rate)


def resample(mono: np.ndarray, native: int, rate: int) -> np.ndarray:
    """Windowed-sinc resampling (torchaudio's functional API)."""
    if native == rate:
        return np.ascontiguousarray(mono, dtype=np.float32)
    import torch
    from torchaudio.functional import resample as sinc

    return sinc(torch.from_numpy(np.ascontiguousarray(mono, dtype=np.float32)), native, rate).numpy()


def level(waveform: np.ndarray) -> float:
    """Peak in dBFS; minus infinity for digital silence."""
    peak = float(np.abs(waveform).max(initial=0.0))
    return 20 * float(np.log10(peak)) if peak > 0 else float("-inf")


def encode(waveform: np.ndarray, rate: int) -> bytes:
    """(S,) float32 → 16-bit FLAC file."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(waveform, -1.0, 1.0 - 2**-15), rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def decode(flac: bytes) -> tuple[np.ndarray, int]:
    """FLAC file → (S,) float32 and its rate."""
    return soundfile.read(io.BytesIO(flac), dtype="float32")


def _mix(samples: np.ndarray, channel: str | None, path: Path) -> np.ndarray:
    if channel is None:
        return samples.mean(axis=1)
    position = {"left": 0, "right": 1}[channel]
    if position >= samples.shape[1]:
        raise DecodeError("invalid", f"{path.name} is mono, the manifest asks for its {channel} channel")
    return samples[:, position]


def _soundfile(path: Path, start: float | None, end: float | None) -> tuple[np.ndarray, int]:
    if not path.exists():
        raise DecodeError("missing", f"{path} is not there")
    if path.stat().st_size == 0:
        raise DecodeError("empty", f"{path.name} has no bytes")
    try:
        with soundfile.SoundFile(path) as file:
            low = round((start or 0.0) * file.samplerate)
            high = min(round(end * file.samplerate), file.frames) if end is not None else file.frames
            if low >= high:
                return np.empty((0, file.channels), np.float32), file.samplerate
            file.seek(low)
            return file.read(high - low, dtype="float32", always_2d=True), file.samplerate
    except (soundfile.LibsndfileError, OSError, ValueError, RuntimeError):
        return _pyav(path, start, end)  # a wrong extension, or a codec libsndfile lacks


def _pyav(path: Path, start: float | None, end: float | None) -> tuple[np.ndarray, int]:
    with opened(path) as container:
        if not container.streams.audio:
            raise NoModality(f"{path.name} has no audio track")
        stream = container.streams.audio[0]
        native, channels = stream.rate, stream.channels
        if not native or not channels:
            raise DecodeError("unreadable", f"{path.name}: the audio track has no rate or channels")
        base = container.start_time / av.time_base if container.start_time else 0.0
        to_float = av.AudioResampler(format="fltp", layout=stream.layout, rate=native)
        parts, first = [], None
        try:
            for frame in container.decode(stream):
                if first is None:
                    first = frame.time - base if frame.time is not None else 0.0
                parts += [piece.to_ndarray() for piece in to_float.resample(frame)]
                if end is not None and frame.time is not None and frame.time - base > end:
                    break
            parts += [piece.to_ndarray() for piece in to_float.resample(None)]
        except av.error.FFmpegError:
            if not parts:
                raise  # a truncated file keeps the sound before the damage
    if not parts:
        raise DecodeError("unreadable", f"{path.name}: the audio track holds no sound")
    samples = np.concatenate(parts, axis=1).T
    lead = round((first or 0.0) * native)
    if lead > 0:
        samples = np.concatenate([np.zeros((lead, samples.shape[1]), np.float32), samples])
    elif lead < 0:
        samples = samples[-lead:]
    low = round((start or 0.0) * native)
    high = round(end * native) if end is not None else len(samples)
    return samples[low:high], native
