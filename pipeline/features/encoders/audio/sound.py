"""What every audio family asks of a clip before it is encoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline import weights
from pipeline.errors import ParamsError
from pipeline.features.encoders.extractor import Clip, Missing


def waveform(clip: Clip, rate: int) -> np.ndarray:
    """The clip's (S,) float32 mono waveform, S > 0.

    Raises:
        Missing: the clip has no sound.
        ParamsError: it was decoded at another rate than the encoder wants.
        ValueError: it holds NaN or infinity.
    """
    if clip.waveform is None or len(clip.waveform) == 0:
        raise Missing("no sound")
    if clip.rate != rate:
        raise ParamsError(
            f"clip {clip.id} was decoded at {clip.rate} Hz and this encoder wants {rate}; set decode.audio.rate to {rate}."
        )
    samples = np.asarray(clip.waveform, dtype=np.float32)
    if not np.isfinite(samples).all():
        raise ValueError("the waveform holds values that are not finite")
    return samples


def normalise_wave(samples: np.ndarray) -> np.ndarray:
    """Zero mean and unit variance over the clip, as wav2vec 2.0 front ends were trained with."""
    return (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)


def front(folder: Path) -> dict:
    """What a checkpoint says of its waveform front end: `preprocessor_config.json`, or the part of
    `processor_config.json` newer checkpoints keep it in. {} when it says nothing.

    Raises:
        WeightsError: the file is not a JSON object.
    """
    if found := weights.config(folder, "preprocessor_config.json"):
        return found
    nested = weights.config(folder, "processor_config.json").get("feature_extractor")
    return nested if isinstance(nested, dict) else {}
