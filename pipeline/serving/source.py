"""A raw media file as the extractors saw clips in training: same sampling, same codecs, same limits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..data import flac
from ..data.decode import audio, video
from ..data.decode.errors import DecodeError
from ..data.decode.probe import Probe, probe
from ..errors import UserError
from ..features.extractor import Clip, Missing
from ..params import Decode


@dataclass(frozen=True)
class Source:
    """One file, decoded once however many streams read it.

    Args:
        path: media file or folder of frame images.
        decode: parameters of the stages `frames` and `audio`.
        start, end: cut in seconds of the medium's time; None is its own start or end.
        text: what is said.
        silence: peak in dBFS below which a sound track counts as none, as in the manifest.

    Raises:
        UserError: the cut is empty; (on first use) DecodeError when the file is absent or no medium.
    """

    path: Path
    decode: Decode
    start: float | None = None
    end: float | None = None
    text: str | None = None
    silence: float = -60.0

    def __post_init__(self) -> None:
        low = self.start or 0.0
        if low < 0 or (self.end is not None and self.end <= low):
            raise UserError(
                f"{self.path}: the cut from {low:g} s to {self.end if self.end is not None else 'the end'} is "
                "empty; give 0 <= start < end."
            )

    @cached_property
    def facts(self) -> Probe:
        return probe(self.path)

    @property
    def duration(self) -> float:
        """Seconds of the clip."""
        whole = self.facts.duration
        return max(0.0, (whole if self.end is None else min(self.end, whole)) - (self.start or 0.0))

    def clip(self, modality: str) -> Clip:
        """The clip as an encoder of `modality` reads it.

        Raises:
            Missing: the file has no such modality, or it is silent; the reason is for people.
            DecodeError: it has, but it cannot be decoded.
        """
        name, length = Path(self.path).stem, self.duration
        if modality == "text":
            if not (self.text or "").strip():
                raise Missing("no text was given")
            return Clip(name, text=self.text, duration=length)
        if modality == "video":
            if not self.facts.has_video:
                raise Missing("the file has no video")
            jpegs, times = self._frames
            return Clip(name, frames=jpegs, frame_times=times, duration=length)
        if modality == "audio":
            if not self.facts.has_audio:
                raise Missing("the file has no sound")
            return Clip(name, waveform=self._waveform, rate=self.decode.audio.rate, duration=length)
        raise Missing(f"{modality} is not found in a single file")

    def bare(self) -> Clip:
        """The clip without media, for streams that look features up by clip id."""
        return Clip(Path(self.path).stem, text=self.text, duration=self.duration)

    @cached_property
    def _frames(self) -> tuple[list[bytes], np.ndarray]:
        found = video.read_frames(self.path, self.decode.video, self.start, self.end)
        return list(found.jpegs), np.asarray(found.times, np.float32)

    @cached_property
    def _waveform(self) -> np.ndarray:
        rate = self.decode.audio.rate
        wave = audio.read_waveform(self.path, rate, self.start, self.end, None)
        peak = float(np.abs(wave).max()) if wave.size else 0.0
        if peak <= 0 or 20 * np.log10(peak) < self.silence:
            raise Missing("the sound is silent")
        # Training reads FLAC; going through it keeps its rounding.
        return flac.decode(flac.encode(wave, rate))[0]


def missing_reason(error: Missing | DecodeError) -> str:
    """One line without the path, for the list of streams."""
    if isinstance(error, DecodeError):
        return f"{error.reason}: {error.detail}"
    return " ".join(str(error).split())
