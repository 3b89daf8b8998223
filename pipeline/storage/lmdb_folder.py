"""LMDB environments: a folder each, opened so that nothing about the disk ends the process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

#: Room to begin with; `Room` makes more. Sparse on Linux: the file is as large as what is in it.
MAP_SIZE = 1 << 40
#: Processes that may read at once, and the bytes of LMDB's file of locks for so many.
READERS, LOCKS = 1024, 1026 * 64


def open_lmdb(folder: Path, *, readonly: bool = False) -> lmdb.Environment:
    """The LMDB in `folder`.

    Raises:
        OSError, lmdb.Error: it cannot be opened.
    """
    locks = folder / "lock.mdb"
    if not readonly and not (locks.exists() and locks.stat().st_size >= LOCKS):
        # LMDB maps this file: without room on the disk the first lock would end the process.
        with open(locks, "ab") as file:
            os.posix_fallocate(file.fileno(), 0, LOCKS)
    environment = lmdb.open(str(folder), map_size=MAP_SIZE, max_readers=READERS, readonly=readonly, readahead=False)
    # A page that is not there ends the process which looks at it.
    if (folder / "data.mdb").stat().st_size < (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]:
        environment.close()
        raise lmdb.CorruptedError("data.mdb is cut off; remove that folder and run again")
    environment.reader_check()  # a killed process leaves its lock behind
    return environment


class Room:
    """Transactions of an environment whose map grows when it is full, here or in another process.

    A map can only be moved while no transaction of this process looks at it.
    """

    def __init__(self, environment: lmdb.Environment) -> None:
        self._environment, self._lock, self._readers = environment, threading.Lock(), 0

    @contextmanager
    def read(self) -> Iterator[lmdb.Transaction]:
        """A transaction that reads, by buffers.

        Raises:
            lmdb.Error: the table is damaged.
        """
        with self._lock:
            transaction = self._begin(write=False)
            self._readers += 1
        try:
            with transaction:
                yield transaction
        finally:
            with self._lock:
                self._readers -= 1

    def write(self, change: Callable[[lmdb.Transaction], None]) -> None:
        """`change` in one transaction, all of it or nothing; once more with twice the room, as long as there is too little.

        Raises:
            OSError, lmdb.Error: the disk is full or write-protected, or the map is too small while this process reads it.
        """
        while True:
            try:
                with self._lock, self._begin(write=True) as transaction:
                    change(transaction)
                return
            except lmdb.MapFullError:
                with self._lock:
                    self._resize(2 * int(self._environment.info()["map_size"]))

    def _begin(self, *, write: bool) -> lmdb.Transaction:
        begin: Callable[..., lmdb.Transaction] = self._environment.begin
        try:
            return begin(write=write, buffers=not write)
        except lmdb.MapResizedError:
            self._resize(0)  # as another process has made it
            return begin(write=write, buffers=not write)

    def _resize(self, size: int) -> None:
        if self._readers:
            raise lmdb.MapFullError("it is to grow while it is read; run again")
        self._environment.set_mapsize(size)
