"""How a process ends: when it is asked to, at once and without loss; and never later than its parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType

#: Seconds a stage whose `dvc` has ended is given to end by itself.
GRACE = 20.0
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
    if "DVC_STAGE" in os.environ:
        _follow_dvc()
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


@contextmanager
def sparing_children() -> Iterator[None]:
    """What is started in the block does not hear Ctrl-C, which a terminal sends to all, before it can leave it to its parent."""
    resource_tracker.ensure_running()  # whose own start would end the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


def _follow_dvc(every: float = 0.5) -> None:
    """Ask this process to end when the `dvc` that runs it as a stage has ended, which would take nothing from it any more.

    Between the two there may be a shell, which outlives its parent as this process would.
    """
    chain = list(_ancestors(os.getpid()))
    dvc = next((pid for pid in chain if _runs_dvc(pid)), None)
    if dvc is None:
        return
    line = chain[: chain.index(dvc) + 1]

    def follow() -> None:
        while list(_ancestors(os.getpid()))[: len(line)] == line:
            time.sleep(every)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(128 + signal.SIGTERM)  # in a library that lets no signal through

    threading.Thread(target=follow, name="dvc", daemon=True).start()


def _ancestors(pid: int) -> Iterator[int]:
    """Parent, its parent, and so on."""
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return
        yield pid


def _runs_dvc(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    # `python …/bin/dvc repro`, `python -m dvc …`; a shell has the stage's command in one word.
    return any(os.path.basename(word) == b"dvc" for word in words[:4])


def die_with_parent() -> None:
    """The same by the kernel: quicker than a thread, and it reaches a decoder that never lets go of the interpreter.

    For processes started by a thread that lives as long as its process; Linux ends them with that thread.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
