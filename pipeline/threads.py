"""How many threads compute a result: a parameter, not the machine's cores, for sums in another order end in other last bits."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits

#: What libraries read when they are loaded.
VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


def calm_libraries() -> None:
    """One thread for what numpy, scipy and OpenCV compute, in all of this process from now on, loaded yet or not."""
    os.environ.update(dict.fromkeys(VARIABLES, "1"))
    threadpool_limits(1, user_api="blas")
    if "cv2" in sys.modules:
        sys.modules["cv2"].setNumThreads(1)


@contextmanager
def computing(threads: int) -> Iterator[None]:
    """Exactly so many threads for what torch computes in this thread while the block runs, whatever `OMP_NUM_THREADS` says.

    >>> import torch
    >>> with computing(2):
    ...     torch.get_num_threads()
    2
    """
    if "torch" not in sys.modules:
        yield
        return
    import torch  # not out of sys.modules: another thread may be at it, and this waits for its end

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
