"""A clip seen otherwise: what an encoder is given, and which seconds of the clip its rows then are.

A view changes the decoded clip before the family prepares it, and nothing after: what holds of plain rows (alone as in a batch,
pooling, rates) holds of a view's. Speed perturbation: Ko et al. 2015, Audio augmentation for speech recognition.
"""

from __future__ import annotations

import importlib.metadata
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from pipeline.code import code_digest
from pipeline.errors import ParamsError
from pipeline.params import Stream
from pipeline.params.views import read_speed, read_tint
from pipeline.storage.jpeg import decode

from .extractor import Clip, Extractor, Prepared


@dataclass(frozen=True)
class Faster:
    """The sound played `factor` times as fast, its pitch with it: rows at t seconds are of t · factor seconds of the clip."""

    factor: Fraction
    prepare: Callable[[Clip], Prepared]

    def __call__(self, clip: Clip) -> Prepared:
        if clip.waveform is None or len(clip.waveform) == 0:
            return self.prepare(clip)  # which says that it is missing
        length, factor = len(clip.waveform) / clip.rate, float(self.factor)
        waveform = play_faster(clip.waveform, self.factor)
        prepared = self.prepare(replace(clip, waveform=waveform, duration=len(waveform) / clip.rate))
        times = np.minimum(np.asarray(prepared.times, np.float64) * factor, length)
        return replace(prepared, times=times.astype(np.float32))

    @property
    def modules(self) -> tuple[str, ...]:
        """What a worker imports for it."""
        return type(self.prepare).__module__, "scipy.signal"


@dataclass(frozen=True)
class Repainted:
    """Every picture painted anew, the same way; a frame without a face is empty and stays so."""

    paint: Callable[[Image.Image], Image.Image]
    prepare: Callable[[Clip], Prepared]
    mirrored: bool = False

    def __call__(self, clip: Clip) -> Prepared:
        frames = None if clip.frames is None else [repaint(data, self.paint) if len(data) else data for data in clip.frames]
        places = mirror_places(clip.places) if clip.places is not None and self.mirrored else clip.places
        return self.prepare(replace(clip, frames=frames, places=places))

    @property
    def modules(self) -> tuple[str, ...]:
        """What a worker imports for it."""
        return (type(self.prepare).__module__,)


@dataclass(frozen=True)
class Tint:
    """A picture with `factor` times its brightness, contrast or saturation, as Pillow's enhancers do it."""

    kind: str
    factor: float

    def __call__(self, picture: Image.Image) -> Image.Image:
        return TINTS[self.kind](picture).enhance(self.factor)


TINTS = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color}


def play_faster(waveform: np.ndarray, factor: Fraction) -> np.ndarray:
    """(S,) → (⌈S / factor⌉,) float32: the same sound at another speed, without aliases (polyphase, Kaiser window)."""
    from scipy.signal import resample_poly

    samples = np.asarray(waveform, np.float32)
    return np.asarray(resample_poly(samples, factor.denominator, factor.numerator), np.float32)


def repaint(data: bytes, paint: Callable[[Image.Image], Image.Image]) -> bytes:
    """A picture painted anew: bytes that lose nothing, where JPEG would once more."""
    buffer = io.BytesIO()
    paint(decode(data)).save(buffer, "PPM")
    return buffer.getvalue()


def mirror_places(places: np.ndarray) -> np.ndarray:
    """Where what stands at (T, 4) left, top, right, bottom is in a mirrored picture.

    >>> mirror_places(np.array([[0.0, 0.25, 0.25, 0.5]])).tolist()
    [[0.75, 0.25, 1.0, 0.5]]
    """
    left, top, right, bottom = places.T
    return np.stack([1 - right, top, 1 - left, bottom], 1)


def see(extractor: Extractor, stream: Stream, view: str) -> Extractor:
    """The extractor of one view of a stream: what is encoded is another clip, and so is its identity.

    Args:
        view: one of `stream.views`, or another that the stream's modality has.

    Raises:
        ParamsError: pictures that are decoded on a GPU and never come by here.
    """
    identity: dict[str, Any] = {"code": code_digest(__name__)}
    prepare: Faster | Repainted
    if factor := read_speed(view):
        # As it is, not as it is written: speed:0.90 is encoded once.
        identity |= {"speed": float(factor), "scipy": importlib.metadata.version("scipy")}
        prepare = Faster(factor, extractor.prepare)
        return replace(extractor, identity=extractor.identity | {"view": identity}, prepare=prepare)
    if stream.options.get("decoder") == "nvjpeg":
        raise ParamsError(f"view {view}: pictures decoded by nvjpeg cannot be changed; set options.decoder to pillow.")
    if tint := read_tint(view):
        identity |= {tint[0]: float(tint[1]), "pillow": Image.__version__}
        prepare = Repainted(Tint(tint[0], float(tint[1])), extractor.prepare)
    else:
        identity |= {"mirror": True, "pillow": Image.__version__}
        prepare = Repainted(ImageOps.mirror, extractor.prepare, mirrored=True)
    return replace(extractor, identity=extractor.identity | {"view": identity}, prepare=prepare)
