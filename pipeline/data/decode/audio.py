"""Waveforms: mono float32 at the wanted rate, sample 0 at the clip's start."""

from __future__ import annotations

import math
from pathlib import Path

import av
import numpy as np
import soundfile
from av.container import InputContainer

from . import container as media
from .errors import DecodeError
from .probe import sound_only

#: Samples beyond this are not sound but broken floats; full scale is 1.
MAX_SAMPLE = 100.0

#: Holes between packets shorter than this (seconds) are rounding, longer ones are silence.
GAP = 0.05

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
        channel: `left`, `right`, or None for the mean of all channels.

    Returns:
        (S,) float32. A stream that starts late is preceded by silence, so that sample i is at
        i / rate seconds from the clip's start. Values may slightly exceed 1 where the source clips.

    Raises:
        DecodeError: missing, empty, unreadable, no_audio, truncated, corrupt, not_finite, out_of_range.
    """
    path = Path(path)
    if channel not in _CHANNELS:
        raise ValueError(f"channel must be left, right or None, not {channel!r}")
    if path.is_dir():
        raise DecodeError("no_audio", "a folder of frame images", path)
    media.check(path)
    heard: tuple[np.ndarray, int] | None = None
    if sound_only(path):
        try:
            heard = _soundfile(path, start, end, _CHANNELS[channel])
        except soundfile.SoundFileError:
            pass  # FFmpeg may know the codec, or name the damage.
    wave, native = heard or _ffmpeg(path, start, end, _CHANNELS[channel])
    if wave.size == 0:
        raise DecodeError("empty", "no samples", path)
    bad = int(np.count_nonzero(~(np.abs(wave) <= MAX_SAMPLE)))
    if bad:
        raise DecodeError("not_finite", f"{bad} of {wave.size} samples", path)
    return resample(wave, native, rate)


def level(waveform: np.ndarray) -> float:
    """Root mean square level in dBFS (0 = full-scale square wave); -inf for digital silence."""
    if waveform.size == 0:
        return -math.inf
    power = float(np.mean(np.square(waveform, dtype=np.float64)))
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


def _mono(block: np.ndarray, channel: int | None) -> np.ndarray:
    """(C, S) → (S,); a mono source has but one channel to give."""
    if channel is None or block.shape[0] == 1:
        return block.mean(axis=0, dtype=np.float32)
    return block[channel].astype(np.float32)


def _soundfile(path: Path, start: float | None, end: float | None, channel: int | None) -> tuple[np.ndarray, int]:
    with soundfile.SoundFile(str(path)) as sound:
        native, total = sound.samplerate, sound.frames
        low = round((start or 0.0) * native)
        high = total if end is None else min(total, round(end * native))
        if total <= 0:
            raise DecodeError("empty", "no samples", path)
        if low >= total:
            raise DecodeError("out_of_range", f"clip starts at {start:g} s of {total / native:.2f} s", path)
        sound.seek(low)
        block = sound.read(max(0, high - low), dtype="float32", always_2d=True).T
    _check_riff(path)
    if high - low - block.shape[1] > max(0.5 * native, 0.1 * (high - low)):
        raise DecodeError("truncated", f"{block.shape[1]} of {high - low} samples", path)
    return _mono(block, channel), native


def _check_riff(path: Path) -> None:
    """A WAV file cut short reads as a shorter one; its header still tells the length it had."""
    with open(path, "rb") as file:
        head = file.read(8)
    declared, size = int.from_bytes(head[4:8], "little") + 8, path.stat().st_size
    # Writers that cannot seek leave 0 or the largest number.
    if head[:4] == b"RIFF" and 8 < declared < 0xFFFFFF00 and declared - size > 0.1 * declared:
        raise DecodeError("truncated", f"{size} of {declared} bytes", path)


def _ffmpeg(path: Path, start: float | None, end: float | None, channel: int | None) -> tuple[np.ndarray, int]:
    with media.opened(path) as container:
        stream = media.audio_stream(container)
        if stream is None:
            raise DecodeError("no_audio", f"{len(container.streams)} stream(s), none of them audio", path)
        zero, low = media.origin(container), start or 0.0
        declared = media.declared_end(container, stream)
        if low and declared is not None and low >= declared:
            raise DecodeError("out_of_range", f"clip starts at {low:g} s of {declared:.2f} s", path)
        if low > 1.0:
            # A little early: coded audio needs packets of run-up before its samples are right.
            media.seek(container, stream, low + zero - 0.5, path)
        wave, native, moment = _collect(container, stream, path, zero, low, end, channel, declared)
        if wave.size == 0 and low > 1.0:
            # The file's index led past the clip.
            media.seek(container, stream, 0.0, path)
            wave, native, moment = _collect(container, stream, path, zero, low, end, channel, declared)
        if end is None:
            media.check_whole(container, stream, moment, path)
    if native is None:
        raise DecodeError("unreadable", "the audio stream yields no samples", path)
    return wave, native


def _collect(
    container: InputContainer,
    stream: av.AudioStream,
    path: str | Path,
    zero: float,
    low: float,
    end: float | None,
    channel: int | None,
    declared: float | None,
) -> tuple[np.ndarray, int | None, float]:
    """Samples of [low, end) → (waveform, rate, last moment decoded)."""
    parts: list[np.ndarray] = []
    native, filled, moment = None, 0, 0.0
    limit = (end if end is not None else declared + 1.0 if declared else math.inf) - low
    for frame in media.decoded(container, stream, path):
        if frame.samples <= 0:
            continue
        if native is None:
            native = frame.sample_rate
            if not native or native <= 0:
                raise DecodeError("unreadable", f"sample rate {native}", path)
        if frame.sample_rate != native:
            raise DecodeError("corrupt", f"the sample rate changes from {native} to {frame.sample_rate}", path)
        block = _mono(_planes(frame), channel)
        at = media.seconds(frame.pts, frame.time_base)
        position = filled if at is None else round((at - zero - low) * native)
        if not parts and position < 0:
            block = block[-position:]  # before the cut
            position = 0
            if block.size == 0:
                continue
        gap = position - filled
        if gap > (0 if not parts else GAP * native) and position <= limit * native:
            parts.append(np.zeros(gap, np.float32))
            filled += gap
        parts.append(block)
        filled += block.size
        moment = low + filled / native
        if end is not None and filled >= (end - low) * native:
            break
    wave = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    if native and end is not None:
        wave = wave[: max(0, round((end - low) * native))]
    return wave, native, moment


def _planes(frame: av.AudioFrame) -> np.ndarray:
    """An audio frame as (C, S) float32, full scale 1."""
    array: np.ndarray = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, frame.layout.nb_channels).T
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128.0) / 128.0
    if array.dtype.kind == "i":
        return array.astype(np.float32) / float(-np.iinfo(array.dtype).min)
    return array.astype(np.float32, copy=False)
