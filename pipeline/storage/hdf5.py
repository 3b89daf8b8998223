"""HDF5 files that are complete or absent, on a disk that may be full, and that hold themselves what they show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EACCES, EAGAIN, EBUSY, EIO, EMFILE, ENFILE, ENOMEM, EPERM, ESTALE, ETIMEDOUT
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from pipeline.stop import defer_signals

from .atomic import atomic_file

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


#: Not of the file: rights, descriptors, memory, a disk or a network that answers wrongly.
_REFUSALS = {EACCES, EPERM, EMFILE, ENFILE, ENOMEM, EIO, ESTALE, EBUSY, EAGAIN, ETIMEDOUT}


class _Sink(FileIO):
    """A file that never refuses: from its first error on, what is written stays in memory and can be read back.

    HDF5 cannot close a file whose writes fail: it frees its handles twice and ends the process.
    """

    error: OSError | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r+")
        self._unwritten: list[tuple[int, bytes]] = []

    def check(self) -> None:
        """Raise the first error."""
        if self.error is not None:
            raise self.error

    def write(self, data: ReadableBuffer) -> int:
        view, start, done = memoryview(data).cast("B"), self.tell(), 0
        try:
            while self.error is None and done < len(view):
                done += super().write(view[done:])
        except OSError as error:
            self.error = error
        if done < len(view):
            self._unwritten.append((start + done, bytes(view[done:])))
        return len(view)

    def readinto(self, buffer: WriteableBuffer) -> int:
        view, start = memoryview(buffer).cast("B"), self.tell()
        read = super().readinto(view)
        if self.error is None:
            return read
        view[read:] = bytes(len(view) - read)
        for at, data in self._unwritten:
            low, high = max(at, start), min(at + len(data), start + len(view))
            if low < high:
                view[low - start : high - start] = data[low - at : high - at]
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        try:
            if self.error is None:
                return super().truncate(size)
        except OSError as error:
            self.error = error
        return size or 0


def open_hdf5(path: str | Path) -> h5py.File:
    """A file to read, without a lock: ours are never opened for update, and locks fail on NFS and Lustre.

    HDF5 refuses a file that this process has open with another kind of lock, as a notebook does by `h5py.File(path)`; it is
    then opened in that way.

    Raises:
        OSError: it cannot be opened, or is no HDF5.
    """
    for locking in (False, "best-effort"):
        try:
            return h5py.File(path, "r", locking=locking)
        except OSError as error:
            if "flag values don't match" not in str(error):
                raise
    return h5py.File(path, "r", locking=True)


def is_refused(error: BaseException) -> bool:
    """Whether the system refused to open or read a file, so that nothing is known of what it holds."""
    return isinstance(error, OSError) and (error.errno in _REFUSALS or "flag values don't match" in str(error))


@contextmanager
def atomic_hdf5(path: str | Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new file that becomes `path` when the block ends well, and a function to call between two long writes.

    The function raises what went wrong meanwhile, or that a signal asked the run to end: no exception may cross HDF5.

    Raises:
        DiskError: the disk is full, or the folder cannot be written.

    >>> with atomic_hdf5("a.h5") as (file, check):
    ...     _ = file.create_dataset("values", data=[1, 2])
    ...     check()
    >>> with h5py.File("a.h5") as file:
    ...     file["values"][:].tolist()
    [1, 2]
    """
    with atomic_file(path) as temporary, _Sink(temporary) as sink:
        with defer_signals() as raise_deferred, h5py.File(sink, "w", track_order=False) as file:

            def check() -> None:
                sink.check()
                raise_deferred()

            yield file, check
        sink.check()


def refuse_foreign(group: h5py.Group, name: str) -> None:
    """HDF5 may take an object's bytes from any other file that the reader can read.

    Raises:
        ValueError: `name` is a soft or external link, or its bytes lie in other files.
    """
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link to somewhere else, which is not followed")
    item = group[name]
    if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
        raise ValueError(f"{name} takes its bytes from another file, which is not read")
