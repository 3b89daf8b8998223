"""An extractor: a frozen identity and two functions (docs/architecture.md).

prepare(clip)  decoded clip → model inputs; CPU, runs in worker processes, picklable, no torch.nn
forward(batch) list of prepared clips → list of features; on the device, inference mode
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np


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


@dataclass(frozen=True)
class Prepared:
    """Inputs of one clip, ready for the device.

    Attributes:
        inputs: arrays by name; their meaning is the family's own.
        times: (T, 2) seconds of the rows `forward` will return, or (2,) when T is not yet known:
            start and end of the whole clip.
        cost: size in the family's unit (frames, seconds, tokens), for batches by budget.
        bucket: clips of different buckets never share a batch (exact length for GroupNorm models).
    """

    inputs: dict[str, np.ndarray]
    times: np.ndarray
    cost: float = 1.0
    bucket: Hashable = None


class Missing(Exception):
    """Raised by `prepare`: the clip lacks what the encoder needs. It becomes a mask, not a failure."""


@dataclass(frozen=True)
class Extractor:
    """What the engine runs.

    Attributes:
        identity: all that decides the feature, as JSON values: family, weights and their sha256,
            preprocessing, layer, pooling, rate, dtype, library versions.
        prepare: Clip → Prepared; picklable. May raise `Missing`.
        load: () → forward, called once per device process. `forward(list[Prepared])` returns one
            `(values (T, ...) float32, times (T, 2) float32)` per clip, in order, and does not
            depend on the clip's neighbours in the batch.
        budget: the largest sum of `Prepared.cost` in one batch that is sensible by default.
    """

    identity: dict
    prepare: Callable[[Clip], Prepared]
    load: Callable[..., Callable[[Sequence[Prepared]], list[tuple[np.ndarray, np.ndarray]]]]
    budget: float = 64.0
    notes: dict[str, object] = field(default_factory=dict)
