"""Several named outputs of the same clips in one HDF5 file: each a group laid out as a feature store is.

`NAME/values` holds the rows of the clips that have the output; `NAME/ids`, `offsets`, `times`, `status`, `reasons` and `sums`
say which those are (docs/feature-store.md). `ids` and attributes of the whole stand at the top. `seal.py` checks that all is as
it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import StoreError

from . import seal
from .feature_store import Entry, Layout, describe, write_rows
from .hdf5 import atomic_hdf5, open_hdf5
from .rows import Rows, parse_attributes

SCHEMA_VERSION = 1
REMEDY = "Delete it and run the command that made it."


@dataclass(frozen=True)
class Output:
    """One output of all clips.

    Attributes:
        read: → one entry per clip, in the order of the ids; called once.
        rows: how many rows each has. shape: of one row. reasons: why a clip has none, empty where it has.
    """

    read: Callable[[], Iterable[Entry]]
    rows: Sequence[int]
    shape: tuple[int, ...]
    reasons: Sequence[str]


def write(path: str | Path, ids: Sequence[str], outputs: Mapping[str, Output], dtype: str, attributes: dict[str, object]) -> None:
    """Write a file; the same input gives the same bytes.

    Raises:
        StoreError: ids are unsorted or doubled, or an entry does not fit; see `feature_store.write`.
    """
    ids = list(ids)
    if ids != sorted(set(ids)):
        raise StoreError(f"{path}: clip ids must be sorted and unique.")
    with atomic_hdf5(path) as (file, check):
        _write_texts(file, "ids", ids)
        for name, output in sorted(outputs.items()):
            group = file.create_group(name)
            _write_texts(group, "ids", ids)
            _write_texts(group, "reasons", output.reasons)
            layout = Layout(path, ids, output.shape, dtype, None)
            describe(group, {}, write_rows(group, layout, output.read(), output.rows, check))
        file.attrs["schema"] = SCHEMA_VERSION
        describe(file, attributes, 0.0)
        seal.seal(file)


def is_output(path: str | Path) -> bool:
    """Whether an HDF5 file is one of these; false of what cannot be read."""
    try:
        with open_hdf5(path) as file:
            return "ids" in file and "values" not in file and any(f"{name}/values" in file for name in file if name != "ids")
    except seal.DAMAGE:
        return False


def _write_texts(group: h5py.Group, name: str, texts: Sequence[str]) -> None:
    data = np.array([one.encode() for one in texts], dtype=object)
    group.create_dataset(name, data=data, dtype=h5py.string_dtype("utf-8"))


def read(path: str | Path) -> tuple[dict[str, Rows], dict[str, object]]:
    """Output → its rows, mapped, and the attributes of the whole.

    Raises:
        StoreError: the file is absent, incomplete, of another version, or not as it was written.

    >>> entry = Entry(np.ones((1, 2, 4), np.float32), np.array([[0, 1]], np.float32))
    >>> write("a.h5", ["clip"], {"states": Output(lambda: [entry], [1], (2, 4), [""])}, "float32", {"seed": 1})
    >>> outputs, attributes = read("a.h5")
    >>> outputs["states"].values.shape, attributes["seed"]
    ((1, 2, 4), 1)
    """
    path = Path(path)
    contents = seal.open_sealed(path, SCHEMA_VERSION, REMEDY)
    groups = sorted(name for name in contents.attributes if name and f"{name}/ids" in contents.arrays)
    outputs = {name: Rows(path, [(path, contents)], f"{name}/", alone=True) for name in groups}
    return outputs, parse_attributes(contents.attributes[""])
