"""What training reads, and what it tells of a run."""

from __future__ import annotations

from dataclasses import dataclass

#: One epoch of one run: what it was worth.
History = list[dict]


@dataclass(frozen=True)
class Sources:
    """The files `train` reads. Held-out truth is not among them."""

    index: str = "data/index.h5"
    manifest: str = "data/manifest.parquet"
    folds: str = "data/folds.parquet"
    annotations: str = "data/annotations.parquet"
