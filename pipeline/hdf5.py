"""HDF5 files that are complete or absent, on a disk that may be full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import h5py

from .atomic import replacing


class _Sink(FileIO):
    """A file that never refuses: the first error is kept, and what comes after it is dropped.

    HDF5 cannot close a file whose last writes fail: it frees its handles twice and ends the process.
    """

    error: BaseException | None = None

    def write(self, data: memoryview) -> int:
        view = memoryview(data).cast("B")
        try:
            at = 0
            while self.error is None and at < len(view):
                at += super().write(view[at:])
        except BaseException as error:  # noqa: BLE001  raised by `writing` as soon as HDF5 has let go of the file
            self.error = error
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            if self.error is None:
                return super().truncate(size)
        except BaseException as error:  # noqa: BLE001  as above
            self.error = error
        return size or 0


@contextmanager
def writing(path: str | Path) -> Iterator[h5py.File]:
    """A new file that becomes `path` when the block ends well.

    Raises:
        DiskError: the disk is full, or the folder cannot be written.
    """
    with replacing(path) as temporary, _Sink(temporary, "r+") as sink:
        try:
            with h5py.File(sink, "w", track_order=False) as file:
                yield file
        except Exception:
            if sink.error is None:  # else HDF5 stumbled over what was dropped
                raise
        if sink.error is not None:
            raise sink.error
