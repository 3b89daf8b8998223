"""What is said about one raw file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.errors import UserError
from pipeline.runs.predict import Estimate
from pipeline.storage.feature_store import Status


@dataclass(frozen=True)
class StreamUse:
    """What one stream gave: its rows, or why it has none; and how much it counted, where the fusion says so."""

    status: Status
    rows: int = 0
    reason: str = ""
    share: float | None = None


class NothingRead(UserError):
    """Not one of a model's streams can be had from a file.

    Attributes:
        reason: `failed` where an encoder or a decoder did, else `no_modality`.
        detail: what each stream lacks.
    """

    def __init__(self, path: str, use: Mapping[str, StreamUse]) -> None:
        self.reason = "failed" if any(one.status == Status.FAILED for one in use.values()) else "no_modality"
        self.detail = "; ".join(f"{name}: {one.reason}" for name, one in use.items())
        super().__init__(f"{path} has nothing this model can read ({self.detail}).")


@dataclass(frozen=True)
class Prediction:
    """What the model says about one file, the mean of its seeds or of the ensemble.

    Attributes:
        emotions: class → probability, likeliest first; empty when the model has no classes.
        dimensions: `valence`, `arousal`, … in [-1, 1]; empty when the model has none.
        times: (T, 2) seconds of the trace. trace: dimension → (T,). Empty when the model predicts per
            clip, or the stream along which it predicts is missing.
        spread: dimension → (T,) standard deviation of the trace; empty when the model does not say how sure it is.
        streams: use of every stream of the model.
        random: streams whose encoder has random weights: their features mean nothing.
        models: how many trained models (seeds, with the ensemble also the linear one) were averaged.
        heard: words that were recognised because none were given; None when nobody listened.
    """

    path: str
    duration: float
    emotions: dict[str, float]
    dimensions: dict[str, float]
    times: np.ndarray
    trace: dict[str, np.ndarray]
    streams: dict[str, StreamUse]
    random: tuple[str, ...]
    models: int
    heard: str | None = None
    spread: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def valence(self) -> float | None:
        return self.dimensions.get("valence")

    @property
    def arousal(self) -> float | None:
        return self.dimensions.get("arousal")


def name_chances(output: Estimate) -> dict[str, float]:
    """Class → probability, likeliest first."""
    chances = () if output.probabilities is None else zip(output.classes, output.probabilities.tolist(), strict=True)
    return dict(sorted(chances, key=lambda one: (-one[1], one[0])))


def name_values(output: Estimate) -> dict[str, float]:
    """Dimension → value in [-1, 1]."""
    return {} if output.dimensions is None else dict(zip(output.names, output.dimensions.tolist(), strict=True))


def describe(
    path: str,
    duration: float,
    output: Estimate,
    use: dict[str, StreamUse],
    random: tuple[str, ...],
    models: int,
    heard: str | None,
) -> Prediction:
    """An estimate of a file, by name."""
    times, trace = np.empty((0, 2), np.float32), dict[str, np.ndarray]()
    if output.trace is not None and output.times is not None:
        times, trace = output.times, {name: output.trace[:, k] for k, name in enumerate(output.names)}
    return Prediction(
        path=path,
        duration=duration,
        emotions=name_chances(output),
        dimensions=name_values(output),
        times=times,
        trace=trace,
        streams=use,
        random=random,
        models=models,
        heard=heard,
        spread={} if output.spread is None else {name: output.spread[:, k] for k, name in enumerate(output.names)},
    )
