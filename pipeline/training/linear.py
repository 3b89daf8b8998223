"""Fitting the linear model: logistic regression for classes, ridge for dimensions.

Standardised statistics, streams scaled to weigh the same whatever their width, and everything that is not held out: nothing
is chosen on validation clips, so they are learned from too.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ParamsError, StoreError, one_of
from pipeline.models.linear import LinearModel
from pipeline.models.model import ModelSpec
from pipeline.params import Params

from .data.dataset import Dataset
from .state import Progress

#: λ of mean squared error + λ ‖W‖² that a dimension may have.
PENALTIES = np.logspace(-1, 4, 16)


def fit_linear(spec: ModelSpec, data: Dataset, params: Params) -> tuple[LinearModel, Progress]:
    """Fit on the fold's `train` and `val` clips; `test` clips are not touched. The same data give the same model.

    With weights W the fixed penalty λ of the classes is that of: mean cross entropy + λ/2 ‖W‖²; the bias is free. That of a
    dimension is one of `PENALTIES`, by the error of each clip left out in turn (in closed form; Golub, Heath and Wahba 1979): a
    squared error does not level off as the cross entropy does, and with few clips a fixed λ is off by a factor of ten.

    Raises:
        StoreError: no labelled clip, or all of one class.
        ParamsError: a weight for a stream that is not there.
    """
    chosen = params.training.linear
    assert chosen is not None, "no linear model was asked for"
    if unknown := sorted(set(chosen.weights) - set(params.streams)):
        raise one_of("stream in training.linear.weights", unknown[0], params.streams)
    names = tuple(spec.streams)
    rows = data.rows("train", "val")
    rows = rows[(data.labelled() & data.present(names))[rows]]
    if not len(rows):
        raise StoreError(f"fold {data.fold} has no labelled clip to learn from; see `protocol` in params.yaml.")
    model = LinearModel(spec).to(rows.device)
    pooled, present = (
        torch.cat(part) for part in zip(*(model.pool(batch) for batch in data.batches(rows, names, size=256)), strict=True)
    )
    _standardise(model, pooled, present, {name: float(chosen.weights.get(name, 1.0)) for name in names})
    vectors = model.embed(pooled, present).double().cpu().numpy()
    losses = []
    if "emotion" in model.heads:
        losses.append(_fit_classes(model, vectors, data.emotion[rows].cpu().numpy(), float(chosen.penalty), data.fold))
    if "dimensions" in model.heads:
        losses.append(_fit_dimensions(model, vectors, data.dimensions[rows].double().cpu().numpy()))
    record: dict[str, float | str] = {"phase": "linear", "epoch": 1, "train_loss": math.fsum(losses), "val_loss": math.nan}
    progress = Progress(epoch=1, best_epoch=1, history=[record | {f"val_{params.training.select}": math.nan}])
    progress.key = (math.nan, math.nan)
    return model.eval(), progress


def _standardise(model: LinearModel, pooled: Tensor, present: Tensor, weights: dict[str, float]) -> None:
    """Zero mean and unit deviation over the clips that have the stream; a stream of d numbers times sqrt(weight · widest / d)."""
    sizes = model.measure()
    at = 0
    for place, (name, size) in enumerate(sizes.items()):
        block = pooled[present[:, place], at : at + size].double()
        if len(block):
            deviation = block.std(0, unbiased=False)
            # What does not vary over the clips says nothing; what is left of rounding must not be blown up.
            flat = deviation < 1e-6 * block.abs().amax(0).clamp(min=1e-6)
            model.centre[at : at + size] = block.mean(0).float()
            block_scale = math.sqrt(weights[name] * max(sizes.values()) / size)
            model.scale[at : at + size] = torch.where(flat, 0.0, block_scale / deviation.clamp(min=1e-12)).float()
        at += size


def _fit_classes(model: LinearModel, vectors: np.ndarray, truth: np.ndarray, penalty: float, fold: int) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known = truth >= 0
    seen = np.unique(truth[known])
    if len(seen) < 2:
        raise StoreError(f"fold {fold} has clips of one class alone to learn from; see `protocol` in params.yaml.")
    regression = LogisticRegression(C=1 / (penalty * known.sum()), max_iter=2000, tol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            regression.fit(vectors[known], truth[known])
        except ConvergenceWarning as error:
            raise ParamsError(
                f"the linear model did not settle in 2000 steps (penalty {penalty:g}); set training.linear.penalty higher."
            ) from error
    two = len(seen) == 2  # then the library keeps one row, of the second class against the first
    weight = np.concatenate([-regression.coef_ / 2, regression.coef_ / 2]) if two else regression.coef_
    bias = np.concatenate([-regression.intercept_ / 2, regression.intercept_ / 2]) if two else regression.intercept_
    # A class that nobody showed is never the answer.
    count = len(model.spec.classes)
    every, lowest = np.zeros((count, vectors.shape[1])), np.full(count, bias.min() - 30)
    every[seen], lowest[seen] = weight, bias
    _put(model, "emotion", every, lowest)
    chance = regression.predict_proba(vectors[known])
    return float(-np.log(np.clip(chance[np.arange(known.sum()), np.searchsorted(seen, truth[known])], 1e-12, None)).mean())


def _fit_dimensions(model: LinearModel, vectors: np.ndarray, truth: np.ndarray) -> float:
    from sklearn.linear_model import RidgeCV

    count = truth.shape[1]
    weight, bias, errors = np.zeros((count, vectors.shape[1])), np.zeros(count), []
    for place in range(count):
        known = np.isfinite(truth[:, place])
        if not known.any():
            continue
        ridge = RidgeCV(alphas=PENALTIES * known.sum()).fit(vectors[known], truth[known, place])
        weight[place], bias[place] = ridge.coef_, ridge.intercept_
        errors.append(float(np.mean((ridge.predict(vectors[known]) - truth[known, place]) ** 2)))
    _put(model, "dimensions", weight, bias)
    return float(np.mean(errors)) if errors else 0.0


def _put(model: LinearModel, head: str, weight: np.ndarray, bias: np.ndarray) -> None:
    model.load_state_dict(
        {f"heads.{head}.weight": torch.from_numpy(weight).float(), f"heads.{head}.bias": torch.from_numpy(bias).float()},
        strict=False,
    )
