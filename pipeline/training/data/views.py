"""Predictions that average over the views of a clip."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from pipeline.models.batch import Outputs
from pipeline.models.model import Model
from pipeline.runs.predict import average_views, predict_batches

from .dataset import Dataset


def predict_views(model: Model, data: Dataset, rows: Tensor, drop: Iterable[str] = (), *, size: int = 64) -> Outputs:
    """Outputs of the clips at `rows`, the mean over their views, see `average_views`.

    Args:
        data: as the model reads it. drop: streams that are missing in every clip.
    """
    names, turns = tuple(model.spec.streams), model.spec.turns
    views = range(data.count_views(names))
    return average_views([predict_batches(model, data.batches(rows, names, turns, size, view), drop) for view in views])
