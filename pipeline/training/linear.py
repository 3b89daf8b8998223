"""Fitting the linear model: logistic regression for classes, ridge for dimensions.

Standardised statistics, streams scaled to weigh the same whatever their width, and everything that is not held out: nothing
is chosen on validation clips, so they are learned from too. With `training.linear.context` the rows of earlier turns are read
beside a clip's own; a turn without a label, or in quarantine, among them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import StoreError
from pipeline.models.linear import LinearModel
from pipeline.models.pooled import Standardise
from pipeline.models.spec import ModelSpec
from pipeline.params import Params

from .adjustment import choose_shift, log_prior
from .data.dataset import Dataset
from .data.views import count_views, predict_views
from .logistic import fit_logistic
from .selection import name_measure
from .standardise import fit_statistics
from .state import Progress

#: Clips whose rows are gathered at a time.
CHUNK = 256

#: λ of mean squared error + λ ‖W‖² that a dimension may have.
PENALTIES = np.logspace(-1, 4, 16)


def fit_linear(spec: ModelSpec, data: Dataset, params: Params) -> tuple[LinearModel, Progress]:
    """Fit on the fold's `train` and `val` clips; `test` clips are not touched. The same data give the same model.

    With weights W the fixed penalty λ of the classes is that of: mean cross entropy + λ/2 ‖W‖²; the bias is free. That of a
    dimension is one of `PENALTIES`, by the error of each clip left out in turn (in closed form; Golub, Heath and Wahba 1979): a
    squared error does not level off as the cross entropy does, and with few clips a fixed λ is off by a factor of ten. Where
    a clip has views, each is a row of a fraction of its weight. With `training.tau`, a first model of the `train` clips alone
    chooses the shift on `val`.

    Args:
        data: as the model reads it.

    Raises:
        StoreError: no labelled clip, or all of one class.
        ParamsError: a weight for a stream that is not there.
    """
    assert params.training.linear is not None, "no linear model was asked for"
    usable = data.labelled() & data.present(spec.streams)
    train, val = (part[usable[part]] for part in (data.rows("train"), data.rows("val")))
    rows = torch.cat([train, val]).sort().values
    if not len(rows):
        raise StoreError(f"fold {data.fold} has no labelled clip to learn from; see `protocol` in params.yaml.")
    tau, measure = 0.0, name_measure(params.training.select, spec)
    prior = log_prior(data.emotion[rows], len(spec.classes))
    if params.training.tau and spec.classes and len(train) and len(val):
        first, _ = _fit_rows(spec, data, params, train)
        outputs, targets = predict_views(first, data, val), data.targets(val)
        tau = choose_shift(first, prior, outputs["emotion"], targets, params.training.tau, measure)
    model, loss = _fit_rows(spec, data, params, rows)
    model.shift.copy_(tau * prior)
    record: dict[str, float | str] = {"phase": "linear", "epoch": 1, "train_loss": loss, "val_loss": math.nan}
    progress = Progress(epoch=1, best_epoch=1, history=[record | {f"val_{measure}": math.nan}])
    progress.key = (math.nan, math.nan)
    return model.eval(), progress


def _fit_rows(spec: ModelSpec, data: Dataset, params: Params, rows: Tensor) -> tuple[LinearModel, float]:
    """The model learned from the clips at `rows`, and what is left of the loss."""
    chosen = params.training.linear
    assert chosen is not None
    model = LinearModel(spec).to(rows.device)
    parts = {name: part for name, part in model.standardise.items() if isinstance(part, Standardise)}
    fit_statistics(parts, spec, data, rows, params)
    views = count_views(data, spec.streams)
    vectors = torch.cat(
        [
            model.embed(batch)[0]
            for view in range(views)
            for batch in data.batches(rows, tuple(spec.streams), spec.turns, CHUNK, view)
        ]
    )
    found, losses = vectors.double().cpu().numpy(), []
    if "emotion" in model.heads:
        truth = data.emotion[rows].repeat(views).cpu().numpy()
        losses.append(_fit_classes(model, found, truth, float(chosen.penalty), data.fold))
    if "dimensions" in model.heads:
        losses.append(_fit_dimensions(model, found, data.dimensions[rows].repeat(views, 1).double().cpu().numpy(), views))
    return model, math.fsum(losses)


def _fit_classes(model: LinearModel, vectors: np.ndarray, truth: np.ndarray, penalty: float, fold: int) -> float:
    known = truth >= 0
    seen, places = np.unique(truth[known], return_inverse=True)
    if len(seen) < 2:
        raise StoreError(f"fold {fold} has clips of one class alone to learn from; see `protocol` in params.yaml.")
    weight, bias = fit_logistic(vectors[known], places, penalty)
    # A class that nobody showed is never the answer.
    count = len(model.spec.classes)
    every, lowest = np.zeros((count, vectors.shape[1])), np.full(count, bias.min() - 30)
    every[seen], lowest[seen] = weight, bias
    _put(model, "emotion", every, lowest)
    from scipy.special import softmax  # here, for networks do without scipy

    chance = softmax(vectors[known] @ weight.T + bias, axis=1)
    return float(-np.log(np.clip(chance[np.arange(len(places)), places], 1e-12, None)).mean())


def _fit_dimensions(model: LinearModel, vectors: np.ndarray, truth: np.ndarray, views: int) -> float:
    from sklearn.linear_model import Ridge, RidgeCV

    count = truth.shape[1]
    weight, bias, errors = np.zeros((count, vectors.shape[1])), np.zeros(count), []
    for place in range(count):
        known = np.isfinite(truth[:, place])
        if not known.any():
            continue
        # The views of a clip left out would tell of it: the penalty is that of the clips as they are.
        plain = known[: len(known) // views]
        chosen = RidgeCV(alphas=PENALTIES * plain.sum()).fit(vectors[: len(plain)][plain], truth[: len(plain), place][plain])
        ridge = chosen if views == 1 else Ridge(alpha=chosen.alpha_ * views).fit(vectors[known], truth[known, place])
        weight[place], bias[place] = ridge.coef_, ridge.intercept_
        errors.append(float(np.mean((ridge.predict(vectors[known]) - truth[known, place]) ** 2)))
    _put(model, "dimensions", weight, bias)
    return float(np.mean(errors)) if errors else 0.0


def _put(model: LinearModel, head: str, weight: np.ndarray, bias: np.ndarray) -> None:
    model.load_state_dict(
        {f"heads.{head}.weight": torch.from_numpy(weight).float(), f"heads.{head}.bias": torch.from_numpy(bias).float()},
        strict=False,
    )
