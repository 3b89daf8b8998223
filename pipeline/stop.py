"""How a process ends: when it is asked to, at once and without loss; and never later than its parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

#: What ends a run: Ctrl-C, and what `kill`, a batch system or a container sends.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(SystemExit):
    """A signal asked the run to end. Open transactions and worker processes are closed on its way out.

    A `SystemExit`, so that nothing that catches errors takes it for one; `code` is 128 + the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.signal = signal.Signals(number)

    def __str__(self) -> str:
        how = "Interrupted" if self.signal == signal.SIGINT else f"Stopped by {self.signal.name}"
        return f"{how}. What was computed is kept; run the same command to go on."


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn the first of `SIGNALS` into `Stopped`, said in one line; a second one ends the process there and then."""
    asked: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            os._exit(128 + number)
        raise Stopped(number)

    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        yield
    except Stopped as stopped:
        sys.stderr.write(f"{stopped}\n")
        raise


@contextmanager
def defer_signals() -> Iterator[Callable[[], None]]:
    """Keep the first of `SIGNALS` for later, for calls into a library that no exception may cross.

    Yields a function that raises what was deferred; leaving the block raises it too. Only the main thread hears signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    deferred: list[int] = []
    handlers = {int(number): handler for number in SIGNALS if callable(handler := signal.getsignal(number))}

    def defer(number: int, _: FrameType | None) -> None:
        if deferred:
            os._exit(128 + number)
        deferred.append(number)

    def raise_deferred() -> None:
        for number in deferred:
            handlers[number](number, None)

    for number in handlers:
        signal.signal(number, defer)
    try:
        yield raise_deferred
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    raise_deferred()


def follow_parent() -> None:
    """In a worker process: leave Ctrl-C to the parent, and end when the parent has ended, however it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, name="parent", daemon=True).start()


def die_with_parent() -> None:
    """The same by the kernel: quicker than a thread, and it reaches a decoder that never lets go of the interpreter.

    For processes started by a thread that lives as long as its process; Linux ends them with that thread.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
