"""Predictions of resident clips: the mean over their views, and over the windows of long ones."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pipeline.models.batch import Outputs, drop_streams
from pipeline.models.model import Model
from pipeline.models.windows import join_windows
from pipeline.runs.predict import average_views, join_outputs, predict_batches

from .dataset import Dataset
from .windows import find_leads, walk_windows


def count_views(data: Dataset, names: Iterable[str]) -> int:
    """In how many ways these streams are there: as they are, and in their views."""
    return 1 + max(len(data.streams[name].views) for name in names)


def predict_views(model: Model, data: Dataset, rows: Tensor, drop: Iterable[str] = (), *, size: int = 64) -> Outputs:
    """Outputs of the clips at `rows`, the mean over their views, see `average_views`.

    Args:
        data: as the model reads it. drop: streams that are missing in every clip.
    """
    views = range(count_views(data, model.spec.streams))
    return average_views([predict_view(model, data, rows, drop, size=size, view=view) for view in views])


@torch.inference_mode()
def predict_view(
    model: Model, data: Dataset, rows: Tensor, drop: Iterable[str] = (), *, size: int = 64, view: int = 0
) -> Outputs:
    """Outputs of the clips at `rows` in one view; of those longer than the model's window, of all their windows.

    What goes over time has a value for every token of the base stream.
    """
    spec = model.spec
    names = tuple(spec.streams)
    if spec.window is None:
        return predict_batches(model, data.batches(rows, names, spec.turns, size, view), drop)
    gone, streams = tuple(drop), {name: data.streams[name] for name in names}
    model.eval()
    parts, owners, firsts = [], [], []
    for owner, first, cut in walk_windows(streams, spec, rows, size):
        inputs = data.batch(rows[owner], names, view=view, cut=cut)
        parts.append(model(drop_streams(inputs, gone)))
        owners.append(owner)
        firsts.append(first)
    outputs = join_outputs(parts)
    if bool((find_leads(streams, spec.base, rows)[1] <= spec.window.tokens).all()):
        return outputs
    length = torch.zeros_like(rows) if spec.base is None or view else streams[spec.base].lengths[rows]
    return join_windows(outputs, torch.cat(owners), torch.cat(firsts), length, spec.window)
