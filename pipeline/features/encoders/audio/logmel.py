"""Log-mel spectrogram: the baseline every learned audio encoder is measured against."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from pipeline.errors import ParamsError
from pipeline.features.encoders import pooling
from pipeline.features.encoders.encoder import Computed
from pipeline.features.encoders.extractor import Clip, Extractor, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream
from pipeline.params.base import Count, Flag, Group

from . import mel, sound

RATE = 16000
SIZE, HOP = 400, 160  # 25 ms windows, 100 per second


@dataclass(frozen=True)
class Prepare:
    """Clip → `mel` (F, bins) float32, natural logarithm of the power, floored at -23 (100 dB under full scale)."""

    bins: int
    normalise: bool
    bank: np.ndarray = field(repr=False, compare=False)

    def __call__(self, clip: Clip) -> Prepared:
        samples = sound.waveform(clip, RATE)
        duration = len(samples) / RATE
        count = max(1, len(samples) // HOP)
        padded = np.pad(samples, (0, max(0, SIZE - len(samples))))
        log = np.log(np.maximum(mel.power(padded, SIZE, HOP, self.bank)[:, :count], 1e-10)).T
        if self.normalise:
            log = log - log.mean(0)
        return Prepared({"mel": log.astype(np.float32)}, pooling.frame_times(count, RATE / HOP, duration), cost=duration)


class Logmel(Family):
    """Log-mel spectrogram; see the module."""

    title = "Log-mel spectrogram (no network)"
    modalities = ("audio",)
    sources = ("none",)

    class Options(Group):
        """Of a stream."""

        bins: Count = 40
        #: Subtract each bin's mean over the clip, which removes the channel and the loudness.
        normalise: Flag = False

    @classmethod
    def build(cls, stream: Stream, options: Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            ParamsError: a layer, or more bins than the window tells apart.
        """
        if stream.layer != -1:
            raise ParamsError("a log-mel spectrogram has no layers; leave layer at -1.")
        if options.bins > 80:
            raise ParamsError(f"bins {options.bins} is out of range; 25 ms windows at 16 kHz tell 1 to 80 apart.")
        prepare = Prepare(options.bins, options.normalise, mel.bank(options.bins, SIZE, RATE))
        identity = {
            "weights": {"source": "none"},
            "preprocessing": {
                "rate": RATE,
                "window": SIZE,
                "hop": HOP,
                "bins": options.bins,
                "normalise": options.normalise,
            },
        }
        return Extractor(identity, prepare, partial(Computed, "mel"), budget=600.0)
