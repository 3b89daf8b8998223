"""A feature store with the labels and folds of its clips, as numpy, torch, polars or a data set of Hugging Face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.errors import StoreError, UserError, one_of
from pipeline.storage import tables
from pipeline.storage.feature_store import Status, Store

if TYPE_CHECKING:
    import datasets
    import torch

#: Columns of the manifest that say how a clip was cut and hashed, not what it is.
_PLUMBING = ("video", "audio", "channel", "half", "labels", "content", "video_hash", "audio_hash")


def load(path: str | Path, data: str | Path | None = None) -> Features:
    """A stream's features.

    Args:
        path: a store, e.g. `features/audio.h5`.
        data: the folder of `manifest.parquet`, `truth.parquet` and `folds.parquet`; None = `data` beside the store's folder.
            Without these tables there are no labels and folds.

    Raises:
        StoreError: the store is not there, or not as it was written.

    >>> from pipeline.storage.feature_store import Entry, write
    >>> rows = Entry(np.ones((2, 3), np.float32), np.array([[0, 1], [1, 2]], np.float32))
    >>> write("audio.h5", ["clip"], [rows], rows=[2], shape=(3,), attributes={"stream": "audio"})
    >>> audio = load("audio.h5")
    >>> audio["clip"].shape, audio.times("clip").tolist()
    ((2, 3), [[0.0, 1.0], [1.0, 2.0]])
    """
    path = Path(path)
    return Features(Store(path), path.absolute().parent.parent / "data" if data is None else Path(data))


class Features:
    """Rows of every clip of one stream. A clip that lacks the stream has no row; `status` says why.

    Attributes:
        ids: of the clips, sorted. shape, dtype: of one row, and of its numbers as they are stored.
        about: what made them (stream, modality, weights, rates), as in the store.
    """

    def __init__(self, store: Store, data: Path) -> None:
        self._store, self._data = store, data
        self.ids: list[str] = store.ids
        self.shape: tuple[int, ...] = tuple(store.shape[1:])
        self.dtype: np.dtype = store.dtype
        self.about: dict[str, Any] = dict(store.attributes)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, clip: object) -> bool:
        return clip in self._store.position

    def __getitem__(self, clip: str) -> np.ndarray:
        """Rows (T, ...) of a clip, read-only, in the store's dtype; T is 0 where the clip lacks the stream.

        Raises:
            StoreError: there is no such clip, or its rows are not those that were written.
        """
        return self._store[clip].values

    def times(self, clip: str) -> np.ndarray:
        """(T, 2) start and end of each row, seconds from the start of the clip."""
        return self._store[clip].times

    def status(self, clip: str) -> str:
        """`ok`, `missing` (the clip has no such modality) or `failed` (it could not be read)."""
        return self._store[clip].status.name.lower()

    def __repr__(self) -> str:
        there = int((self._store.status == Status.OK).sum())
        name = self.about.get("stream", self._store.path.stem)
        return f"Features({name}: {there} of {len(self)} clips, rows of {'×'.join(map(str, self.shape))} {self.dtype})"

    @cached_property
    def clips(self) -> pl.DataFrame:
        """A row per clip: `id`, `status`, `rows`, what the manifest knows (labels, speaker, dialogue …), `fold0` … with its role.

        Held-out labels are in it, for they are read from where `evaluate` reads them: take `train` and `val` of a fold to learn.
        """
        counts = np.diff(self._store.offsets)
        codes = [Status(int(code)).name.lower() for code in self._store.status]
        table = pl.DataFrame({"id": self.ids, "status": codes, "rows": counts})
        for extra in (self._described(), self._folds()):
            table = table if extra is None else table.join(extra, on="id", how="left", maintain_order="left")
        return table

    def numpy(self, pool: str | None = "mean", ids: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """All clips as arrays of one length.

        Args:
            pool: `mean` over a clip's rows, or None for the rows themselves, padded with zeros at the end.
            ids: of the clips wanted, in this order; None = all.

        Returns:
            float32 values (N, ...) and whether a clip has any (N,); unpooled (N, T, ...) and whether a row is one (N, T).

        Raises:
            StoreError: there is no such clip. UserError: another `pool`.
        """
        wanted = self.ids if ids is None else list(ids)
        rows = [self[clip] for clip in wanted]
        if pool == "mean":
            there = np.array([len(one) > 0 for one in rows], bool)
            zero = np.zeros(self.shape, np.float32)
            means = [one.astype(np.float32).mean(0) if len(one) else zero for one in rows]
            return np.stack(means) if means else np.zeros((0, *self.shape), np.float32), there
        if pool is not None:
            raise one_of("pool", pool, ["mean", "None"])
        longest = max(map(len, rows), default=0)
        values = np.zeros((len(rows), longest, *self.shape), np.float32)
        valid = np.zeros((len(rows), longest), bool)
        for i, one in enumerate(rows):
            values[i, : len(one)], valid[i, : len(one)] = one, True
        return values, valid

    def torch(self, pool: str | None = None, ids: Sequence[str] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """`numpy`, as tensors."""
        import torch

        values, valid = self.numpy(pool, ids)
        return torch.from_numpy(values), torch.from_numpy(valid)

    def polars(self) -> pl.DataFrame:
        """A row per row of the store: `id`, `row`, `start`, `end`, `values` (an array), joined with `clips`."""
        counts = np.diff(self._store.offsets)
        values = np.asarray(self._store.values, np.float32)
        table = pl.DataFrame(
            {
                "id": np.repeat(np.array(self.ids, object), counts).tolist(),
                "row": np.concatenate([np.arange(n) for n in counts]) if len(counts) else np.zeros(0, np.int64),
                "start": self._store.times[:, 0],
                "end": self._store.times[:, 1],
                "values": values,
            }
        )
        return table.join(self.clips.drop("rows"), on="id", how="left", maintain_order="left")

    def dataset(self) -> datasets.Dataset:
        """A `datasets.Dataset`: an example per clip, `values` a list of rows and `times`, with the columns of `clips`.

        Raises:
            UserError: the package `datasets` is not installed.
        """
        try:
            import datasets
        except ImportError as error:
            raise UserError("Features.dataset() needs the package datasets: pip install datasets.") from error
        columns: dict[str, list] = self.clips.to_dict(as_series=False)
        columns["values"] = [self[clip].astype(np.float32) for clip in self.ids]
        columns["times"] = [self.times(clip) for clip in self.ids]
        return datasets.Dataset.from_dict(columns)

    def _described(self) -> pl.DataFrame | None:
        if not (path := self._data / "manifest.parquet").is_file():
            return None
        table = _read(path)
        if (held := self._data / "truth.parquet").is_file():
            table = table.join(_read(held), on="id", how="left", suffix="_held", maintain_order="left")
            table = table.with_columns(pl.coalesce(f"{name}_held", name).alias(name) for name in tables.LABELS)
        return table.drop("split", *_PLUMBING, *(f"{name}_held" for name in tables.LABELS), strict=False)

    def _folds(self) -> pl.DataFrame | None:
        if not (path := self._data / "folds.parquet").is_file():
            return None
        roles = _read(path).select("id", "fold", "role")
        parts = [
            roles.filter(pl.col("fold") == fold).select("id", pl.col("role").alias(f"fold{fold}"))
            for fold in sorted(roles["fold"].unique())
        ]
        table = roles.select("id").unique(maintain_order=True)
        for part in parts:
            table = table.join(part.unique("id", keep="first", maintain_order=True), on="id", how="left", maintain_order="left")
        return table


def _read(path: Path) -> pl.DataFrame:
    """
    Raises:
        StoreError: it is no table of ours.
    """
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"{path} cannot be read ({str(error).splitlines()[0]}). Run `dvc repro`.") from error
    if "id" not in table.columns:
        raise StoreError(f"{path} is no table of clips: it has no column id.")
    return table
