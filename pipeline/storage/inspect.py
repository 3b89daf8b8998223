"""What an HDF5 file of ours holds, in words."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import StoreError

from . import output_store
from .feature_store import Status, Store
from .hdf5 import open_hdf5, refuse_foreign
from .index import Index
from .media_store import Media
from .seal import DAMAGE, SHARDS


def describe(path: str | Path) -> str:
    """Datasets, attributes, counts per status and the first clips.

    Raises:
        StoreError: the file is absent, not HDF5, or damaged.

    >>> with h5py.File("a.h5", "w") as file:
    ...     file["values"] = np.zeros((2, 3), np.float16)
    >>> print(describe("a.h5"))
    a.h5 0.00 MB NOT COMPLETE
      values (2, 3) float16
    """
    path = Path(path)
    if not path.is_file():
        raise StoreError(f"{path} is not there. Run `dvc repro` to make it.")
    try:
        with open_hdf5(path) as file:
            return "\n".join(_lines(path, file))
    except DAMAGE as error:
        raise StoreError(f"{path} cannot be read as HDF5 ({' '.join(str(error).split())[:160]}).") from error


def _lines(path: Path, file: h5py.File) -> list[str]:
    lines = [f"{path}  {path.stat().st_size / 1e6:.2f} MB  {'complete' if file.attrs.get('complete') else 'NOT COMPLETE'}"]
    lines += [f"  @{name} = {_short(value)}" for name, value in file.attrs.items() if name != "complete"]
    names: list[str] = []
    file.visit(names.append)  # links are not followed
    for name in {*names, *file}:
        refuse_foreign(file, name)
    lines += [f"  {name:22} {file[name].shape} {file[name].dtype}" for name in names if isinstance(file[name], h5py.Dataset)]
    for name in names:
        if name.rpartition("/")[2] == "status" and not name.startswith("streams/"):
            counts = np.bincount(file[name][:].ravel(), minlength=len(Status))
            what = "clips" if name == "status" else f"clips of {name.rpartition('/')[0]}"
            lines.append(f"  {what}: " + ", ".join(f"{counts[s]} {s.name.lower()}" for s in Status))
    if SHARDS in file:
        lines += [f"  {name}: {file[SHARDS].get(name, getlink=True).filename}" for name in file[SHARDS]]
    if "ids" in file and "offsets" in file:
        ids, offsets = file["ids"][:6], file["offsets"][:7]
        for i, clip in enumerate(ids):
            lines.append(f"    {clip.decode()}: rows {offsets[i]}–{offsets[i + 1]}")
    return lines


def _short(value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    if text[:1] == "{":
        text = json.dumps(json.loads(text), sort_keys=True)
    return text if len(text) <= 300 else text[:297] + "…"


def verify(path: str | Path) -> int:
    """Read a file of ours to its last byte. Returns how many clips it holds.

    Raises:
        StoreError: it, or a store that an index points to, is not as it was written.
    """
    path = Path(path)
    try:
        with open_hdf5(path) as file:
            kind = "index" if "streams" in file else "media" if "extents" in file else "features"
    except DAMAGE:
        kind = "features"  # opening it as that says what is wrong
    if output_store.is_output(path):
        outputs = output_store.read(path)[0]
        for rows in outputs.values():
            rows.verify()
        return len(next(iter(outputs.values())).ids)
    if kind == "index":
        index = Index(path)
        for name in index.names:
            index.stream(name).store.verify()
        return len(index.ids)
    store: Store | Media = Media(path) if kind == "media" else Store(path)
    store.verify()
    return len(store.ids)
