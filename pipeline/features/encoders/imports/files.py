"""Features somebody else computed: files of many layouts, read as a mapping from the file's clip id to rows.

| file | what it may hold |
|---|---|
| `.csv .tsv .arff .parquet` | one row or several per clip: an id column and numeric columns (in parquet also one of lists) |
| `.npy` | (N, ...) array, with the ids of its N rows in a second file (`ids`) |
| `.npz` | one array per clip; or `ids` and `values` |
| `.h5 .hdf5` | one data set per clip (also `<clip>/features` and `<clip>/intervals`); or a store of this project |
| `.pkl .pickle` | a dict of arrays by clip, or of `ids` and `values`; a pack of MMSA (through a restricted unpickler) |
| `.pt .pth` | the same dicts, of tensors, as `torch.save` writes them (nothing else in it is loaded) |
| folder | one `.npy` or `.csv` per clip |
"""

from __future__ import annotations

import csv
import json
import lzma
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl

from pipeline.errors import ParamsError, WeightsError, one_of
from pipeline.storage.hdf5 import open_hdf5, refuse_foreign
from pipeline.weights import intact

from . import arrays, feature_tables, mmsa, tensors, unpickle
from .file_layout import IDS, SUFFIXES, TABLES, VALUES, Features, Layout, Rows


def files(path: Path) -> list[Path]:
    """Every file that is read, for the identity.

    Raises:
        WeightsError: a folder without `.npy` or `.csv` files.
    """
    if path.is_file():
        return [path]
    for suffix in (".npy", ".csv"):
        if found := sorted(path.rglob(f"*{suffix}")):
            return found
    raise WeightsError(f"{path} holds no .npy or .csv file; an import folder has one per clip.")


def read(path: Path, layout: Layout) -> Features:
    """Open ready-made features.

    Raises:
        WeightsError: the file is damaged, of an unknown layout, or names a clip twice.
        ParamsError: a column or key that is not there.
    """
    if path.is_dir():
        paths = files(path)
        one = feature_tables.of_clip if paths[0].suffix == ".csv" else lambda file, _: (arrays.read_npy(file), None)
        return Features({file.relative_to(path).with_suffix("").as_posix(): partial(one, file, layout) for file in paths})
    suffix = path.suffix.lower()
    intact.check(path)
    if suffix not in SUFFIXES:
        raise WeightsError(
            f"{path}: {suffix or 'a file without ending'} is not read; known are {', '.join(SUFFIXES)} and folders."
        )
    try:
        if suffix in TABLES:
            return feature_tables.by_clip(path, layout)
        if suffix == ".npy":
            return _paired(path, _ids_beside(path, layout), arrays.read_npy(path, mapped=True))
        if suffix == ".npz":
            return _of_dict(path, arrays.read_npz(path), layout)
        if suffix in (".pkl", ".pickle"):
            return _of_dict(path, unpickle.load(path), layout)
        if suffix in (".pt", ".pth"):
            return _of_dict(path, tensors.load(path), layout)
        return _of_h5(path, layout)
    except (
        OSError,
        ValueError,
        LookupError,
        EOFError,
        RuntimeError,
        MemoryError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        csv.Error,
        pl.exceptions.PolarsError,
    ) as error:
        raise WeightsError(f"{path} cannot be read ({type(error).__name__}: {' '.join(str(error).split())[:120]}).") from error


def _paired(path: Path, ids: Any, values: Any) -> Features:
    ids = [i.decode() if isinstance(i, bytes) else str(i) for i in np.asarray(ids, dtype=object).ravel()]
    if len(ids) != len(values):
        raise WeightsError(f"{path} has {len(values)} rows and {len(ids)} ids; they are joined by id, so there must be one each.")
    if len(set(ids)) < len(ids):
        double = next(i for i in ids if ids.count(i) > 1)
        raise WeightsError(f"{path} names clip {double!r} twice; keep one.")
    return Features({clip: partial(lambda i: (np.asarray(values[i]), None), i) for i, clip in enumerate(ids)})


def _ids_beside(path: Path, layout: Layout) -> list[str]:
    ends = (".ids.txt", ".ids.json")
    places = [Path(layout.ids)] if layout.ids else [path.with_name(path.stem + end) for end in ends]
    for place in places:
        if place.is_file():
            text = place.read_text(encoding="utf-8")
            return json.loads(text) if place.suffix == ".json" else [line for line in text.splitlines() if line.strip()]
    raise WeightsError(f"{path} says no clip ids; write them, one a line, to {places[0]} or name the file in options.ids.")


def _of_dict(path: Path, content: Any, layout: Layout) -> Features:
    if mmsa.is_pack(content):
        pack = mmsa.features_of(content, layout.key, path.name)
        return Features({clip: partial(lambda v: (v, None), value) for clip, value in pack.items()})
    for step in (layout.key or "").split("/") if layout.key else ():
        if not isinstance(content, dict) or step not in content:
            known = [str(k) for k in content] if isinstance(content, dict) else []
            raise (one_of(f"key of {path.name}", step, known) if known else ParamsError(f"{path} has no key {layout.key!r}."))
        content = content[step]
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path} holds no dict of features by clip; name the part to read in options.key.")
    ids, values = (next((name for name in names if name in content), None) for names in (IDS, VALUES))
    if ids and values:
        return _paired(path, content[ids], content[values])
    return Features({str(clip): partial(lambda v: (v, None), value) for clip, value in content.items()})


def _of_h5(path: Path, layout: Layout) -> Features:
    file = open_hdf5(path)
    _refuse_outside(file)
    root = file
    if layout.key:
        if layout.key not in file:
            raise ParamsError(f"{path} has no part {layout.key!r}; it has {', '.join(list(file)[:8])}.")
        root = file[layout.key]
    if isinstance(root, h5py.Dataset):
        raise ParamsError(f"{path}: {layout.key!r} is one data set; name the part that holds one per clip.")
    if {"ids", "offsets", "values"} <= set(root):
        ids = [i.decode() for i in arrays.read_h5(root["ids"])]
        offsets = arrays.read_h5(root["offsets"])
        if len(offsets) != len(ids) + 1 or offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(root["values"]):
            raise ValueError("its offsets do not fit its ids and values")
        return Features(
            {
                clip: partial(_stored, root, int(offsets[i]), int(offsets[i + 1]))
                for i, clip in enumerate(ids)
                if offsets[i + 1] > offsets[i]
            }
        )
    found: dict[str, Callable[[], Rows]] = {}

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Group) and "features" in item:
            found[name] = partial(_timed, item)
        elif isinstance(item, h5py.Dataset) and "features" not in item.parent:
            found[name] = partial(lambda d: (arrays.read_h5(d), None), item)

    root.visititems(visit)
    if not found:
        raise WeightsError(f"{path} holds no data set; name the part to read in options.key.")
    return Features(found)


def _refuse_outside(file: h5py.File) -> None:
    """
    Raises:
        WeightsError: a part of the file is read from another file. A soft link leads to what is looked at itself.
    """

    def look(place: str, item: object) -> None:
        if not isinstance(item, h5py.Group):
            return
        for name in item:
            if not isinstance(item.get(name, getlink=True), h5py.SoftLink):
                try:
                    refuse_foreign(item, name)
                except ValueError as error:
                    raise WeightsError(f"{file.filename}: {f'{place}/' * bool(place)}{error}.") from error

    look("", file)
    file.visititems(look)


def _stored(root: h5py.Group, low: int, high: int) -> Rows:
    values, times = (root[name] if name in root else None for name in ("values", "times"))
    return arrays.read_h5(values, low, high), None if times is None else arrays.read_h5(times, low, high)


def _timed(group: h5py.Group) -> Rows:
    values = arrays.read_h5(group["features"])
    return values, arrays.read_h5(group["intervals"]) if "intervals" in group else None
