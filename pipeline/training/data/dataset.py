"""The cached set as resident tensors: batches are gathers, never reads.

Labels of test clips do not enter: `Dataset.load` empties them before anything else is made, whatever the
manifest holds (in k-fold protocols a clip is held out in one fold and trained on in another).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor

from pipeline.errors import StoreError
from pipeline.models.batch import Tokens, shorten
from pipeline.params import Params
from pipeline.storage import tables
from pipeline.storage.feature_store import Status
from pipeline.storage.index import Index, IndexedStream

from .labels import (
    Targets,
    class_names,
    dimension_values,
    fold_roles,
    frame_truth,
    interpolate,
    labels,
    with_means,
    without_test_labels,
)


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
        table, stored = tables.read(manifest), Index(index)
        if sorted(table["id"].to_list()) != stored.ids:
            raise StoreError(f"{index} was made for other clips than {manifest} holds. Run `dvc repro index`.")
        classes = class_names(table, params)
        roles = fold_roles(tables.read(folds), stored.ids, fold)
        table = table.sort("id").with_columns(pl.Series("role", roles))
        table = without_test_labels(table)
        names = params.task.dimensions
        truth = {}
        if annotations is not None and names and Path(annotations).is_file():
            truth = frame_truth(tables.read(annotations), set(table.filter(pl.col("role") != "test")["id"]), names)
        along = truth if params.task.level == "frame" else None
        limit = params.temporal.max_tokens
        return cls(
            ids=stored.ids,
            roles=roles,
            streams={
                name: resident(stored.stream(name), stored.ids, stored.folds.index(fold), limit, along, len(names), device)
                for name in params.streams
            },
            emotion=labels(table["emotion"], classes if params.task.emotion else ()).to(device),
            dimensions=with_means(dimension_values(table, names), stored.ids, truth).to(device),
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

    def fingerprint(self, names: Iterable[str]) -> str:
        """Hash of what is learnt from beside the features: ids, roles, labels, frame-level truth."""
        total = hashlib.sha256("\n".join([*self.ids, *self.roles, *self.classes, *self.names]).encode())
        targets = [self.streams[name].targets for name in sorted(names)]
        for tensor in (self.emotion, self.dimensions, *(t for t in targets if t is not None)):
            total.update(tensor.cpu().numpy().tobytes())
        return total.hexdigest()

    @property
    def size(self) -> int:
        """Bytes of the features."""
        return sum(s.values.numel() * s.values.element_size() for s in self.streams.values())


def resident(
    stream: IndexedStream,
    ids: list[str],
    fold: int,
    limit: int,
    truth: dict[str, np.ndarray] | None,
    size: int,
    device: str | torch.device,
) -> Resident:
    """One stream of all clips: read, normalised with the training statistics of the `fold`-th fold, laid out in one piece.

    Args:
        limit: most tokens of a clip, see `shorten`.
        truth: frame-level truth by clip id, (M, 1 + size) time and dimensions; None = none is wanted.
    """
    store, mean, std = stream.store, stream.mean[fold], stream.std[fold]
    parts, times, targets, lengths = [], [], [], []
    for clip, r, state in zip(ids, stream.row, stream.status, strict=True):
        if state != Status.OK:
            lengths.append(0)
            continue
        low, high = store.offsets[r], store.offsets[r + 1]
        values = (store.values[low:high].astype(np.float32) - mean) / std
        values, spans = shorten(values, store.times[low:high], limit)
        parts.append(values)
        times.append(spans)
        lengths.append(len(values))
        if truth is not None:
            known = truth.get(clip)
            targets.append(
                np.full((len(values), size), np.nan, np.float32) if known is None else interpolate(known, spans.mean(1))
            )
    return Resident(
        values=torch.from_numpy(np.concatenate(parts).astype(np.float32)).to(device),
        times=torch.from_numpy(np.concatenate(times).astype(np.float32)).to(device),
        offsets=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)).to(device),
        targets=None if truth is None else torch.from_numpy(np.concatenate(targets)).to(device),
        mean=mean,
        std=std,
        facts=stream.facts,
    )
