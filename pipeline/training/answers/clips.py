"""Predictions of one run."""

from __future__ import annotations

import torch

from pipeline.runs.run import TrainedModel
from pipeline.training.data.dataset import Dataset
from pipeline.training.data.views import predict_views

#: Clips predicted at a time.
BATCH = 128


def predict_test(
    run: TrainedModel, data: Dataset, rows: torch.Tensor, drop: frozenset[str] = frozenset()
) -> dict[str, torch.Tensor]:
    """Outputs of the clips at `rows`, with the streams `drop` missing in all of them; on the processor."""
    found = predict_views(run.model, data.read(run.model.spec.streams), rows, drop, size=BATCH)
    return {name: value.cpu() for name, value in found.items()}


def predict_rows(run: TrainedModel, data: Dataset, rows: torch.Tensor, drop: frozenset[str] = frozenset()) -> dict:
    """Columns `predicted`, `p_<class>`, one per dimension, and `share_<stream>` where a fusion gives them."""
    outputs, spec = predict_test(run, data, rows, drop), run.model.spec
    columns: dict[str, object] = {"id": [data.ids[i] for i in rows.tolist()]}
    if "emotion" in outputs:
        p = outputs["emotion"].softmax(1).numpy()
        columns["predicted"] = [spec.classes[i] for i in p.argmax(1)]
        columns |= {f"p_{name}": p[:, k] for k, name in enumerate(spec.classes)}
    if "dimensions" in outputs:
        columns |= {name: outputs["dimensions"][:, k].numpy() for k, name in enumerate(spec.dimensions)}
    if "shares" in outputs and len(run.streams) > 1:
        columns |= {f"share_{name}": outputs["shares"][:, k].numpy() for k, name in enumerate(run.streams)}
    return columns
