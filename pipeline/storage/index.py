"""The index: manifest and stores joined by clip id in one HDF5 file, as `train` reads it.

`data/index.h5` holds `ids`, `folds`, and per stream a group `streams/<name>` with an external link `store` to the feature
store, `row` (position of each clip in it, -1 = none), `status`, and `mean` and `std` of each fold's training rows. The
stage `index` writes it (`pipeline/features/index.py`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import StoreError

from . import seal
from .feature_store import Store
from .rows import Rows

SCHEMA_VERSION = 4
#: What to do about an index that is not as it was written.
REMEDY = "Run `dvc repro -f -s index`."


@dataclass(frozen=True)
class IndexedStream:
    """One stream of the index.

    Attributes:
        store: reader of the feature store, checked against the ids.
        row: (N,) int64, position of each clip in the store, -1 = none. status: (N,) uint8.
        mean, std: (F, D), of layers (F, L, D) float32, per fold, over the rows of its training clips.
        facts: attributes: digest, modality, source, random, width, levels, axis (what `levels` counts: `layer`,
            `space`, or nothing), trunk (JSON: depth and base of a language model whose states these are, or null), coverage; of
            an adapted encoder its `adapter`.
    """

    store: Store
    row: np.ndarray
    status: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    facts: dict[str, object]

    @property
    def views(self) -> dict[str, Rows]:
        """By name, the same clips seen otherwise, in the order of the store: `row` is their position there too."""
        return self.store.views


class Index:
    """Reader of `index.h5`.

    Attributes:
        ids: clip ids, sorted. folds: fold numbers.

    Raises:
        StoreError: absent, incomplete, of another version, or not as it was written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._contents = seal.open_sealed(self.path, SCHEMA_VERSION, REMEDY)
        self.ids: list[str] = self._contents.strings("ids")
        self.folds: list[int] = self._contents.arrays["folds"].tolist()
        self.names: tuple[str, ...] = tuple(sorted(place.split("/")[1] for place in self._contents.links))

    def facts(self, name: str) -> dict[str, object]:
        """What is said of a stream, see `IndexedStream`, and `seal`, that of its store, which is not opened.

        Raises:
            StoreError: the index has no such stream.
        """
        if name not in self.names:
            raise StoreError(f"{self.path} has no stream {name!r}. Run `dvc repro index`.")
        return dict(self._contents.attributes[f"streams/{name}"])

    def stream(self, name: str) -> IndexedStream:
        """One stream.

        Raises:
            StoreError: the index has no such stream, or its store has changed since, or is not as it was written.
        """
        facts, place = self.facts(name), f"streams/{name}"
        row, status, mean, std = (self._contents.arrays[f"{place}/{part}"] for part in ("row", "status", "mean", "std"))
        # `data/../features` is another place where data is a link.
        store = Store(os.path.normpath(self.path.parent / self._contents.links[f"{place}/store"]))
        if store.seal != facts.pop("seal"):
            raise StoreError(f"{store.path} has changed since {self.path} was made. Run `dvc repro index`.")
        return IndexedStream(store, row, status, mean, std, facts)
