"""From the rows of an encoder to the rows of a store: which layer, and how much time a row covers.

Everything here sees one clip at its true length: padding is cut off (`cut`) before anything is
pooled, so no padded row can enter a mean, a maximum or a standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import ParamsError, one_of
from pipeline.params.features import Layer, Sum

if TYPE_CHECKING:
    import torch  # imported where it is used: worker processes that only prepare clips never load it


def _pair(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat([first, second], -1)


#: (T, ..., D) → (..., D) or (..., 2 D). `statistics` is mean and standard deviation (1/T), as in x-vectors.
POOLS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda rows: rows.mean(0),
    "max": lambda rows: rows.amax(0),
    "mean_max": lambda rows: _pair(rows.mean(0), rows.amax(0)),
    "first": lambda rows: rows[0],
    "last": lambda rows: rows[-1],
    "statistics": lambda rows: _pair(rows.mean(0), rows.std(0, correction=0)),
}


#: Layers that go by a name.
NAMED = ("all", "last4")


def reduce(
    values: torch.Tensor | np.ndarray,
    times: np.ndarray,
    *,
    pooling: str = "none",
    rate: float | None = None,
    mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Pool the rows of one clip over time: what `pooling` and `rate` of a stream mean, for every family.

    Without `rate` the whole clip becomes one row (`pooling: none` keeps the rows). With `rate` each
    window of 1/rate seconds becomes one row; `none` then means `mean`.

    Args:
        values: (T, ..., D) rows, on any device and of any float type.
        times: (T, 2) start and end of each row, seconds.
        mask: (T,) rows to keep; None keeps all.

    Returns:
        values (T', ..., D') float32 and times (T', 2) float32.

    Raises:
        ParamsError: unknown pooling.
        ValueError: no row is left, or `times` does not fit `values`.
    """
    if pooling != "none" and pooling not in POOLS:
        raise one_of("pooling", pooling, ["none", *POOLS])
    times = np.asarray(times, dtype=np.float64)
    if times.shape != (len(values), 2):
        raise ValueError(f"{len(values)} rows with times of shape {times.shape}")
    if mask is not None:
        mask = np.asarray(mask, dtype=bool)
        values, times = values[np.flatnonzero(mask)], times[mask]
    if len(values) == 0:
        raise ValueError("there is no row to pool")
    if isinstance(values, np.ndarray) and pooling == "none" and rate is None:
        # Nothing is pooled: a computed or imported feature needs no framework.
        return np.array(values, np.float32), times.astype(np.float32)
    import torch

    values = torch.as_tensor(values)
    if rate is not None:
        return to_rate(values, times, rate, pooling)
    if pooling != "none":
        values = POOLS[pooling](values.float())[None]
        times = np.array([[times[:, 0].min(), times[:, 1].max()]])
    return values.float().cpu().numpy(), times.astype(np.float32)


def to_rate(
    values: torch.Tensor | np.ndarray, times: np.ndarray, rate: float, pooling: str = "mean"
) -> tuple[np.ndarray, np.ndarray]:
    """Pool rows to `rate` rows per second.

    Window k is [k/rate, (k+1)/rate) from clip start; a row belongs to the window its middle falls
    in, so that every row counts exactly once. Windows without a row are left out, never invented:
    rows sparser than `rate` stay as they are.

    Args:
        values: (T, ..., D) rows in time order.
        times: (T, 2) seconds.
        pooling: one of `POOLS`; `none` means `mean`.

    Returns:
        values (T', ..., D') float32; times (T', 2) float32, each from its first row's start to its last row's end.
    """
    import torch

    values, times = torch.as_tensor(values), np.asarray(times, dtype=np.float64)
    pool = POOLS["mean" if pooling == "none" else pooling]
    # The small term keeps a middle that lies on a border from falling to either side by rounding.
    windows = np.floor(times.mean(1) * rate + 1e-6).astype(np.int64)
    if (np.diff(windows) < 0).any():
        raise ValueError("rows must be in time order to be pooled to a rate")
    counts = np.unique(windows, return_counts=True)[1]
    pooled = torch.stack([pool(part.float()) for part in torch.split(values, counts.tolist())])
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    bounds = np.stack([np.minimum.reduceat(times[:, 0], first), np.maximum.reduceat(times[:, 1], first)], 1)
    return pooled.cpu().numpy(), bounds.astype(np.float32)


def select(states: Sequence[torch.Tensor], layer: Layer) -> torch.Tensor:
    """Choose hidden states.

    Args:
        states: embeddings and then the output of every layer, N + 1 tensors (..., D); the last one is
            what the model calls its last hidden state (after a final norm, where it has one).
        layer: an index into `states` (-1 last, 0 embeddings), `last4` (the sum of the last four), `all`, a list of indices
            (both kept, in that order), or a `Sum` of some.

    Returns:
        (..., D), or (..., L, D) for the L layers of `all` (N + 1) and of a list.

    Raises:
        ParamsError: the model has no such layer, or one is named twice.
    """
    if isinstance(layer, str) and layer not in NAMED:
        raise one_of("layer", layer, NAMED)
    check_layer(layer, len(states) - 1)
    if isinstance(layer, int):
        return states[layer]
    if isinstance(layer, Sum):
        return _stack(states, layer.sum).sum(-2)
    if layer == "last4":
        return _stack(states, range(-4, 0)).sum(-2)
    return _stack(states, range(len(states)) if isinstance(layer, str) else layer)


def _stack(states: Sequence[torch.Tensor], layers: Sequence[int]) -> torch.Tensor:
    import torch

    return torch.stack([states[i] for i in layers], -2)


def keeps_several(layer: Layer) -> bool:
    """Whether rows are (L, D): layers that stay apart."""
    return layer == "all" or isinstance(layer, Sequence) and not isinstance(layer, str)


def check_layer(layer: Layer, layers: int) -> None:
    """Refuse a layer that an encoder of `layers` layers does not have, before anything is computed.

    Raises:
        ParamsError: no such layer, none at all, or one by two names.
    """
    if isinstance(layer, str):
        if layer == "last4" and layers < 4:
            raise ParamsError(f"layer last4 needs four layers; this encoder has {layers}.")
        return
    chosen = [layer] if isinstance(layer, int) else list(layer.sum if isinstance(layer, Sum) else layer)
    if not chosen:
        raise ParamsError("layer is an empty list; name one layer at least.")
    for one in chosen:
        if not -layers - 1 <= one <= layers:
            raise ParamsError(f"layer {one} is not there; this encoder has layers 0 (embeddings) to {layers}.")
    places = [one % (layers + 1) for one in chosen]
    if twice := [one for one, place in zip(chosen, places, strict=True) if places.count(place) > 1]:
        raise ParamsError(f"layers {twice[0]} and {twice[1]} are one and the same; this encoder has {layers}.")


def cut(batch: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    """(B, T, ...) padded rows → B tensors (T_i, ...) without padding, where they are."""
    return [rows[:length] for rows, length in zip(batch, lengths, strict=True)]


def frame_times(count: int, rate: float, duration: float | None = None) -> np.ndarray:
    """(count, 2) float32: slots of 1/rate seconds from clip start, cut at `duration` seconds.

    A convolutional front end needs a window longer than its stride, so the last samples of a clip
    may have no frame; the last slot then reaches to the end of the clip.
    """
    edges = np.arange(count + 1, dtype=np.float64) / rate
    if duration is not None:
        edges = np.minimum(edges, duration)
        edges[-1] = duration
    return np.stack([edges[:-1], edges[1:]], 1).astype(np.float32)
