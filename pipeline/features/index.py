"""Stage `index`: manifest and stores joined by id, checked, in one HDF5 file (layout: `pipeline/storage/index.py`).

Its bytes change exactly when something `train` reads does.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Collection
from pathlib import Path

import h5py
import numpy as np
import polars as pl

from pipeline.errors import StoreError
from pipeline.params import Params, Stream
from pipeline.storage import seal, tables
from pipeline.storage.axis import axis_of
from pipeline.storage.classes import check_classes
from pipeline.storage.feature_store import Status, Store
from pipeline.storage.hdf5 import atomic_hdf5
from pipeline.storage.index import SCHEMA_VERSION
from pipeline.storage.memo import sum_file
from pipeline.storage.shards import folder_of

log = logging.getLogger(__name__)

#: A standard deviation below this is a constant feature; it is centred, not blown up.
FLOOR = 1e-6


def build(
    params: Params,
    *,
    features: str | Path = "features",
    manifest: str | Path = "data/manifest.parquet",
    folds: str | Path = "data/folds.parquet",
    out: str | Path = "data/index.h5",
) -> dict[str, dict[str, int]]:
    """Join, check, write.

    Returns:
        Per stream: clips `ok`, `missing`, `failed`, `absent` (in the manifest, not in the store) and
        `other` (in the store, not in the manifest).

    Raises:
        StoreError: a store is absent or not as it was written, shares no clip with the manifest, is not the stream's, or has
            no usable clip to train on.
        ParamsError: see `check_classes`.
    """
    table, roles = tables.read(manifest), tables.read(folds)
    ids = sorted(table["id"].to_list())
    if not ids:
        raise StoreError(f"{manifest} has no clips; see data/quarantine.parquet.")
    numbers, training = training_rows(roles, ids, folds)
    coverage = {}
    usable = np.zeros(len(ids), bool)
    out = Path(out)
    with atomic_hdf5(out) as (file, check):
        file.create_dataset("ids", data=np.array([i.encode() for i in ids], dtype=object), dtype=h5py.string_dtype("utf-8"))
        file.create_dataset("folds", data=np.array(numbers, dtype=np.int64))
        for name in sorted(params.streams):
            check()
            path = Path(features) / f"{name}.h5"
            store = Store(path)
            _belongs(store, name, params.streams[name])
            group = file.create_group(f"streams/{name}")
            row, status = join(store, ids)
            coverage[name] = _coverage(store, ids, row, status)
            store.verify()
            usable |= status == Status.OK
            # As the folders are named: either file may be a link into DVC's cache, which is elsewhere on other machines.
            group["store"] = h5py.ExternalLink(os.path.relpath(path, out.parent), "/")
            group.create_dataset("row", data=row)
            group.create_dataset("status", data=status)
            mean, deviation = normalisation(store, row, status, training)
            group.create_dataset("mean", data=mean)
            group.create_dataset("std", data=deviation)
            for key, value in sorted(_facts(store, path).items()):
                group.attrs[key] = value
            group.attrs["coverage"] = json.dumps(coverage[name], sort_keys=True)
        if params.task.emotion and params.protocol.kind != "none":
            check_classes(
                table, roles, params.task.classes, {ids[i] for i in np.flatnonzero(usable)}, alone=not params.task.dimensions
            )
        file.attrs["schema"] = SCHEMA_VERSION
        seal.seal(file)
    remove_stale(Path(features), params.streams)
    return coverage


def training_rows(folds: pl.DataFrame, ids: list[str], origin: object) -> tuple[list[int], np.ndarray]:
    """Fold numbers, and (F, N) bool: clip n is a training clip of fold f.

    Raises:
        StoreError: no fold, an unknown role, a clip twice in one fold, or a fold without training clips.
    """
    unknown = set(folds["role"].drop_nulls().unique()) - {"train", "val", "test"}
    if unknown:
        raise StoreError(f"{origin} has unknown roles {sorted(unknown)}; known: train, val, test.")
    if folds.select("fold", "id").is_duplicated().any():
        raise StoreError(f"{origin} gives a clip two roles in one fold. Run `dvc repro manifest`.")
    numbers = sorted(folds["fold"].unique().to_list())
    if not numbers:
        raise StoreError(f"{origin} has no fold. Run `dvc repro manifest`.")
    position = {clip: i for i, clip in enumerate(ids)}
    training = np.zeros((len(numbers), len(ids)), bool)
    for f, number in enumerate(numbers):
        chosen = folds.filter((pl.col("fold") == number) & (pl.col("role") == "train"))["id"]
        training[f, [position[clip] for clip in chosen if clip in position]] = True
        if not training[f].any():
            raise StoreError(f"{origin}: fold {number} has no training clip of the manifest; see `protocol` in params.yaml.")
    return numbers, training


def join(store: Store, ids: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """`row` (N,) int64, -1 = not in the store, and `status` (N,) uint8; what is not there is missing."""
    row = np.array([store.position.get(clip, -1) for clip in ids], dtype=np.int64)
    status = np.where(row >= 0, store.status[row], int(Status.MISSING)).astype(np.uint8)
    return row, status


def normalisation(store: Store, row: np.ndarray, status: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over all rows of each fold's training clips; a trunk's prompt is left out.

    Args:
        training: (F, N) bool; only these clips are read for fold f.

    Returns:
        (F, D), of layers (F, L, D) float32 each; standard deviation 1 where the feature is constant.
    """
    # A place of a picture is like any other: all share one mean and deviation. Layers have their own.
    places, prompted = axis_of(store) == "space", trunk_of(store) is not None
    shape = store.shape[2:] if places else store.shape[1:]
    total, squares = np.zeros((2, len(training), *shape))
    count = np.zeros(len(training))
    for clip in np.flatnonzero(training.any(0) & (status == Status.OK)):
        low, high = store.offsets[row[clip]], store.offsets[row[clip] + 1]
        values = store.values[low:high].astype(np.float64)
        if prompted:
            spans = store.times[low:high]
            values = values[spans[:, 1] > spans[:, 0]]
        if places:
            values = values.reshape(-1, *shape)
        inside = training[:, clip]
        total[inside] += values.sum(0)
        squares[inside] += np.square(values).sum(0)
        count[inside] += len(values)
    if not count.all():
        raise StoreError(
            f"{store.path} has no usable clip among the training clips of a fold; "
            "drop the stream (`-S '~stream@streams.<name>'`) or mend its extraction."
        )
    count = count.reshape(-1, *[1] * len(shape))
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - np.square(mean), 0))
    # Sums of large constants leave rounding behind, so the floor is relative to the mean as well.
    constant = deviation < FLOOR * (1 + np.abs(mean))
    return mean.astype(np.float32), np.where(constant, 1, deviation).astype(np.float32)


def _belongs(store: Store, name: str, stream: Stream) -> None:
    found = store.attributes.get("modality", stream.modality)
    if found != stream.modality:
        raise StoreError(
            f"{store.path} holds {found} features, but stream {name!r} is {stream.modality}. Run `dvc repro extract@{name}`."
        )
    if tuple(store.views) != stream.views:
        held, asked = (", ".join(views) or "none" for views in (store.views, stream.views))
        raise StoreError(f"{store.path} holds the views {held}; stream {name!r} has {asked}. Run `dvc repro extract@{name}`.")
    if len(store.shape) not in (2, 3):
        raise StoreError(f"{store.path} has rows of shape {store.shape[1:]}; a stream's rows are (D,) or (N, D).")


def remove_stale(features: Path, names: Collection[str]) -> list[str]:
    """Remove the stores of streams that are no more, which `index` would depend on; `extract` brings them back.

    Returns:
        Names of the stores removed. What is no store of ours, or is not named after its stream, stays.
    """
    removed = []
    for path in sorted(features.glob("*.h5")):
        if path.stem in names:
            continue
        try:
            if Store(path).attributes.get("stream") != path.stem:
                continue
        except StoreError:
            continue
        path.unlink()
        path.with_suffix(".stats.json").unlink(missing_ok=True)
        shutil.rmtree(folder_of(path), ignore_errors=True)
        log.info("%s is removed: no stream is called %s any more", path, path.stem)
        removed.append(path.stem)
    return removed


def _coverage(store: Store, ids: list[str], row: np.ndarray, status: np.ndarray) -> dict[str, int]:
    if not (row >= 0).any():
        raise StoreError(f"{store.path} shares no clip with the manifest. Run `dvc repro`.")
    known = set(ids)
    return {
        "ok": int((status == Status.OK).sum()),
        "missing": int(((status == Status.MISSING) & (row >= 0)).sum()),
        "failed": int((status == Status.FAILED).sum()),
        "absent": int((row < 0).sum()),
        "other": sum(clip not in known for clip in store.ids),
    }


def trunk_of(store: Store) -> dict | None:
    """`depth` and `base` of a language model whose states the store holds; None of any other store."""
    identity = store.attributes.get("identity")
    return identity.get("trunk") if isinstance(identity, dict) else None


def _facts(store: Store, path: Path) -> dict[str, object]:
    """What the report and the checkpoints say about a stream."""
    identity = store.attributes.get("identity")
    weights = identity.get("weights") if isinstance(identity, dict) else None
    source = str(weights.get("source", "")) if isinstance(weights, dict) else str(weights or "")
    adapter = identity.get("adapter") if isinstance(identity, dict) else None
    return {
        "digest": sum_file(path),
        "seal": store.seal,
        "modality": str(store.attributes.get("modality", "")),
        "width": int(store.shape[-1]),
        "levels": int(store.shape[1]) if len(store.shape) == 3 else 0,
        "axis": axis_of(store),
        "source": source,
        "random": source.startswith("random:"),
        "trunk": json.dumps(trunk_of(store), sort_keys=True),
        **({"adapter": str(adapter.get("sha256"))} if isinstance(adapter, dict) else {}),
    }
