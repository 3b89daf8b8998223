"""Clips made worse in a measured way: white noise on sound, blur and a grey block on pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

from pipeline.features.encoders.extractor import Clip
from pipeline.storage import jpeg

#: Of pictures that were changed: high, so that it is the change that counts.
QUALITY = 95
GREY = (128, 128, 128)
#: What a disturbance is done to.
REACHES = {"noise": ("audio",), "blur": ("video", "face"), "block": ("video", "face")}


@dataclass(frozen=True)
class Disturbance:
    """One way of making clips worse.

    Attributes:
        kind: a key of `REACHES`.
        level: `noise`: signal over noise in dB; `blur`: deviation of the Gaussian as a share of the shorter side; `block`: share
            of the picture that is covered.
    """

    kind: str
    level: float

    def reaches(self, modality: str) -> bool:
        """Whether a stream of this modality reads what is disturbed."""
        return modality in REACHES[self.kind]

    def apply(self, clip: Clip, seed: int) -> Clip:
        """The clip, disturbed by chance that hangs on its id and the seed alone; of noise, all levels have the same."""
        rng = np.random.default_rng(list(hashlib.sha256(f"{seed} {self.kind} {clip.id}".encode()).digest()[:8]))
        if self.kind == "noise":
            return clip if clip.waveform is None else replace(clip, waveform=add_noise(clip.waveform, self.level, rng))
        if clip.frames is None:
            return clip
        frames = blur(clip.frames, self.level) if self.kind == "blur" else cover(clip.frames, self.level, rng)
        return replace(clip, frames=frames)


#: What is measured, from little to much of each kind.
DISTURBANCES = (
    *(Disturbance("noise", level) for level in (20.0, 10.0, 0.0)),
    *(Disturbance("blur", level) for level in (0.01, 0.03, 0.06)),
    *(Disturbance("block", level) for level in (0.1, 0.25, 0.5)),
)


def add_noise(waveform: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
    """Sound (S,) with white noise `snr` dB below it, measured over the whole clip; silence has no such measure and stays.

    Samples may leave [-1, 1]: clipped, the ratio would be another.
    """
    noise = rng.standard_normal(len(waveform))
    power, own = (float(np.mean(np.square(side, dtype=float))) if len(side) else 0.0 for side in (waveform, noise))
    if not power or not own:
        return waveform
    return np.asarray(waveform + noise * np.sqrt(power / own / 10 ** (snr / 10)), np.float32)


def blur(frames: Sequence[bytes], share: float) -> list[bytes]:
    """JPEGs blurred with a Gaussian whose deviation is a share of the shorter side."""
    pictures = (jpeg.decode(frame) for frame in frames)
    return [jpeg.encode(one.filter(ImageFilter.GaussianBlur(share * min(one.size))), QUALITY) for one in pictures]


def cover(frames: Sequence[bytes], share: float, rng: np.random.Generator) -> list[bytes]:
    """JPEGs with a grey block over a share of the picture, in the picture's own shape; at one place in all frames."""
    across, down = rng.random(2)
    found = []
    for frame in frames:
        picture = jpeg.decode(frame)
        width, height = (max(1, round(side * share**0.5)) for side in picture.size)
        place = round(across * (picture.width - width)), round(down * (picture.height - height))
        picture.paste(Image.new("RGB", (width, height), GREY), place)
        found.append(jpeg.encode(picture, QUALITY))
    return found
