"""Fewer labels: the same clips, most of them without truth."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import torch
import xxhash

from pipeline.storage import tables

from .dataset import Dataset


def hide_labels(data: Dataset, share: float, seed: int) -> Dataset:
    """The same clips with the labels of `share` of the labelled training clips, at least of one, and of no others.

    Whose stay is drawn by the seed; those of a smaller share are among those of a larger one. Validation keeps its labels.
    """
    train = np.flatnonzero((data.roles == "train") & data.labelled().cpu().numpy())
    drawn = sorted(train.tolist(), key=lambda i: xxhash.xxh3_64_intdigest(f"{seed}:{data.ids[i]}".encode()))
    hidden = torch.zeros(len(data.ids), dtype=torch.bool)
    hidden[drawn[math.ceil(share * len(drawn)) :]] = True
    gone = pl.Series(hidden.numpy())
    named = [name for name in tables.LABELS if name in data.table.columns]
    hidden = hidden.to(data.emotion.device)
    return replace(
        data,
        streams={name: stream.hide(hidden) for name, stream in data.streams.items()},
        emotion=data.emotion.masked_fill(hidden, -1),
        dimensions=data.dimensions.masked_fill(hidden[:, None], float("nan")),
        table=data.table.with_columns(pl.when(gone).then(None).otherwise(pl.col(name)).alias(name) for name in named),
        _readings={},
    )
