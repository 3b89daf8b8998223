"""Stores in several files: which clips go into which, and a small file in front that names them.

Clips are kept in the order of their ids, and cut where their ids differ: at the first bit in which those of a part that is too
large are not alike, again and again until every part fits. Where a clip belongs follows from the ids alone, so that one more
changes one part, or cuts it in two, and leaves the bytes of all others; and a store that grew is the store made at once.
"""

from __future__ import annotations

import os
import shutil
from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np

from pipeline.errors import StoreError

from . import seal
from .atomic import write_json
from .feature_store import SCHEMA_VERSION, Store, describe
from .hdf5 import atomic_hdf5
from .seal import SHARDS

#: Beside the files, in their order; without it DVC warns of an empty folder where a store is one file.
LIST = "files.json"
#: Bytes in a GiB.
GIB = 1 << 30


def split(ids: Sequence[str], sizes: Sequence[int], limit: float) -> list[slice]:
    """Runs of ids whose sizes add up to `limit` at most; one clip that is larger stands alone.

    Args:
        ids: sorted, as Python sorts texts, which is the order of their bytes in UTF-8.
        sizes: bytes of each.

    >>> split(["a/1", "a/2", "b/1", "b/2"], [5, 5, 5, 5], 10)
    [slice(0, 2, None), slice(2, 4, None)]
    """
    keys = [clip.encode() for clip in ids]
    ends = np.concatenate([[0], np.cumsum(np.asarray(sizes, dtype=np.int64))])
    done, waiting = [], [(0, len(keys))]
    while waiting:
        low, high = waiting.pop()
        if high - low <= 1 or ends[high] - ends[low] <= limit:
            done.append(slice(low, high))
            continue
        middle = bisect_left(keys, _border(keys[low], keys[high - 1]), low, high)
        waiting += [(middle, high), (low, middle)]
    return done


def _border(first: bytes, last: bytes) -> bytes:
    """The least text that has the bit set in which two texts first differ; it is above the first and not above the last."""
    shared = first[: len(os.path.commonprefix([first, last]))]
    ones, others = (text[len(shared)] if len(text) > len(shared) else 0 for text in (first, last))
    # Where one is the beginning of the other and zero bytes follow, there is no such bit.
    if ones == others:
        return shared + last[len(shared) : len(shared) + 1]
    highest = 1 << ((ones ^ others).bit_length() - 1)
    return shared + bytes([others & ~(highest - 1)])


def folder_of(path: Path) -> Path:
    """Where the files of a store lie when there are several: `features/shards/audio/` of `features/audio.h5`."""
    return path.parent / SHARDS / path.stem


def write(
    path: Path,
    names: Sequence[str],
    make: Callable[[int, Path], None],
    attributes: dict[str, object],
) -> None:
    """Write those files of a store that are not there, and then what names them all; files of before go last.

    Until the rename of `path` the store of before is whole, and after it the new one.

    Args:
        names: of the files, in the order of their clips; each says all that its file is made of.
        make: (which, where) writes one of them, with its name as the attribute `made_of`.
        attributes: of the store.

    Raises:
        StoreError, DiskError: a file cannot be written.
    """
    folder = folder_of(path)
    folder.mkdir(parents=True, exist_ok=True)
    seals = []
    for i, name in enumerate(names):
        place = folder / f"{name}.h5"
        if not _is_whole(place):
            make(i, place)
        seals.append(Store(place).seal)
    with atomic_hdf5(path) as (file, _):
        group = file.create_group(SHARDS)
        for i, name in enumerate(names):
            group[f"{i:05d}"] = h5py.ExternalLink(f"{SHARDS}/{path.stem}/{name}.h5", "/")
        texts = np.array([one.encode() for one in seals], dtype=object)
        file.create_dataset("seals", data=texts, dtype=h5py.string_dtype("utf-8"))
        file.attrs["schema"] = SCHEMA_VERSION
        describe(file, attributes)
        seal.seal(file)
    clear(path, names)


def clear(path: Path, names: Sequence[str] = ()) -> None:
    """Remove all files beside a store but those named. The folder stays, with a list of them: DVC looks for both."""
    folder = folder_of(path)
    write_json(folder / LIST, {"files": list(names)})
    for left in folder.iterdir():
        if left.name != LIST and left.stem not in names:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def _is_whole(place: Path) -> bool:
    """Whether a file is there from before, is the one meant, and is as it was written to its last byte."""
    try:
        store = Store(place)
        if store.attributes.get(seal.MADE_OF) != place.stem:
            return False
        store.verify()
    except StoreError:
        return False
    return True
