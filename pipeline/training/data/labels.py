"""Truth as tensors: what the clips of a fold may be learnt from."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from pipeline.errors import ParamsError, StoreError
from pipeline.params import Params
from pipeline.storage import tables
from pipeline.storage.classes import check_classes
from pipeline.storage.feature_store import Status
from pipeline.storage.index import Index

from .rotation import check_rotation, count_parts, rotate

log = logging.getLogger(__name__)

#: Columns of the manifest that say whose clip it is.
DOMAINS = ("speaker", "corpus")


def class_names(table: pl.DataFrame, params: Params) -> tuple[str, ...]:
    """Classes asked for, else every emotion named in the manifest, sorted."""
    return tuple(params.task.classes) or tuple(sorted(table["emotion"].drop_nulls().unique()))


def fold_numbers(folds: str | Path) -> list[int]:
    """Folds of the protocol, in order."""
    return sorted(tables.read(folds)["fold"].unique().to_list())


def check_labels(params: Params, index: str | Path, manifest: str | Path, folds: str | Path) -> None:
    """Refuse, before the first run, classes that cannot be learned and validation parts that are not there.

    Raises:
        ParamsError: see `pipeline.storage.classes.check_classes` and `check_rotation`.
        StoreError: see `check_rotation`.
    """
    drawn, turns = tables.read(folds), 1
    if params.training.rotate:
        check_rotation(drawn, folds)
        turns = min(params.training.seeds, count_parts(drawn))
    if params.task.emotion:
        stored = Index(index)
        usable = np.logical_or.reduce([stored.stream(name).status == Status.OK for name in params.inputs])
        ids = [clip for clip, there in zip(stored.ids, usable, strict=True) if there]
        table = tables.read(manifest)
        for turn in range(turns):
            where = f", seed {turn}," if turn else ""
            alone = not params.task.dimensions
            check_classes(table, rotate(drawn, turn), params.task.classes, ids, alone=alone, where=where)


def check_frames(params: Params, annotations: str | Path) -> None:
    """Refuse to predict over time what no clip has over time: a head would learn nothing, and say something.

    Raises:
        ParamsError: no dimension has a label of any instant.
    """
    names = params.task.dimensions
    if params.task.level != "frame" or not names:
        return
    table = tables.read(annotations) if Path(annotations).is_file() else tables.frame([], tables.ANNOTATIONS)
    known = [n for n in names if n in table.columns and table[n].drop_nulls().drop_nans().len()]
    if not known:
        raise ParamsError(
            f"task.level is frame, but no clip to learn from has {' or '.join(names)} over time ({annotations}); set task.level "
            "to clip."
        )
    if absent := [n for n in names if n not in known]:
        log.warning("no clip has %s over time: what is predicted of it there is not learned", " or ".join(absent))


def fold_roles(folds: pl.DataFrame, ids: list[str], fold: int) -> np.ndarray:
    """(N,) role of each clip in this fold, empty where it has none.

    Raises:
        StoreError: there is no such fold.
    """
    chosen = folds.filter(pl.col("fold") == fold)
    if chosen.is_empty():
        raise StoreError(f"there is no fold {fold}; known: {sorted(folds['fold'].unique())}.")
    role = dict(zip(chosen["id"], chosen["role"], strict=True))
    return np.array([role.get(clip) or "" for clip in ids])


def without_test_labels(table: pl.DataFrame) -> pl.DataFrame:
    """The manifest with every label of every test clip emptied."""
    kept = [name for name in tables.LABELS if name in table.columns]
    return table.with_columns(pl.when(pl.col("role") == "test").then(None).otherwise(pl.col(name)).alias(name) for name in kept)


def labels(emotion: pl.Series, classes: tuple[str, ...]) -> Tensor:
    """(N,) class index, -1 when unknown or not among the classes."""
    known = {name: i for i, name in enumerate(classes)}
    return torch.tensor([known.get(name, -1) for name in emotion], dtype=torch.int64)


def extra_labels(table: pl.DataFrame) -> list[dict]:
    """What the corpus says of each clip beside the labels that all corpora have: the manifest's `labels`.

    Raises:
        StoreError: one is no JSON.
    """
    found = []
    if "labels" not in table.columns:
        return [{} for _ in range(len(table))]
    for clip, text in table.select("id", "labels").iter_rows():
        try:
            value = json.loads(text) if text else {}
        except ValueError as error:
            raise StoreError(f"the manifest's `labels` of {clip} is no JSON: {text!r}.") from error
        found.append(value if isinstance(value, dict) else {})
    return found


def label_sets(table: pl.DataFrame, emotion: Tensor, classes: tuple[str, ...]) -> Tensor | None:
    """(N, C) bool, every emotion of each clip: its own, and the `emotions` of its extra labels; None where no clip has such.

    Raises:
        StoreError: see `extra_labels`.
    """
    places = {name: i for i, name in enumerate(classes)}
    listed = [[places[name] for name in one.get("emotions") or () if name in places] for one in extra_labels(table)]
    if not any(listed):
        return None
    sets = torch.zeros(len(listed), len(classes), dtype=torch.bool)
    for row, found in zip(sets, listed, strict=True):
        row[found] = True
    known = emotion >= 0
    sets = sets.to(emotion.device)
    sets[known, emotion[known]] = True
    return sets


def dimension_values(table: pl.DataFrame, names: tuple[str, ...]) -> Tensor:
    """(N, K) float32, NaN unknown."""
    columns = [table[name].cast(pl.Float32).fill_null(float("nan")).to_numpy() for name in names]
    return torch.from_numpy(np.stack(columns, 1) if columns else np.zeros((len(table), 0), np.float32))


def with_means(values: Tensor, ids: list[str], truth: dict[str, np.ndarray]) -> Tensor:
    """Clip-level dimensions (N, K) with unknown ones replaced by the mean of the clip's annotations."""
    means = np.full(values.shape, np.nan, np.float32)
    for i, clip in enumerate(ids):
        if clip in truth:
            known = np.isfinite(truth[clip][:, 1:])
            sums = np.where(known, truth[clip][:, 1:], 0).sum(0)
            means[i] = np.divide(sums, known.sum(0), out=np.full(len(sums), np.nan), where=known.any(0))
    return torch.where(torch.isfinite(values), values, torch.from_numpy(means))


def code_domains(
    table: pl.DataFrame, roles: np.ndarray, device: str | torch.device
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """`code_column` of each of the manifest's `DOMAINS`: codes by name, and the values they stand for."""
    coded = {name: code_column(table[name], pl.Series(roles)) for name in DOMAINS}
    return {name: codes.to(device) for name, (codes, _) in coded.items()}, {name: known for name, (_, known) in coded.items()}


def code_column(column: pl.Series, roles: pl.Series) -> tuple[Tensor, tuple[str, ...]]:
    """(N,) place of each value among those of the training clips, -1 unknown; and these values, sorted."""
    known = tuple(sorted(column.filter(roles == "train").drop_nulls().unique().to_list()))
    places = {value: i for i, value in enumerate(known)}
    return torch.tensor([places.get(value, -1) for value in column], dtype=torch.int64), known


def number_groups(table: pl.DataFrame, column: str) -> Tensor:
    """(N,) int64: a number for each value of the column within a corpus, -1 where it is unknown.

    Raises:
        ParamsError: no clip has a value.
    """
    known = table[column] if column in table.columns else pl.Series([None] * len(table), dtype=pl.String)
    if known.is_null().all():
        raise ParamsError(f"training.normalise is {column!r}, but no clip has a {column}; take train, or none.")
    named = table.select(pl.concat_str("corpus", pl.col(column), separator="\0", ignore_nulls=False).rank("dense"))
    return torch.from_numpy(named.to_series().fill_null(0).cast(pl.Int64).to_numpy() - 1)
