"""The samples themselves: the first seconds of a clip, resampled, as one row. What is learned of them is learned in phase 2.

A clip that is shorter is followed by silence. HLM12ERC takes interleaved stereo at 44.1 kHz, of which 250,000 numbers are 2.8
seconds; here it is one channel, without what lies above half of `rate`, so that as many numbers hold more of what is said.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from functools import partial
from math import gcd

import numpy as np

from pipeline.errors import ParamsError
from pipeline.features.encoders.encoder import Computed
from pipeline.features.encoders.extractor import Clip, Extractor, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Count, Group, Positive

from . import sound

RATE = 16000


@dataclass(frozen=True)
class Prepare:
    """Clip → `samples` (1, length) float32 at `rate` per second."""

    rate: int
    length: int

    def __call__(self, clip: Clip) -> Prepared:
        from scipy.signal import resample_poly

        heard = sound.waveform(clip, RATE)
        shared = gcd(self.rate, RATE)
        samples = np.asarray(resample_poly(heard, self.rate // shared, RATE // shared), np.float32)[: self.length]
        row = np.pad(samples, (0, self.length - len(samples)))[None]
        seen = min(len(heard) / RATE, self.length / self.rate)
        return Prepared({"samples": row}, np.array([[0.0, seen]], np.float32))

    @property
    def modules(self) -> tuple[str, ...]:
        """What a worker imports for it."""
        return __name__, "scipy.signal"


class Waveform(Family):
    """The samples themselves; see the module."""

    title = "Raw waveform (no network)"
    modalities = ("audio",)
    sources = ("none",)

    class Options(Group):
        """Of a stream: the first `seconds` of a clip, `rate` samples of each."""

        seconds: Positive = 4.0
        rate: Count = 4000

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream: one row per clip.

        Raises:
            ParamsError: a layer, more samples per second than were decoded, or not one sample.
        """
        if stream.layer != -1:
            raise ParamsError("a waveform has no layers; leave layer at -1.")
        if options.rate > RATE:
            raise ParamsError(f"waveform.options.rate {options.rate} is more than the {RATE} that sound is decoded at.")
        length = round(float(options.seconds) * options.rate)
        if length < 1:
            raise ParamsError(f"waveform.options: {options.seconds:g} seconds at {options.rate} a second hold no sample.")
        identity = {
            "weights": {"source": "none", "versions": {"scipy": importlib.metadata.version("scipy")}},
            "preprocessing": {"from": RATE, "rate": options.rate, "length": length},
        }
        return Extractor(identity, Prepare(options.rate, length), partial(Computed, "samples"), budget=64.0)
