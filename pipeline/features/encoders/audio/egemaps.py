"""openSMILE's eGeMAPS v02, where the optional package `opensmile` is installed (its own licence: not for every use).

`pooling: none` without a rate gives the 88 functionals of the clip; any pooling or rate pools the 25
low-level descriptors (100 per second).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pipeline.errors import ParamsError, WeightsError
from pipeline.features.encoders.encoder import Computed
from pipeline.features.encoders.extractor import Clip, Extractor, Missing, Prepared
from pipeline.features.encoders.family import Family
from pipeline.params import Stream

from . import sound

RATE = 16000
PACKAGE = "opensmile"


@dataclass(frozen=True)
class Prepare:
    """Clip → `values` (T, 25) descriptors or (1, 88) functionals, float32."""

    functionals: bool

    def __call__(self, clip: Clip) -> Prepared:
        samples = sound.waveform(clip, RATE)
        table = _smile(self.functionals).process_signal(samples, RATE)
        values = table.to_numpy(dtype=np.float32)
        if len(values) == 0 or not np.isfinite(values).any():
            raise Missing("the clip is too short for openSMILE")
        # A functional of something that never occurs in the clip (no voiced part) is undefined: openSMILE's own 0.
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        duration = len(samples) / RATE
        if self.functionals:
            times = np.array([[0.0, duration]], np.float32)
        else:
            starts, ends = (table.index.get_level_values(name).total_seconds() for name in ("start", "end"))
            times = np.stack([starts, ends], 1).astype(np.float32)
        return Prepared({"values": values}, times, cost=duration)


@lru_cache(maxsize=2)
def _smile(functionals: bool) -> Any:
    import opensmile

    level = opensmile.FeatureLevel.Functionals if functionals else opensmile.FeatureLevel.LowLevelDescriptors
    return opensmile.Smile(feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=level)


class Egemaps(Family):
    """openSMILE's eGeMAPS; see the module."""

    title = "openSMILE eGeMAPS v02 (optional package)"
    modalities = ("audio",)
    sources = ("none",)

    @classmethod
    def build(cls, stream: Stream, options: Family.Options) -> Extractor:
        """The extractor of one stream.

        Raises:
            WeightsError: the package is not installed.
            ParamsError: a layer.
        """
        if stream.layer != -1:
            raise ParamsError("eGeMAPS has no layers; leave layer at -1.")
        if importlib.util.find_spec(PACKAGE) is None:
            raise WeightsError("eGeMAPS needs the optional package opensmile; mind its licence and run `pip install opensmile`.")
        functionals = stream.pooling == "none" and stream.rate is None
        identity = {
            "weights": {"source": "none", "versions": {PACKAGE: importlib.metadata.version(PACKAGE)}},
            "preprocessing": {"rate": RATE, "set": "eGeMAPSv02", "functionals": functionals},
        }
        return Extractor(identity, Prepare(functionals), Computed, budget=600.0)
