"""Predictions of a trained model: of batches in order, and of one clip's raw features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.models.batch import Inputs, Outputs, Tokens, drop_streams, is_over_time, name_variance
from pipeline.models.model import Model
from pipeline.models.windows import cut_clip, join_windows, thin

from .inputs import Before, Features, make_inputs
from .run import TrainedModel

#: What of an estimate is averaged as it is.
MEANS = ("probabilities", "dimensions", "trace", "times", "shares")
#: Windows of a clip that are read at a time.
BATCH = 64


@dataclass(frozen=True)
class Estimate:
    """What a model says about one clip.

    Attributes:
        probabilities: (C,) in the order of `classes`, or None.
        dimensions: (K,) in [-1, 1] in the order of `names`, or None.
        trace: (T, K) along the base stream, or None (per clip only, or that stream is missing).
        times: (T, 2) seconds of the trace, or None.
        shares: (M,) how much each stream counted, in the order of the model's streams, or None where the fusion does not say.
        spread: (T, K) standard deviation of the trace, or None where the model does not say how sure it is.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    probabilities: np.ndarray | None
    dimensions: np.ndarray | None
    trace: np.ndarray | None
    times: np.ndarray | None
    shares: np.ndarray | None = None
    spread: np.ndarray | None = None

    @property
    def emotion(self) -> str | None:
        """The likeliest class."""
        return None if self.probabilities is None else self.classes[int(self.probabilities.argmax())]


@torch.inference_mode()
def predict_batches(model: Model, batches: Iterable[Inputs], drop: Iterable[str] = ()) -> Outputs:
    """Outputs of all batches, in order, as one batch; what goes over time is padded to the longest.

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
        if is_over_time(name):
            longest = max(v.shape[1] for v in values)
            values = [nn.functional.pad(v, (0, 0, 0, longest - v.shape[1])) for v in values]
        joined[name] = torch.cat(values)
    return joined


def read_spread(outputs: Outputs, name: str) -> Tensor | None:
    """The standard deviation of each value of the output `name`; None where the model does not say how sure it is."""
    said = outputs.get(name_variance(name))
    return None if said is None else (said / 2).exp()


def average_views(views: list[Outputs]) -> Outputs:
    """One prediction from those of several views of the same clips: mean probability, mean value.

    What goes over time, and what is no prediction, is that of the clips as they are, which come first.
    """
    first = views[0]
    if len(views) == 1:
        return first
    averaged = dict(first)
    for name in first:
        kind = name.partition("@")[0]
        if kind == "emotion":
            averaged[name] = torch.stack([view[name].log_softmax(-1) for view in views]).logsumexp(0) - math.log(len(views))
        elif kind == "dimensions":
            averaged[name] = torch.stack([view[name] for view in views]).mean(0)
    return averaged


def predict_clip(run: TrainedModel, features: dict[str, Features], before: Sequence[Before] = (), voice: int = 0) -> Estimate:
    """What the model says of one clip from raw features; see `make_inputs`."""
    return predict_inputs(run, make_inputs(run, features, before, voice))


@torch.inference_mode()
def ask_model(model: Model, inputs: Inputs) -> Outputs:
    """Outputs of the clips of a batch; a clip longer than the model's window, alone in it, is read in windows."""
    window, streams = model.spec.window, inputs.streams
    if window is None:
        return model(inputs)
    cut = cut_clip(streams, model.spec.base, window) if len(next(iter(streams.values())).mask) == 1 else None
    if cut is None:
        return model(inputs._replace(streams={name: thin(one, window.most) for name, one in streams.items()}))
    windows, first, length = cut
    parts = []
    for place in torch.arange(len(first)).split(BATCH):
        parts.append(model(Inputs({name: Tokens(*(x[place] for x in one)) for name, one in windows.streams.items()})))
    return join_windows(join_outputs(parts), torch.zeros_like(first), first, torch.tensor([length]), window)


def predict_inputs(run: TrainedModel, inputs: Inputs) -> Estimate:
    """What the model says of the one clip that these inputs are about, the last of them."""
    spec, outputs = run.model.spec, ask_model(run.model, inputs)
    tokens = {name: Tokens(*(one[-1:] for one in part)) for name, part in inputs.streams.items()}
    seen = spec.base is not None and "frames" in outputs and bool(tokens[spec.base].present)
    here = tokens[spec.base].mask[0] if spec.base is not None else slice(0)  # an earlier turn may be longer

    def first(name: str) -> Tensor | None:
        return outputs[name][0] if name in outputs else None

    logits, dimensions, sure = first("emotion"), first("dimensions"), read_spread(outputs, "frames")
    return Estimate(
        classes=spec.classes,
        names=spec.dimensions,
        probabilities=None if logits is None else logits.softmax(0).numpy(),
        dimensions=None if dimensions is None else dimensions.numpy(),
        trace=outputs["frames"][0][here].numpy() if seen else None,
        times=tokens[spec.base].times[0][here].numpy() if seen and spec.base else None,
        shares=outputs["shares"][0].numpy() if "shares" in outputs else None,
        spread=sure[0][here].numpy() if seen and sure is not None else None,
    )


def average(estimates: Sequence[Estimate], weights: Sequence[float] | None = None) -> Estimate:
    """The mean of several models' estimates of one clip; what only some of them give is the mean of those.

    Args:
        weights: of each model; None = all alike.
    """

    def mean(values: Sequence[np.ndarray | None]) -> np.ndarray | None:
        given = [place for place, value in enumerate(values) if value is not None]
        if not given:
            return None
        alike = weights is None or len({weights[i] for i in given}) == 1
        return np.average([values[i] for i in given], 0, None if alike or weights is None else [weights[i] for i in given])

    # A mixture: what the models give, and how far apart they are.
    sure = [None if one.spread is None or one.trace is None else (one.trace, one.spread) for one in estimates]
    centre = mean([None if one is None else one[0] for one in sure])
    square = mean([None if one is None else one[0] ** 2 + one[1] ** 2 for one in sure])
    means = {name: mean([getattr(e, name) for e in estimates]) for name in MEANS}
    spread = None if centre is None or square is None else np.sqrt(np.maximum(square - centre**2, 0))
    return Estimate(estimates[0].classes, estimates[0].names, **means, spread=spread)


def average_looks(estimates: list[Estimate]) -> Estimate:
    """The mean of what is said of one clip seen in several ways; over time, what is said of it as it is.

    Args:
        estimates: the plain clip's first.
    """
    plain = estimates[0]

    def mean(values: list[np.ndarray | None]) -> np.ndarray | None:
        there = [one for one in values if one is not None]
        return np.mean(there, 0) if there else None

    return replace(
        plain,
        probabilities=mean([one.probabilities for one in estimates]),
        dimensions=mean([one.dimensions for one in estimates]),
    )
