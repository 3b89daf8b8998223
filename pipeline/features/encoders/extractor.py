"""An extractor: a frozen identity and two functions (docs/architecture.md).

prepare(clip)         decoded clip → model inputs; CPU, runs in worker processes, picklable, no torch.nn
load(device=…)        → `Encoder`, whose `encode` takes a list of prepared clips to their rows on the device

Pooling is the engine's (`pipeline/features/engine/forward.py`), in one place for all families.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from pipeline.params.features import Layer

if TYPE_CHECKING:
    from .encoder import Encoder


#: What the N of rows (N, D) counts: hidden layers, each with a meaning of its own, or places of a picture, which have none.
Axis = Literal["layer", "space"]


@dataclass(frozen=True)
class Turn:
    """One earlier utterance of the dialogue."""

    speaker: str | None
    text: str | None


@dataclass(frozen=True)
class Clip:
    """A decoded clip as `prepare` sees it; a modality the clip lacks is None.

    Attributes:
        id: clip id.
        frames: JPEG bytes of the sampled frames (or face crops), in time order.
        frame_times: (T, 2) seconds, start and end of each frame.
        places: (T, 4) of face crops, where in the frame each was: left, top, right, bottom in shares of its width and height.
        waveform: (S,) float32 mono in [-1, 1] at `rate`.
        rate: samples per second.
        text: transcript.
        speaker: who speaks.
        context: earlier turns of the dialogue, oldest first.
        duration: seconds; null when nobody measured it (a text-only clip).
    """

    id: str
    frames: Sequence[bytes] | None = None
    frame_times: np.ndarray | None = None
    waveform: np.ndarray | None = None
    rate: int = 16000
    text: str | None = None
    speaker: str | None = None
    context: tuple[Turn, ...] = ()
    duration: float | None = None
    places: np.ndarray | None = None


@dataclass(frozen=True)
class Prepared:
    """Inputs of one clip, ready for the device.

    Attributes:
        inputs: arrays by name; their meaning is the family's own.
        times: (T, 2) seconds of the rows `Encoder.encode` will return.
        cost: size in the family's unit (frames, seconds, tokens), for batches by budget.
        bucket: clips of different buckets never share a batch (exact length for GroupNorm models).
        kept: where several streams share a pass, which of the rows each keeps, (T,) bool; empty where all keep all.
    """

    inputs: dict[str, np.ndarray]
    times: np.ndarray
    cost: float = 1.0
    bucket: Hashable = None
    kept: tuple[np.ndarray, ...] = ()


class Missing(Exception):
    """Raised by `prepare`: the clip lacks what the encoder needs. It becomes a mask, not a failure.

    Attributes:
        alone: of streams that share a pass, the first lacks it and another does not.
    """

    alone = False


@dataclass(frozen=True)
class Extractor:
    """What the engine runs.

    Attributes:
        identity: all that decides the feature, as JSON values: family, code, weights and their sha256,
            preprocessing, layer, pooling, rate, dtype, library versions. A family gives what is its own;
            `registry.build` adds what all have.
        prepare: Clip → Prepared; picklable. May raise `Missing`.
        load: (device=…) → `Encoder`, called once per device process. Of a layered family also (device=…, layers=…): a
            `Layered` encoder that reads these layers, as in `Stream.layer`, beside each other.
        budget: the largest sum of `Prepared.cost` in one batch that is sensible by default.
        layer, pooling: as in `Stream`; `layered` as of the family.
        rate: rows per second that rows are pooled to; None keeps them.
        threads: that the network computes with on a processor.
        turns: earlier turns of the dialogue that `prepare` reads.
        axis: what N is where rows are (N, D). A family says `space`; layers that are kept apart are seen by `registry.build`.
        notes: facts for the report that decide nothing.
    """

    identity: dict[str, Any]
    prepare: Callable[[Clip], Prepared]
    load: Callable[..., Encoder]
    budget: float = 64.0
    layer: Layer = -1
    layered: bool = False
    pooling: str = "none"
    rate: float | None = None
    threads: int = 1
    turns: int = 0
    axis: Axis | None = None
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def modules(self) -> tuple[str, ...]:
        """What `prepare` needs, for worker processes to have it imported once for all."""
        return getattr(self.prepare, "modules", (type(self.prepare).__module__,))
