"""What an exported model says, and the mean of what several networks say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from pipeline.models.batch import Outputs
from pipeline.runs.predict import read_spread


@dataclass
class AffectoryOutput(ModelOutput):
    """What is said of R clips.

    Attributes:
        logits: (R, C) of one network its logits, of several the logarithm of their mean probability; None without classes.
        probabilities: (R, C), the mean over the networks.
        dimensions: (R, K) in [-1, 1], or None.
        trace: (R, T, K) along the base stream, or None. spread: its standard deviation, where a model says how sure it is.
        shares: (R, M) how much each stream counts, or None.
    """

    logits: Tensor | None = None
    probabilities: Tensor | None = None
    dimensions: Tensor | None = None
    trace: Tensor | None = None
    spread: Tensor | None = None
    shares: Tensor | None = None


def average(each: Sequence[Outputs], weights: Sequence[float]) -> AffectoryOutput:
    """The mean of what the networks say, see `runs.predict.average`; what only some of them give is the mean of those.

    Args:
        weights: what each network is worth.
    """

    def mean(found: Sequence[Tensor | None]) -> Tensor | None:
        there = [(x, w) for x, w in zip(found, weights, strict=True) if x is not None]
        if not there:
            return None
        return sum((x * w for x, w in there), torch.zeros(())) / sum(w for _, w in there)

    chances = mean([one["emotion"].softmax(-1) if "emotion" in one else None for one in each])
    logits = None if chances is None else each[0]["emotion"] if len(each) == 1 else chances.clamp(min=1e-30).log()
    trace, spreads = mean([one.get("frames") for one in each]), [read_spread(one, "frames") for one in each]
    square = mean([None if s is None else one["frames"].square() + s.square() for one, s in zip(each, spreads, strict=True)])
    centre = mean([None if s is None else one["frames"] for one, s in zip(each, spreads, strict=True)])
    return AffectoryOutput(
        logits=logits,
        probabilities=chances,
        dimensions=mean([one.get("dimensions") for one in each]),
        trace=trace,
        spread=None if square is None or centre is None else (square - centre.square()).clamp(min=0).sqrt(),
        shares=mean([one.get("shares") for one in each]),
    )
