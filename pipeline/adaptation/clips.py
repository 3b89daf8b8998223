"""The clips an encoder learns from, with their truth; those of the test part are not among them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from pipeline.errors import ParamsError
from pipeline.features.engine.reader import Job
from pipeline.params import Adapt, Params
from pipeline.storage import tables
from pipeline.training.data.annotations import frame_truth
from pipeline.training.data.labels import (
    class_names,
    dimension_values,
    fold_roles,
    labels,
    with_means,
    without_test_labels,
)


@dataclass(frozen=True)
class Clips:
    """N clips that have truth of what is learned.

    Attributes:
        train, val: places of the clips of each part.
        emotion: (N,) int64, -1 unknown. dimensions: (N, K) float32, NaN unknown.
        truth: clip id → (M, 1 + K) time and dimensions, where they are known over time.
    """

    jobs: list[Job]
    train: list[int]
    val: list[int]
    emotion: Tensor
    dimensions: Tensor
    truth: dict[str, np.ndarray]
    classes: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        """Of all that is learned from, but for the clips' media, which their keys stand for."""
        total = hashlib.sha256(repr((self.classes, self.names, self.train, self.val)).encode())
        for job, emotion, values in zip(self.jobs, self.emotion.tolist(), self.dimensions.tolist(), strict=True):
            total.update(repr((job.id, job.content, emotion, values)).encode())
            total.update(np.ascontiguousarray(self.truth.get(job.id, ())).tobytes())
        return total.hexdigest()


def check_protocol(params: Params, folds: pl.DataFrame) -> None:
    """
    Raises:
        ParamsError: several folds, whose test clips the one adapter would have learned from; or validation parts in turn.
    """
    if (count := folds["fold"].n_unique()) > 1:
        raise ParamsError(
            f"an encoder is adapted to one training part, and protocol {params.protocol.kind} has {count} folds, each of which "
            "tests on what another trains on; take protocol split, official or file, or set adapt to null."
        )
    if params.training.rotate:
        raise ParamsError(
            "training.rotate selects on clips that the adapted encoder has learned from; set it to false, or adapt to null."
        )


def gather(
    params: Params,
    adapt: Adapt,
    jobs: list[Job],
    *,
    manifest: str | Path,
    folds: str | Path,
    annotations: str | Path,
) -> Clips:
    """The clips of the training and the validation part that have truth.

    Raises:
        ParamsError: see `check_protocol`; or a part has no such clip, or fewer than two classes are learned.
    """
    drawn, table = tables.read(folds), tables.read(manifest)
    check_protocol(params, drawn)
    emotions = adapt.objective == "emotion"
    names = () if emotions else tuple(params.task.dimensions)
    classes = class_names(table, params) if emotions else ()
    ids = [job.id for job in jobs]
    table = pl.DataFrame({"id": ids}).join(table, on="id", how="left", maintain_order="left")
    roles = fold_roles(drawn, ids, drawn["fold"][0])
    table = without_test_labels(table.with_columns(pl.Series("role", roles)))
    truth: dict[str, np.ndarray] = {}
    if names and Path(annotations).is_file():
        truth = frame_truth(tables.read(annotations), set(table.filter(pl.col("role") != "test")["id"]), names)
    emotion = labels(table["emotion"], classes)
    dimensions = with_means(dimension_values(table, names), ids, truth)
    known = (emotion >= 0 if emotions else torch.isfinite(dimensions).any(1)).numpy()
    kept = [i for i in range(len(ids)) if known[i] and roles[i] in ("train", "val")]
    what = "an emotion" if emotions else " or ".join(names) or "dimensions (task.dimensions is empty)"
    parts = {role: [place for place, i in enumerate(kept) if roles[i] == role] for role in ("train", "val")}
    for role, places in parts.items():
        if not places:
            raise ParamsError(f"adapt learns {adapt.objective}, but no {role} clip has {what}; see protocol and task.")
    chosen = emotion[kept]
    if emotions and len(set(chosen[parts["train"]].tolist())) < 2:
        raise ParamsError("adapt needs training clips of two classes at least; see task.classes and protocol.")
    return Clips(
        [jobs[i] for i in kept],
        parts["train"],
        parts["val"],
        chosen,
        dimensions[kept],
        {ids[i]: truth[ids[i]] for i in kept if ids[i] in truth},
        classes,
        names,
    )
