"""The index: manifest and stores joined by clip id in one HDF5 file, as `train` reads it.

`data/index.h5` holds `ids`, `folds`, and per stream a group `streams/<name>` with an external link `store` to the feature
store, `row` (position of each clip in it, -1 = none), `status`, and `mean` and `std` of each fold's training rows. The
stage `index` writes it (`pipeline/features/index.py`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import StoreError

from .feature_store import Store

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class IndexedStream:
    """One stream of the index.

    Attributes:
        store: reader of the feature store, checked against the ids.
        row: (N,) int64, position of each clip in the store, -1 = none. status: (N,) uint8.
        mean, std: (F, D) or (F, L, D) float32, per fold, over the rows of its training clips.
        facts: attributes: digest, modality, source, random, width, levels, coverage.
    """

    store: Store
    row: np.ndarray
    status: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    facts: dict[str, object]


class Index:
    """Reader of `index.h5`.

    Attributes:
        ids: clip ids, sorted. folds: fold numbers.

    Raises:
        StoreError: absent, incomplete or of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise StoreError(f"{path} is not there. Run `dvc repro index`.")
        with h5py.File(self.path, "r", locking=False) as file:
            if not file.attrs.get("complete", False) or file.attrs["schema"] != SCHEMA_VERSION:
                raise StoreError(f"{path} is incomplete or of another version. Run `dvc repro index`.")
            self.ids: list[str] = [i.decode() for i in file["ids"][:]]
            self.folds: list[int] = file["folds"][:].tolist()
            self.names: tuple[str, ...] = tuple(sorted(file["streams"]))

    def stream(self, name: str) -> IndexedStream:
        """One stream.

        Raises:
            StoreError: the index has no such stream, or its store has changed since.
        """
        if name not in self.names:
            raise StoreError(f"{self.path} has no stream {name!r}. Run `dvc repro index`.")
        with h5py.File(self.path, "r", locking=False) as file:
            group = file["streams"][name]
            link = group.get("store", getlink=True).filename
            row, status, mean, std = (group[part][:] for part in ("row", "status", "mean", "std"))
            facts = {key: value.item() if isinstance(value, np.generic) else value for key, value in group.attrs.items()}
        store = Store(os.path.normpath(self.path.parent / link))  # `data/../features` is another place where data is a link
        if any(r >= 0 and (r >= len(store) or store.ids[r] != clip) for r, clip in zip(row, self.ids, strict=True)):
            raise StoreError(f"{store.path} has changed since {self.path} was made. Run `dvc repro index`.")
        return IndexedStream(store, row, status, mean, std, facts)
