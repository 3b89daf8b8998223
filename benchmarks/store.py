"""The feature store: reading against `np.memmap` on the same bytes, size against one float32 `.npy` per clip."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pipeline.storage import feature_store
from pipeline.storage.feature_store import Entry, Store

from .figures import Figure, alternate, ratio


@dataclass(frozen=True)
class Size:
    clips: int = 1000
    rows: int = 32
    width: int = 768
    repeats: int = 15


TINY = Size(clips=20, rows=4, width=8, repeats=1)


def _entries(size: Size) -> Iterator[Entry]:
    chance = np.random.default_rng(0)
    starts = np.arange(size.rows, dtype=np.float32) / 4
    for _ in range(size.clips):
        yield Entry(chance.standard_normal((size.rows, size.width), np.float32), np.stack([starts, starts + 0.25], 1))


def measure(folder: Path, size: Size) -> list[Figure]:
    """Whole clips copied out of the map, in order and at random; the file is in memory for both."""
    ids = [f"clip{i:05d}" for i in range(size.clips)]
    path, arrays = folder / "features.h5", folder / "npy"
    arrays.mkdir()
    feature_store.write(path, ids, _entries(size), rows=[size.rows] * size.clips, shape=(size.width,))
    for clip, entry in zip(ids, _entries(size), strict=True):
        np.save(arrays / f"{clip}.npy", entry.values)
    ours = Store(path)
    with h5py.File(path) as file:
        offset = file["values"].id.get_offset()
    values = np.memmap(path, ours.dtype, "r", offset, ours.shape)
    places = {clip: slice(i * size.rows, (i + 1) * size.rows) for i, clip in enumerate(ids)}
    shuffled = np.random.default_rng(1).permutation(ids).tolist()

    def by_store(order: list[str]) -> None:
        for clip in order:
            np.array(ours[clip].values)

    def by_memmap(order: list[str]) -> None:
        for clip in order:
            np.array(values[places[clip]])

    def by_file(order: list[str]) -> None:
        for clip in order:
            np.load(arrays / f"{clip}.npy")

    taken = alternate(
        {
            "store in order": lambda: by_store(ids),
            "memmap in order": lambda: by_memmap(ids),
            "store at random": lambda: by_store(shuffled),
            "memmap at random": lambda: by_memmap(shuffled),
            "npy at random": lambda: by_file(shuffled),
        },
        size.repeats,
    )
    nbytes = ours.values.nbytes
    files = sum(file.stat().st_size for file in arrays.iterdir())
    return [
        Figure(
            "store read in order ÷ np.memmap",
            ratio(taken["memmap in order"], taken["store in order"]),
            "ratio",
            ">= 0.9",
            "speed, clip by clip, the same bytes",
        ),
        Figure(
            "store read at random ÷ np.memmap",
            ratio(taken["memmap at random"], taken["store at random"]),
            "ratio",
            ">= 0.9",
            "speed, clip by clip, the same bytes",
        ),
        Figure("store read at random", nbytes / statistics.median(taken["store at random"]) / 2**30, "GiB/s", "", "from memory"),
        Figure(
            "store read ÷ one .npy per clip",
            ratio(taken["npy at random"], taken["store at random"]),
            "ratio",
            "",
            "speed in clips, float16 against float32",
        ),
        Figure("store size ÷ float32 .npy files", path.stat().st_size / files, "ratio", "", "float16, times and ids included"),
    ]
