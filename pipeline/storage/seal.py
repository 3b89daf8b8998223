"""The seal of an HDF5 file of ours: it holds what was written, and holds it itself.

The attribute `seal` is a hash over all attributes, links, shapes and arrays but those called `values`, which are too large to
be read whenever a file is opened. The rows of each clip in `values` have a hash of their own in `sums`, checked when they are
read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xxhash

from pipeline.errors import StoreError

from .hdf5 import is_refused, open_hdf5, refuse_foreign
from .heap import check_heaps

#: What h5py and numpy raise over a file that is not as it was written.
DAMAGE = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError, IndexError, MemoryError, OverflowError)
#: The arrays that are left out of the seal, in whatever group.
LARGE = "values"
#: The group of links to the files of a store that has several.
SHARDS = "shards"
#: The attribute of such a file that says what it was made of; it is its name.
MADE_OF = "made_of"
#: Bytes in an array for a text of any length, which stands elsewhere in the file.
TEXT = 16
#: Groups within groups that a file of ours has.
DEPTH = 3


@dataclass
class Large:
    """An array of `values`, which is read only when it cannot be mapped.

    Attributes:
        offset: its place in the file; None when its bytes are in `loaded`, or there are none.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int | None = None
    loaded: np.ndarray | None = None


@dataclass
class Contents:
    """What a sealed file holds.

    Attributes:
        arrays: by path, all but those called `values`, which are in `large`.
        attributes: by path of their group, `` is the file's. links: external ones, by path.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    large: dict[str, Large] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    seal: str = ""

    def strings(self, name: str) -> list[str]:
        """An array of texts."""
        return [item.decode() for item in self.arrays[name]]


def seal(file: h5py.File) -> None:
    """The last that is written into a file: that it is complete, and its seal."""
    file.attrs["complete"] = True
    file.attrs["seal"] = _survey(file, Contents())


def sum_rows(rows: np.ndarray | memoryview) -> int:
    """Hash of the bytes of one clip."""
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(rows).data)


def open_sealed(path: Path, schema: int, remedy: str) -> Contents:
    """All that a sealed file holds, but `values`, which is read only when it cannot be mapped.

    Args:
        remedy: what to do about a file that is not as it was written, a sentence.

    Raises:
        StoreError: the file is absent, not HDF5, incomplete, of another version, or not as it was written.
    """
    if not path.is_file():
        raise StoreError(f"{path} is not there. Run `dvc repro` to make it.")
    try:
        with open_hdf5(path) as file:
            if file.attrs.get("complete", False) is not np.True_:
                raise StoreError(f"{path} is not complete. {remedy}")
            if (found := file.attrs.get("schema")) != schema:
                raise StoreError(f"{path} has schema {found}; this version reads {schema}. {remedy}")
            contents = Contents()
            contents.seal = _survey(file, contents)
            if contents.seal != file.attrs.get("seal"):
                raise StoreError(f"{path} is not as it was written. {remedy}")
            for place, large in contents.large.items():
                _locate(file[place], large, path)
            return contents
    except DAMAGE as error:
        said = " ".join(str(error).split())[:160]
        if is_refused(error):
            raise StoreError(f"{path} cannot be opened now ({said}); what it holds was not read.") from error
        raise StoreError(f"{path} cannot be read as HDF5 of ours ({said}). {remedy}") from error


def check_layout(
    contents: Contents, path: Path, remedy: str, *, group: str = "", last: str = "offsets", alone: bool = False
) -> None:
    """Whether the arrays of a store, or of a group in it, fit each other and its ids.

    Args:
        group: where they are, with a `/` at its end; `` is the file itself.
        last: the array whose last number is the length of `values`.
        alone: rows of the group need not have the shape of the file's own.

    Raises:
        StoreError: they do not.
    """
    try:
        ids = contents.strings("ids")
        offsets, ends, times, status, sums = (
            contents.arrays[group + name] for name in ("offsets", last, "times", "status", "sums")
        )
        fits = (
            ids == sorted(set(ids))
            and offsets.shape == (len(ids) + 1,)
            and times.shape == (offsets[-1], 2)
            and status.shape == sums.shape == (len(ids),)
            and bool((status <= 2).all())
            and _rises(offsets)
            and _rises(ends)
            and contents.large[group + LARGE].shape == (ends[-1], *contents.large[group * alone + LARGE].shape[1:])
        )
    except DAMAGE:
        fits = False
    if not fits:
        raise StoreError(
            f"{path}: {'the arrays of ' + group.rstrip('/') if group else 'its arrays'} do not fit each other. {remedy}"
        )


def _rises(numbers: np.ndarray) -> bool:
    return numbers.dtype == np.int64 and numbers[0] == 0 and bool((np.diff(numbers) >= 0).all())


def _locate(data: h5py.Dataset, large: Large, path: Path) -> None:
    large.offset = data.id.get_offset()
    if large.offset is None:
        large.loaded = data[:]
    elif large.offset + data.nbytes > path.stat().st_size:
        raise OSError("it ends within its values")


def _survey(file: h5py.File, contents: Contents) -> str:
    """The seal of a file, whose arrays, attributes and links are put into `contents`."""
    hashed = xxhash.xxh3_128()
    for path, item in _walk(file, "", 0):
        hashed.update(f"{path}\n".encode())
        if isinstance(item, h5py.ExternalLink):
            contents.links[path] = item.filename
            hashed.update(f"{item.filename}\n{item.path}".encode())
            continue
        attributes = {name: _plain(item.attrs[name]) for name in sorted(item.attrs) if path or name != "seal"}
        contents.attributes[path] = attributes
        hashed.update(json.dumps(attributes, sort_keys=True).encode())
        if isinstance(item, h5py.Dataset):
            hashed.update(f"{item.dtype.str}{item.shape}".encode())
            if path.rpartition("/")[2] == LARGE:
                contents.large[path] = Large(item.shape, item.dtype)
            else:
                contents.arrays[path] = array = _read_small(item)
                hashed.update(b"".join(_framed(array)) if array.dtype == object else np.ascontiguousarray(array).data)
    return hashed.hexdigest()


def _walk(group: h5py.Group, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Path and object of a group and all in it; of an external link, the link. No link is followed."""
    yield path, group
    for name in sorted(group):
        place, link = f"{path}/{name}".lstrip("/"), group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink) and (name == "store" or path == SHARDS):
            yield place, link
            continue
        refuse_foreign(group, name)
        if isinstance(group[name], h5py.Group):
            if depth >= DEPTH:
                raise ValueError(f"groups within groups at {place}")
            yield from _walk(group[name], place, depth + 1)
        else:
            yield place, group[name]


def _read_small(data: h5py.Dataset) -> np.ndarray:
    # Before anything is allocated: a damaged shape may ask for more memory than there is.
    size = TEXT if data.dtype == object else data.dtype.itemsize
    if data.chunks is not None or data.id.get_storage_size() != data.size * size:
        raise ValueError(f"{data.name} has another layout than it was written with")
    if data.dtype == object:
        check_heaps(data)
    return data[()]


def _framed(texts: np.ndarray) -> Iterator[bytes]:
    for text in texts.ravel():
        yield len(text).to_bytes(8, "little")
        yield text


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value
