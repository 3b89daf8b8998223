"""Raw features of a clip, and of the turns before it, as a trained model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pipeline.errors import StoreError, one_of
from pipeline.models.batch import History, Inputs, Tokens, leave_out_prompt, shorten
from pipeline.models.pooled import pool_tokens

from .run import TrainedModel

#: (T, D) or (T, N, D) values and (T, 2) seconds of one stream of a clip, as its extractor gives them.
Features = tuple[np.ndarray, np.ndarray]


def read_tokens(run: TrainedModel, features: dict[str, Features]) -> dict[str, Tokens]:
    """Raw features of one clip as a batch of one; streams left out, or without rows, are missing.

    Raises:
        StoreError: unknown stream, rows of another width than the model was trained on, or a model that reads features
            normalised over all clips of a speaker or session.
    """
    if (normalised := run.config["normalise"]) not in ("none", "train"):
        raise StoreError(
            f"this model reads features normalised over all clips of a {normalised}, which one clip has not; "
            "train with training.normalise train to predict single clips."
        )
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
        if spec.pooling != "states":
            if spec.prompted:
                values, times = leave_out_prompt(values, times)
            mean, std = run.normalisation[name]
            limit = None if spec.prompted else run.config["max_tokens"]
            values, times = shorten((values - mean) / std, times, limit or len(values))
        here = len(values) > 0
        tokens = Tokens(
            torch.from_numpy(values if here else np.zeros((1, *shape), np.float32)).float()[None],
            torch.full((1, max(1, len(values))), here),
            torch.from_numpy(times if here else np.zeros((1, 2), np.float32)).float()[None],
        )
        result[name] = pool_tokens(tokens, spec.pooling, spec.axis)
    return result


@dataclass(frozen=True)
class Before:
    """A turn before a clip.

    Attributes:
        features: raw, of what is known of it.
        voice: who speaks, as in `History.voices`.
    """

    features: dict[str, Features]
    voice: int = -1


def make_inputs(run: TrainedModel, features: dict[str, Features], before: Sequence[Before] = (), voice: int = 0) -> Inputs:
    """One clip from raw features (see `read_tokens`), with the turns before it, oldest first, that the model's context takes."""
    window = run.model.spec.turns[0]
    turns = list(before)[-window:] if window else []
    each = [read_tokens(run, turn.features) for turn in turns] + [read_tokens(run, features)]
    streams = {name: join_tokens([tokens[name] for tokens in each]) for name in each[0]}
    if not turns:
        return Inputs(streams)
    voices = torch.tensor([[*(turn.voice for turn in turns), voice]])
    return Inputs(streams, history=History(torch.arange(len(each))[None], voices, len(turns)))


def join_tokens(parts: list[Tokens]) -> Tokens:
    """Clips as one batch, padded to the longest."""
    longest = max(part.mask.shape[1] for part in parts)
    padded = []
    for part in parts:
        room = longest - part.mask.shape[1]
        padded.append(Tokens(*(nn.functional.pad(one, (0, 0) * (one.dim() - 2) + (0, room)) for one in part)))
    return Tokens(*(torch.cat(one) for one in zip(*padded, strict=True)))
