"""The cached set as resident tensors: batches are gathers, never reads.

Labels of test clips do not enter: `Dataset.load` empties them before anything else is made, whatever the
manifest holds (in k-fold protocols a clip is held out in one fold and trained on in another).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import polars as pl
import torch
from torch import Tensor

from ..data import manifest as tables
from ..errors import StoreError
from ..models.tokens import Tokens
from ..params import Params
from .index import SCHEMA_VERSION
from .store import Status, Store


@dataclass(frozen=True)
class Resident:
    """One stream of all clips, normalised, in one piece.

    Attributes:
        values: (ΣT, D) or (ΣT, L, D) float32. times: (ΣT, 2) seconds. offsets: (N+1,) int64.
        targets: (ΣT, K) float32 frame-level truth at the token centres, NaN unknown, or None.
        mean, std: (D,) or (L, D), what raw features were normalised with.
        facts: attributes of the index: digest, modality, source, random, ...
    """

    values: Tensor
    times: Tensor
    offsets: Tensor
    targets: Tensor | None
    mean: np.ndarray
    std: np.ndarray
    facts: dict[str, object]

    def gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (B, T) of the tokens of clips `rows`, and which of them are (the mask)."""
        start, length = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        step = torch.arange(max(1, int(length.max())), device=rows.device)
        mask = step < length[:, None]
        return torch.where(mask, start[:, None] + step, 0), mask


class Targets(NamedTuple):
    """Truth of a batch: emotion (B,) -1 unknown, dimensions (B, K) NaN unknown, frames (B, T, K) or None."""

    emotion: Tensor
    dimensions: Tensor
    frames: Tensor | None


@dataclass(frozen=True)
class Dataset:
    """All clips of one fold.

    Attributes:
        ids: (N,) clip ids, sorted. roles: (N,) `train`, `val`, `test` or empty.
        streams: by name. emotion: (N,) int64, -1 unknown. dimensions: (N, K) float32, NaN unknown.
        classes, names: emotion classes and dimension names in the order of the targets.
    """

    ids: list[str]
    roles: np.ndarray
    streams: dict[str, Resident]
    emotion: Tensor
    dimensions: Tensor
    classes: tuple[str, ...]
    names: tuple[str, ...]
    fold: int

    @classmethod
    def load(
        cls,
        index: str | Path,
        manifest: str | Path,
        folds: str | Path,
        params: Params,
        fold: int,
        *,
        annotations: str | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> Dataset:
        """Read one fold into memory.

        Raises:
            StoreError: the index does not fit the manifest or the stores it points to.
        """
        table, stored = tables.read(manifest), _Index(index)
        if sorted(table["id"].to_list()) != stored.ids:
            raise StoreError(f"{index} was made for other clips than {manifest} holds. Run `dvc repro index`.")
        classes = class_names(table, params)
        roles = fold_roles(tables.read(folds), stored.ids, fold)
        table = table.sort("id").with_columns(pl.Series("role", roles))
        table = without_test_labels(table)
        names = params.task.dimensions
        truth = None
        if annotations is not None and names and params.task.level == "frame" and Path(annotations).is_file():
            truth = frame_truth(tables.read(annotations), set(table.filter(pl.col("role") != "test")["id"]), names)
        limit = params.temporal.max_tokens
        return cls(
            ids=stored.ids,
            roles=roles,
            streams={name: stored.resident(name, fold, limit, truth, len(names), device) for name in params.streams},
            emotion=labels(table["emotion"], classes if params.task.emotion else ()).to(device),
            dimensions=dimension_values(table, names).to(device),
            classes=classes if params.task.emotion else (),
            names=tuple(names),
            fold=fold,
        )

    def rows(self, *roles: str) -> Tensor:
        """Positions of the clips with one of these roles."""
        return torch.from_numpy(np.flatnonzero(np.isin(self.roles, roles))).to(self.emotion.device)

    def present(self, names: Iterable[str]) -> Tensor:
        """(N,) bool: the clip has at least one of these streams."""
        return torch.stack([self.streams[name].offsets.diff() > 0 for name in names]).any(0)

    def labelled(self) -> Tensor:
        """(N,) bool: the clip has an emotion or a dimension."""
        return (self.emotion >= 0) | torch.isfinite(self.dimensions).any(1)

    def batch(self, rows: Tensor, names: Iterable[str]) -> dict[str, Tokens]:
        """Tokens of the clips at `rows` (B,)."""
        result = {}
        for name in names:
            stream = self.streams[name]
            where, mask = stream.gather(rows)
            if not len(stream.values):
                raise StoreError(f"stream {name!r} has no token at all.")
            values = stream.values[where] * mask.reshape(*mask.shape, *[1] * (stream.values.dim() - 1))
            result[name] = Tokens(values, mask, stream.times[where] * mask[..., None])
        return result

    def targets(self, rows: Tensor, base: str | None = None) -> Targets:
        """Truth of the clips at `rows`; frame-level truth along the tokens of stream `base`."""
        frames = None
        if base is not None and self.streams[base].targets is not None:
            where, mask = self.streams[base].gather(rows)
            frames = self.streams[base].targets[where].masked_fill(~mask[..., None], float("nan"))
        return Targets(self.emotion[rows], self.dimensions[rows], frames)

    @property
    def size(self) -> int:
        """Bytes of the features."""
        return sum(s.values.numel() * s.values.element_size() for s in self.streams.values())


def class_names(table: pl.DataFrame, params: Params) -> tuple[str, ...]:
    """Classes asked for, else every emotion named in the manifest, sorted."""
    return tuple(params.task.classes) or tuple(sorted(table["emotion"].drop_nulls().unique()))


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
    return table.with_columns(
        pl.when(pl.col("role") == "test").then(None).otherwise(pl.col(name)).alias(name) for name in kept)


def labels(emotion: pl.Series, classes: tuple[str, ...]) -> Tensor:
    """(N,) class index, -1 when unknown or not among the classes."""
    known = {name: i for i, name in enumerate(classes)}
    return torch.tensor([known.get(name, -1) for name in emotion], dtype=torch.int64)


def dimension_values(table: pl.DataFrame, names: tuple[str, ...]) -> Tensor:
    """(N, K) float32, NaN unknown."""
    columns = [table[name].cast(pl.Float32).fill_null(float("nan")).to_numpy() for name in names]
    return torch.from_numpy(np.stack(columns, 1) if columns else np.zeros((len(table), 0), np.float32))


def frame_truth(table: pl.DataFrame, allowed: set[str], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Annotations of the allowed clips: id → (M, 1 + K) time and dimensions, in time order."""
    columns = [pl.col(n).cast(pl.Float64) if n in table.columns else pl.lit(None, pl.Float64).alias(n) for n in names]
    kept = table.filter(pl.col("id").is_in(list(allowed))).sort("id", "time")
    return {part["id"][0]: part.select("time", *columns).fill_null(float("nan")).to_numpy()
            for part in kept.partition_by("id", maintain_order=True)}


def interpolate(truth: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Annotations (M, 1 + K) at the given seconds: (T, K) float32, NaN for a dimension without truth."""
    out = np.full((len(centres), truth.shape[1] - 1), np.nan, np.float32)
    for k in range(out.shape[1]):
        known = np.isfinite(truth[:, 1 + k])
        if known.any():
            out[:, k] = np.interp(centres, truth[known, 0], truth[known, 1 + k])
    return out


def shorten(values: np.ndarray, times: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` rows: adjacent rows are averaged, their times joined."""
    if len(values) <= limit:
        return values, times
    edges = np.linspace(0, len(values), limit + 1).astype(np.int64)
    counts = np.diff(edges).reshape(-1, *[1] * (values.ndim - 1))
    return (np.add.reduceat(values, edges[:-1], axis=0) / counts,
            np.stack([times[edges[:-1], 0], times[edges[1:] - 1, 1]], 1))


class _Index:
    """Reader of `index.h5`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(f"{path} is not there. Run `dvc repro index`.")
        with h5py.File(self.path, "r", locking=False) as file:
            if not file.attrs.get("complete", False) or file.attrs["schema"] != SCHEMA_VERSION:
                raise StoreError(f"{path} is incomplete or of another version. Run `dvc repro index`.")
            self.ids = [i.decode() for i in file["ids"][:]]
            self.folds = file["folds"][:].tolist()
            self.streams = {name: self._stream(file["streams"][name]) for name in file["streams"]}

    @staticmethod
    def _stream(group: h5py.Group) -> dict[str, object]:
        return {"path": group.get("store", getlink=True).filename, "facts": dict(group.attrs),
                **{name: group[name][:] for name in ("row", "status", "mean", "std")}}

    def resident(self, name: str, fold: int, limit: int, truth: dict[str, np.ndarray] | None, size: int,
                 device: str | torch.device) -> Resident:
        """Read one stream, normalise it with this fold's training statistics, lay it out in one piece."""
        if name not in self.streams:
            raise StoreError(f"{self.path} has no stream {name!r}. Run `dvc repro index`.")
        stream = self.streams[name]
        store = Store(self.path.parent / stream["path"])
        row, mean, std = stream["row"], *(stream[part][self.folds.index(fold)] for part in ("mean", "std"))
        if any(r >= 0 and (r >= len(store) or store.ids[r] != clip) for r, clip in zip(row, self.ids, strict=True)):
            raise StoreError(f"{store.path} has changed since {self.path} was made. Run `dvc repro index`.")
        parts, times, targets, lengths = [], [], [], []
        for clip, r, state in zip(self.ids, row, stream["status"], strict=True):
            if state != Status.OK:
                lengths.append(0)
                continue
            low, high = store.offsets[r], store.offsets[r + 1]
            values, spans = shorten((store.values[low:high].astype(np.float32) - mean) / std, store.times[low:high], limit)
            parts.append(values)
            times.append(spans)
            lengths.append(len(values))
            if truth is not None:
                known = truth.get(clip)
                targets.append(np.full((len(values), size), np.nan, np.float32) if known is None
                               else interpolate(known, spans.mean(1)))
        facts = {key: value.item() if isinstance(value, np.generic) else value for key, value in stream["facts"].items()}
        return Resident(
            values=torch.from_numpy(np.concatenate(parts).astype(np.float32)).to(device),
            times=torch.from_numpy(np.concatenate(times).astype(np.float32)).to(device),
            offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)).to(device),
            targets=None if truth is None else torch.from_numpy(np.concatenate(targets)).to(device),
            mean=mean, std=std, facts=facts)
