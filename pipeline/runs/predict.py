"""Predictions of a trained model: of batches in order, and of one clip's raw features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import StoreError, one_of
from pipeline.models.batch import Inputs, Outputs, Tokens, drop_streams, shorten
from pipeline.models.model import Model

from .run import TrainedModel

#: (T, D) or (T, L, D) values and (T, 2) seconds of one stream of a clip, as its extractor gives them.
Features = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Estimate:
    """What a model says about one clip.

    Attributes:
        probabilities: (C,) in the order of `classes`, or None.
        dimensions: (K,) in [-1, 1] in the order of `names`, or None.
        trace: (T, K) along the base stream, or None (per clip only, or that stream is missing).
        times: (T, 2) seconds of the trace, or None.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    probabilities: np.ndarray | None
    dimensions: np.ndarray | None
    trace: np.ndarray | None
    times: np.ndarray | None

    @property
    def emotion(self) -> str | None:
        """The likeliest class."""
        return None if self.probabilities is None else self.classes[int(self.probabilities.argmax())]


@torch.inference_mode()
def predict_batches(model: Model, batches: Iterable[Inputs], drop: Iterable[str] = ()) -> Outputs:
    """Outputs of all batches, in order, as one batch; `frames` are padded to the longest.

    Args:
        drop: streams treated as missing in every clip.
    """
    model.eval()
    return join_outputs([model(drop_streams(batch, drop)) for batch in batches])


def join_outputs(parts: list[Outputs]) -> Outputs:
    """Batches as one; what goes over time is padded with zeros to the longest."""
    joined = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        if name.partition("@")[0] == "frames":
            longest = max(v.shape[1] for v in values)
            values = [nn.functional.pad(v, (0, 0, 0, longest - v.shape[1])) for v in values]
        joined[name] = torch.cat(values)
    return joined


def read_tokens(run: TrainedModel, features: dict[str, Features]) -> dict[str, Tokens]:
    """Raw features of one clip as a batch of one; streams left out, or without rows, are missing.

    Raises:
        StoreError: unknown stream, or rows of another width than the model was trained on.
    """
    for name in features:
        if name not in run.streams:
            raise one_of("stream", name, run.streams, StoreError)
    result = {}
    for name, spec in run.model.spec.streams.items():
        shape = (spec.levels, spec.width) if spec.levels else (spec.width,)
        values, times = features.get(name) or (np.zeros((0, *shape)), np.zeros((0, 2)))
        values, times = np.asarray(values, np.float32), np.asarray(times, np.float32)
        if values.shape[1:] != shape:
            raise StoreError(
                f"stream {name!r} has rows of shape {values.shape[1:]}; this model was trained "
                f"on {shape}. Use the encoder it was trained with."
            )
        mean, std = run.normalisation[name]
        values, times = shorten((values - mean) / std, times, run.config["max_tokens"])
        here = len(values) > 0
        result[name] = Tokens(
            torch.from_numpy(values if here else np.zeros((1, *shape), np.float32)).float()[None],
            torch.full((1, max(1, len(values))), here),
            torch.from_numpy(times if here else np.zeros((1, 2), np.float32)).float()[None],
        )
    return result


@torch.inference_mode()
def predict_clip(run: TrainedModel, features: dict[str, Features]) -> Estimate:
    """What the model says of one clip from raw features (see `read_tokens`); a clip alone has no history."""
    tokens, spec = read_tokens(run, features), run.model.spec
    outputs = run.model(Inputs(tokens, history=torch.zeros(1, 1, dtype=torch.int64)))
    seen = spec.base is not None and "frames" in outputs and bool(tokens[spec.base].present)

    def first(name: str) -> Tensor | None:
        return outputs[name][0] if name in outputs else None

    logits, dimensions = first("emotion"), first("dimensions")
    return Estimate(
        classes=spec.classes,
        names=spec.dimensions,
        probabilities=None if logits is None else logits.softmax(0).numpy(),
        dimensions=None if dimensions is None else dimensions.numpy(),
        trace=outputs["frames"][0].numpy() if seen else None,
        times=tokens[spec.base].times[0].numpy() if seen and spec.base else None,
    )


def average(estimates: Sequence[Estimate], weights: Sequence[float] | None = None) -> Estimate:
    """The mean of several models' estimates of one clip; what only some of them give is the mean of those.

    Args:
        weights: of each model; None = all alike.
    """

    def mean(name: str) -> np.ndarray | None:
        values = [getattr(one, name) for one in estimates]
        given = [place for place, value in enumerate(values) if value is not None]
        if not given:
            return None
        alike = weights is None or len({weights[i] for i in given}) == 1
        return np.average([values[i] for i in given], 0, None if alike or weights is None else [weights[i] for i in given])

    return Estimate(
        estimates[0].classes,
        estimates[0].names,
        *(mean(name) for name in ("probabilities", "dimensions", "trace", "times")),
    )
