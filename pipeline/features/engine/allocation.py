"""Freed memory is kept by the process: the activations of one batch have the sizes of those before.

By default glibc maps every block of more than a few MiB anew and gives it back when it is freed, and the kernel clears each
page again (mallopt(3): M_MMAP_THRESHOLD, M_TRIM_THRESHOLD). On a processor that can take as long as the network itself.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: Blocks up to this size are taken from the heap: more than glibc's own bound of 32 MiB for the threshold that it adapts.
_KEPT = 1 << 30


def keep_freed_memory() -> bool:
    """For all of this process from now on; whether the C library can. The bytes computed stay the same."""
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # musl has none
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _KEPT)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))
