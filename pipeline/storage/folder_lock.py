"""Folders of the cache while they are used: marked with the time, and locked against `cache gc` and against each other."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def use_folder(folder: str | Path) -> Iterator[Path]:
    """Make `folder` if it is not there, and keep `cache gc` away from it while the block runs; many may.

    Raises:
        OSError: it cannot be made.

    >>> import tempfile
    >>> with use_folder(Path(tempfile.mkdtemp()) / "runs" / "a1") as folder:
    ...     remove_unused(folder)
    False
    """
    folder = Path(folder)
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # collected just now
        try:
            with suppress(OSError):  # a disk that is read-only; a network file system that knows no locks
                os.utime(descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            if not _is_at(descriptor, folder):
                continue  # collected while we waited
            yield folder
            return
        finally:
            os.close(descriptor)


@contextmanager
def use_alone(lock: str | Path) -> Iterator[None]:
    """Wait until no other process holds `lock`, and hold it while the block runs; its end, a kill too, sets it free.

    Args:
        lock: an empty file that is made and stays, in a folder that is in use.

    >>> import tempfile
    >>> with use_alone(Path(tempfile.mkdtemp()) / "answers.lock"):
    ...     pass
    """
    with open(lock, "a") as held:
        with suppress(OSError):  # a network file system that knows no locks
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


def remove_unused(folder: Path, lock: Path | None = None, *, dry_run: bool = False) -> bool:
    """Remove `folder` unless somebody uses it. Returns whether it was removed, or would be.

    Args:
        lock: what its users lock, when it is not the folder itself.
    """
    try:
        descriptor = os.open(lock or folder, os.O_RDONLY)
    except FileNotFoundError:
        return True  # another process was quicker
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass  # no locks on this file system
        if dry_run:
            return True
        # Out of the way first: a run that starts now makes a folder of its own.
        aside = folder.with_name(f".{folder.name}.{os.getpid()}")
        os.replace(folder, aside)
        shutil.rmtree(aside)
        return True
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(folder))
    except FileNotFoundError:
        return False
