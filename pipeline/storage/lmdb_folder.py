"""LMDB environments: a folder each, opened so that nothing about the disk ends the process."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb

#: Sparse on Linux: the file is as large as what is in it.
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
