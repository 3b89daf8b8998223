"""Worker processes that may crash or hang: it costs one task, never the run.

Native decoders end in segmentation faults and endless loops on damaged media. Each task runs in a
worker process with a time limit; what went wrong comes back as a value.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

#: Tasks a worker holds: the one it works on and one to go on with at once.
AHEAD = 2


@dataclass(frozen=True)
class Outcome:
    """The result of one task.

    Attributes:
        key: the task's.
        value: what the function returned; None when it failed.
        reason: "" or the error's `reason` (else its class), `crashed` or `timeout`.
        detail: one line for people.
    """

    key: Hashable
    value: Any = None
    reason: str = ""
    detail: str = ""


class Pool:
    """`workers` processes that call `function(task)`.

    Args:
        workers: number of processes; 0 calls the function in this one, without protection.
        timeout: seconds a task may take before its worker is killed.
        function: picklable; it is sent once per worker.
    """

    def __init__(self, workers: int, timeout: float, function: Callable[[Any], Any]) -> None:
        self.count, self.timeout, self.function = workers, timeout, function
        self._workers: list[_Worker] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def imap_unordered(self, tasks: Iterable[tuple[Hashable, Any]]) -> Iterator[Outcome]:
        """Outcomes as they come. Tasks are taken from the iterable only as workers get free."""
        tasks = iter(tasks)
        if self.count == 0:
            yield from (attempt(self.function, key, task) for key, task in tasks)
            return
        payload = pickle.dumps(self.function)
        again: deque[tuple[Hashable, Any]] = deque()
        more = True
        self._workers = [_Worker(payload) for _ in range(self.count)]
        while True:
            for worker in self._workers:
                while len(worker.held) < AHEAD and (again or more):
                    task = again.popleft() if again else next(tasks, None)
                    if task is None:
                        more = False
                        break
                    worker.send(task)
            busy = [worker for worker in self._workers if worker.held]
            if not busy:
                break
            deadline = min(worker.since for worker in busy) + self.timeout
            ready = set(wait([worker.pipe for worker in busy], max(0.0, deadline - time.monotonic()) + 0.01))
            for worker in busy:
                if worker.pipe in ready:
                    outcome, alive = worker.receive()
                elif time.monotonic() > worker.since + self.timeout and not worker.pipe.poll():
                    outcome, alive = Outcome(worker.held[0][0], None, "timeout", f"took longer than {self.timeout:g} s"), False
                else:
                    continue
                worker.held.popleft()
                if not alive:
                    again.extend(worker.held)
                    worker.kill()
                    self._workers[self._workers.index(worker)] = _Worker(payload)
                yield outcome
        self.close()


class _Worker:
    def __init__(self, payload: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, payload, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()
        self.held: deque[tuple[Hashable, Any]] = deque()
        self.since = time.monotonic() + 60.0  # starting up is not decoding

    def send(self, task: tuple[Hashable, Any]) -> None:
        self.held.append(task)
        try:
            self.pipe.send_bytes(pickle.dumps(task, protocol=5))
        except OSError:
            pass  # the worker is gone; `receive` will say so

    def receive(self) -> tuple[Outcome, bool]:
        try:
            outcome = pickle.loads(self.pipe.recv_bytes())
            self.since = time.monotonic()
            return outcome, True
        except (EOFError, OSError, pickle.UnpicklingError):
            self.process.join(5.0)
            code = self.process.exitcode
            how = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
            return Outcome(self.held[0][0], None, "crashed", f"the decoder process ended with {how}"), False

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()
        self.process.close()


def attempt(function: Callable[[Any], Any], key: Hashable, task: Any) -> Outcome:
    """Call the function; an exception becomes an outcome."""
    try:
        return Outcome(key, function(task))
    except Exception as error:  # noqa: BLE001  any error of one task is that task's result
        reason = getattr(error, "reason", None)
        named = isinstance(reason, str)
        detail = getattr(error, "detail", None) if named else None
        return Outcome(key, None, reason if named else type(error).__name__, " ".join(str(detail or error).split()))


def _serve(pipe: Connection, payload: bytes, parent: int) -> None:
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    function = pickle.loads(payload)
    while True:
        try:
            key, task = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        outcome = attempt(function, key, task)
        try:
            pipe.send_bytes(pickle.dumps(outcome, protocol=5))
        except OSError:
            return


def _die_with_parent(parent: int) -> None:
    """Linux ends this process when the parent ends, even by SIGKILL and even inside a native loop."""
    pr_set_pdeathsig = 1
    try:
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:
        os._exit(1)
