"""A family of encoders: models that are loaded, fed and read the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.params import Stream

from .extractor import Extractor


@dataclass(frozen=True)
class Family:
    """One entry of the registry.

    Attributes:
        name: as in `encoder:` of a stream file.
        title: for people.
        modalities: which streams may use it.
        sources: weight schemes it loads (`hf`, `open_clip`, `timm`, `local`, `package`, `random`, `file`).
        build: Stream → Extractor. Cheap: it reads configuration and hashes weights, no network is
            built before `Extractor.load`. Raises WeightsError, ParamsError.
        options: keys it accepts in `Stream.options`, with their defaults; others are a ParamsError.
    """

    name: str
    title: str
    modalities: tuple[str, ...]
    sources: tuple[str, ...]
    build: Callable[[Stream], Extractor]
    options: dict[str, object]
