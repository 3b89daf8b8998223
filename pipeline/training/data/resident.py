"""One stream of all clips as resident tensors: batches are gathers, never reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.models.batch import shorten
from pipeline.storage.feature_store import Status
from pipeline.storage.index import IndexedStream

from .labels import interpolate


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


def load_stream(
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
