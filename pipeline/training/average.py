"""Averaged weights: what a run's steps have in common is judged and saved, not where its last step fell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.models.batch import Inputs, Outputs
from pipeline.models.model import EmotionModel

from .state import Progress


def average(progress: Progress, model: EmotionModel, decay: float) -> None:
    """Move the average towards the weights after a step, w̄ ← d w̄ + (1 - d) w (Polyak & Juditsky 1992; Tarvainen & Valpola 2017).

    d is the least of `decay` and (1 + n) / (10 + n) after n steps, so that the random weights of the start are soon forgotten.
    """
    now = model.trainable()
    if not progress.average:
        progress.average = {name: value.clone() for name, value in now.items()}
        return
    progress.steps += 1
    moving = [name for name, value in now.items() if value.is_floating_point()]
    mean, latest = ([part[name] for name in moving] for part in (progress.average, now))
    share = min(decay, (1 + progress.steps) / (10 + progress.steps))
    get_ema_multi_avg_fn(share)(mean, latest, progress.steps)
    for name in now.keys() - set(moving):  # counters of normalisation layers
        progress.average[name].copy_(now[name])


@contextmanager
def averaged(model: EmotionModel, weights: dict[str, Tensor]) -> Iterator[None]:
    """Have the model hold the averaged weights, where there are any, and then its own again."""
    if not weights:
        yield
        return
    own = {name: value.clone() for name, value in model.trainable().items()}
    model.load_trainable(weights)
    try:
        yield
    finally:
        model.load_trainable(own)


@torch.no_grad()
def lag(model: EmotionModel, weights: dict[str, Tensor], inputs: Inputs) -> Outputs:
    """What the averaged weights make of a batch, as in training (the key encoder of He et al. 2020)."""
    found: Outputs = torch.func.functional_call(model, weights, (inputs,))
    return found
