"""What libraries raise on a medium, and whose fault it is."""

from __future__ import annotations

import errno

import av

#: What a decoder raises on bytes it cannot use. PyAV's errors are OSError or ValueError by kind.
FAILURES = (av.FFmpegError, OSError, ValueError, EOFError)

#: Errors that tell of the machine. Not EIO: demuxers say it of a file that ends too early.
MACHINE = (errno.EACCES, errno.EPERM, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ETIMEDOUT)


def blame(error: BaseException, otherwise: str = "unreadable") -> str:
    """The reason of a failure: `memory` or `access` where the machine is to blame, else `otherwise`."""
    number = getattr(error, "errno", None)
    if isinstance(error, MemoryError) or number == errno.ENOMEM:
        return "memory"
    return "access" if number in MACHINE else otherwise


def short(error: BaseException) -> str:
    """What a library says of a failure, without numbers and paths where it can."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
