"""What a network makes of each instant: what it predicts there, how steadily it moves, and where it moves."""

from __future__ import annotations

import numpy as np
import polars as pl
from torch import Tensor

from pipeline.runs.answers import LOOKS, PATHS
from pipeline.runs.embed import compare_halves, embed_tokens
from pipeline.runs.predict import read_spread
from pipeline.runs.run import TrainedModel
from pipeline.training.data.dataset import Dataset

from .clips import predict_test

#: Clips embedded at a time.
BATCH = 64


def predict_tokens(run: TrainedModel, data: Dataset, rows: Tensor) -> pl.DataFrame | None:
    """`Answers.tokens`."""
    spec = run.model.spec
    if spec.base is None:
        return None
    outputs = predict_test(run, data, rows)
    if "frames" not in outputs:
        return None
    tokens, sure = data.batch(rows, [spec.base]).streams[spec.base], read_spread(outputs, "frames")
    here = tokens.mask.cpu().numpy()
    said = {f"pred_{name}": outputs["frames"][..., k].numpy()[here] for k, name in enumerate(spec.dimensions)}
    if sure is not None:
        said |= {f"sd_{name}": sure[..., k].numpy()[here] for k, name in enumerate(spec.dimensions)}
    ids = np.repeat(np.array([data.ids[row] for row in rows.tolist()], dtype=object), here.sum(1))
    return pl.DataFrame({"id": pl.Series(ids, dtype=pl.String()), "time": tokens.times.cpu().numpy()[here].mean(1), **said})


def look_over_time(
    run: TrainedModel, data: Dataset, rows: Tensor
) -> tuple[pl.DataFrame, list[tuple[str, np.ndarray, np.ndarray]]]:
    """`Answers.looks`, and per clip with tokens its id, seconds (T,) and embeddings (T, W)."""
    spec = run.model.spec
    if spec.base is None:
        return pl.DataFrame(schema=LOOKS), []
    steady, paths = [], []
    batches = list(data.read(spec.streams).batches(rows, list(spec.streams), spec.turns, BATCH))
    for tokens in embed_tokens(run.model, batches):
        for values, mask, times in zip(tokens.values.cpu(), tokens.mask.cpu(), tokens.times.cpu(), strict=True):
            z = values[mask].double().numpy()
            steady.append(_consistency(z))
            paths.append((times[mask].double().numpy().mean(1), z))
    ids = [data.ids[row] for row in rows.tolist()]
    found = compare_halves(run.model, batches)
    table = pl.DataFrame({"id": ids, "consistency": steady, "found": found}, schema=LOOKS)
    return table, [(name, *path) for name, path in zip(ids, paths, strict=True) if len(path[0])]


def _consistency(z: np.ndarray) -> float | None:
    if len(z) < 2:
        return None
    z = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
    return float((z[1:] * z[:-1]).sum(1).mean())


def reduce_paths(paths: list[tuple[str, np.ndarray, np.ndarray]]) -> pl.DataFrame:
    """Rows of `PATHS`: all clips of one run on its two principal axes, which point so that the greatest loading is positive."""
    if not paths:
        return pl.DataFrame(schema=PATHS)
    values = np.concatenate([z for *_, z in paths])
    values = values - values.mean(0)
    _, size, axes = np.linalg.svd(values, full_matrices=False)
    axes = axes[:2] * np.sign(axes[np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(1)])[:, None]
    spots = np.zeros((len(values), 2))
    spots[:, : len(axes)] = values @ axes.T
    share = float((size[:2] ** 2).sum() / max((size**2).sum(), 1e-300))
    ids = [name for name, times, _ in paths for _ in times]
    times = np.concatenate([times for _, times, _ in paths])
    return pl.DataFrame(
        {"id": ids, "time": times, "x": spots[:, 0], "y": spots[:, 1], "share": np.full(len(times), share)}, schema=PATHS
    )
