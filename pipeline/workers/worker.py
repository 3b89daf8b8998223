"""The inside of a worker process: do one task after the other, die with the parent."""

from __future__ import annotations

import faulthandler
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from pipeline.reasons import REASONS
from pipeline.stop import die_with_parent, follow_parent
from pipeline.threads import calm_libraries

from . import transfer

READY = "ready"
DONE = "done"
FAILED = "failed"


def serve(connection: Connection, function: Callable, threads: int) -> None:
    """Answer tasks `(number, payload)` with `(DONE, number, value)` or `(FAILED, number, reason, detail)`."""
    # The parent here is the fork server, which ends as soon as the main process does.
    die_with_parent()
    follow_parent()
    faulthandler.disable()  # A crash is reported as a result, not as a page of text.
    _limit_threads(threads)
    try:
        transfer.send(connection, (READY, os.getpid()))
        while True:
            task = transfer.receive(connection)
            if task is None:
                return
            number, payload = task
            transfer.send(connection, answer_task(function, number, payload))
    except (EOFError, ConnectionError):
        return  # The parent has gone.


def answer_task(function: Callable, number: int, payload: object) -> tuple:
    """The message about one task: its value, or why there is none.

    >>> answer_task(len, 7, "four")
    ('done', 7, 4)
    >>> answer_task(int, 8, "four")[:3]
    ('failed', 8, 'error')
    """
    try:
        return DONE, number, function(payload)
    except MemoryError as error:
        return FAILED, number, "memory", str(error) or "out of memory"
    except Exception as error:  # noqa: BLE001 - whatever a decoder raises costs this one task
        reason = getattr(error, "reason", None)
        # Some exceptions of the standard library have a `reason` too, in words of their own.
        if isinstance(reason, str) and reason in REASONS:
            return FAILED, number, reason, str(getattr(error, "detail", error))
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(str(error).split())[:300]
        return FAILED, number, "error", f"{type(error).__name__}: {text} [{os.path.basename(where.filename)}:{where.lineno}]"


def _limit_threads(threads: int) -> None:
    # Processes are the parallelism here; a thread pool in each of them would only fight for the cores.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    calm_libraries()
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
