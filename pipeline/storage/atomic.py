"""Files and folders that are complete or absent: temporary beside the target, fsync, rename."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from pipeline.errors import DiskError, UserError

#: What a disk says that takes no more.
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
#: Names of what is not finished, or was not when its process was killed.
UNFINISHED = ".*.tmp"


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on failure it is removed.

    The rename is atomic on one file system, so a reader sees the old file or the new one, never a
    part. A process killed in between leaves a `.tmp` file that nobody reads and the next run removes.

    Raises:
        DiskError: the disk is full, or the folder cannot be written.

    >>> with atomic_file("a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> Path("a.txt").read_text()
    'whole'
    """
    path = Path(path)
    temporary = _make_temporary(path, folder=False)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files private; an artifact is as readable as any other file of the user's.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except Exception as error:
        if not isinstance(error, UserError) and (reason := explain_refusal(error)):
            raise DiskError(
                f"{path} cannot be written: {reason}. What was computed is kept; make room or take another "
                "folder, then run again."
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: str | Path, *, keep: str | None = None) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; on success it becomes `folder`, in one rename.

    Args:
        keep: a file that only a finished folder has. When another process finished `folder` meanwhile, its is kept.

    Raises:
        DiskError: the folder beside cannot be made.

    >>> with atomic_folder("run") as made:
    ...     _ = (made / "model").write_text("whole")
    >>> sorted(os.listdir("run"))
    ['model']
    """
    folder = Path(folder)
    made = _make_temporary(folder, folder=True)
    try:
        yield made
        made.chmod(0o777 & ~_umask())
        while True:
            try:
                os.replace(made, folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if keep and (folder / keep).is_file():
                    return
                # Aside before it is removed: a folder half removed under its name would look like one.
                aside = _make_temporary(folder, folder=True)
                try:
                    os.replace(folder, aside)
                except FileNotFoundError:
                    pass  # another process was quicker
                shutil.rmtree(aside, ignore_errors=True)
            else:
                fsync_folder(folder.parent)
                return
    finally:
        shutil.rmtree(made, ignore_errors=True)


def explain_refusal(error: BaseException) -> str | None:
    """What the disk said when it refused to be written; None when the error is another. Many libraries wrap it.

    >>> explain_refusal(OSError(errno.ENOSPC, "write"))
    'No space left on device'
    """
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return os.strerror(error.errno)
    text = str(error).lower()
    return next((os.strerror(n) for n in REFUSALS if os.strerror(n).lower() in text or f"os error {n})" in text), None)


def _make_temporary(path: Path, *, folder: bool) -> Path:
    """A new temporary file or folder beside `path`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent.resolve())
        prefix = f".{path.name}.{_host()}-{os.getpid()}."
        if folder:
            return Path(tempfile.mkdtemp(".tmp", prefix, path.parent))
        handle, name = tempfile.mkstemp(".tmp", prefix, path.parent)
        os.close(handle)
        return Path(name)
    except OSError as error:
        raise DiskError(
            f"{path} cannot be written: {error.strerror or error}. Make {path.parent} a folder with room that "
            "can be written, then run again."
        ) from error


@cache
def _sweep(folder: Path) -> None:
    """Remove what processes of this machine that have ended left in `folder`: a killed run's part of a large store."""
    for left in folder.glob(UNFINISHED):
        host, _, pid = left.name.split(".")[-3].rpartition("-")
        if host == _host() and pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


@cache
def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "-", socket.gethostname())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def fsync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write a file of text, whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as stable, readable JSON (sorted keys, two spaces, final newline).

    >>> write_json("a.json", {"b": 1, "a": [2]})
    >>> Path("a.json").read_text().split()
    ['{', '"a":', '[', '2', '],', '"b":', '1', '}']
    """
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def to_finite(value: object) -> object:
    """JSON has no NaN and no infinity: they become null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
