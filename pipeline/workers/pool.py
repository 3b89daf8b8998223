"""Work in processes that may crash or hang: each costs one task, never the run."""

from __future__ import annotations

import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import connection as connections
from typing import Generic, TypeVar

from pipeline.threads import calm_libraries, computing

from . import transfer, worker
from .memory import LIMIT, MemoryWatch, held
from .outcome import Done, Failed, K, Outcome, V
from .process import Troubles, WorkerProcess, start_worker
from .script import find_home

#: Seconds a worker may take to start (it may import a deep-learning library on a cold disk).
STARTUP = 300.0

P = TypeVar("P")


class Pool(Generic[P, V]):
    """Worker processes with a time limit per task.

    Processes come from a fork server: they start in milliseconds, never inherit threads or locks
    of this process, and end when it ends, however it ends. One consumer at a time.

    Args:
        function: payload → value; importable by name (a module-level function, or a partial of one).
        workers: processes; 0 works in this process, without protection, for debugging.
        timeout: seconds per task; a task beyond it is killed with its process.
        recycle: tasks after which a worker is replaced, which bounds what native libraries leak.
        preload: modules to import before workers are forked off, besides the function's own; the first pool decides.
        threads: compute threads per worker.
        ahead: tasks handed to a worker, the running one included.
        memory: bytes a worker may come to hold before it is ended.

    >>> with Pool(int, workers=1) as pool:
    ...     for outcome in pool.imap([("a", "7"), ("b", "seven")]):
    ...         print(outcome.key, outcome.value, outcome.reason)
    a 7 None
    b None error
    """

    def __init__(
        self,
        function: Callable[[P], V],
        *,
        workers: int = 2,
        timeout: float = 60.0,
        recycle: int = 1000,
        preload: tuple[str, ...] = (),
        threads: int = 1,
        ahead: int = 2,
        memory: int = LIMIT,
    ) -> None:
        self._function, self._count, self._timeout = function, workers, timeout
        self._recycle, self._threads, self._ahead = max(1, recycle), threads, max(1, ahead)
        self._context = multiprocessing.get_context("forkserver")
        # What the workers need anyway is imported once, in the server; each then starts in milliseconds.
        self._context.set_forkserver_preload([*filter(None, [find_home(function)]), *preload])
        self._workers: list[WorkerProcess] = []
        self._troubles = Troubles(getattr(function, "__module__", str(function)))
        self._memory = memory
        self._watch: MemoryWatch | None = None
        self._interrupted = False

    def __enter__(self) -> Pool[P, V]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def interrupt(self) -> None:
        """From another thread: whoever waits for outcomes is given no more of them. The pool still has to be closed."""
        self._interrupted = True
        for one in list(self._workers):
            one.process.kill()

    def close(self) -> None:
        """End all workers at once; tasks under way are lost."""
        for one in self._workers:
            one.process.kill()
        for one in self._workers:
            one.end()
        self._workers = []
        if self._watch:
            self._watch.stop()
            self._watch = None

    def imap(self, tasks: Iterable[tuple[K, P]], *, window: int = 0) -> Iterator[Outcome[K, V]]:
        """Outcomes of `(key, payload)` tasks in the order given.

        At most a few tasks per worker, or `window`, are drawn from `tasks` beyond the outcome yielded last:
        so many others are worked on while a slow one holds up the line.
        """
        return self._run(tasks, ordered=True, window=window)

    def imap_unordered(self, tasks: Iterable[tuple[K, P]]) -> Iterator[Outcome[K, V]]:
        """Outcomes as they come. Leaving the loop early ends the workers."""
        return self._run(tasks, ordered=False)

    def _run(self, tasks: Iterable[tuple[K, P]], *, ordered: bool, window: int = 0) -> Iterator[Outcome[K, V]]:
        source = iter(tasks)
        if self._count <= 0:
            calm_libraries()
            for key, payload in source:
                with computing(self._threads):
                    message = worker.answer_task(self._function, 0, payload)
                yield _outcome(key, message)
            return
        waiting: dict[int, tuple[K, P]] = {}  # drawn, without outcome
        again: deque[int] = deque()  # to be sent again: they stood behind a task that took its worker down
        finished: dict[int, Outcome[K, V]] = {}
        drawn = given = 0
        room = max(window, self._count * self._ahead * (2 if ordered else 1))
        exhausted = False
        done = False
        try:
            while not self._interrupted:
                while not exhausted and drawn - given < room:
                    try:
                        waiting[drawn] = next(source)
                    except StopIteration:
                        exhausted = True
                        break
                    again.append(drawn)
                    drawn += 1
                self._feed(again, waiting)
                for number, outcome in self._collect(again, waiting):
                    finished[number] = outcome
                for number in [*finished] if not ordered else self._next_in_order(finished, given):
                    waiting.pop(number, None)
                    given += 1
                    yield finished.pop(number)
                if exhausted and given == drawn:
                    done = True
                    return
        finally:
            if not done:
                self.close()

    @staticmethod
    def _next_in_order(finished: dict[int, Outcome[K, V]], given: int) -> list[int]:
        numbers = []
        while given in finished:
            numbers.append(given)
            given += 1
        return numbers

    def _feed(self, queue: deque[int], tasks: dict[int, tuple[K, P]]) -> None:
        if self._watch is None:
            self._watch = MemoryWatch(lambda: self._workers, self._memory)
            self._watch.start()
        while len(self._workers) < min(self._count, len(self._workers) + len(queue)):
            try:
                self._workers.append(start_worker(self._context, self._function, self._threads))
            except (OSError, EOFError) as error:
                self._troubles.note_start(f"{type(error).__name__}: {error}")
        # Idle workers first, then a task in reserve for each, so that none waits for the parent;
        # no reserves while a worker is still starting, or the early ones would take its share.
        for depth in range(self._ahead if all(one.ready for one in self._workers) else 1):
            for one in self._workers:
                if queue and one.ready and len(one.queue) == depth and one.served + depth < self._recycle:
                    number = queue.popleft()
                    one.queue.append(number)
                    if depth == 0:
                        one.since = time.monotonic()
                    try:
                        transfer.send(one.pipe, (number, tasks[number][1]))
                    except (BrokenPipeError, ConnectionError):
                        pass  # It died; `_collect` sees to it.

    def _collect(self, queue: deque[int], tasks: dict[int, tuple[K, P]]) -> list[tuple[int, Outcome[K, V]]]:
        """Wait for something to happen, at most until the next deadline."""
        results: list[tuple[int, Outcome[K, V]]] = []
        pipes: dict[object, WorkerProcess] = {one.pipe: one for one in self._workers}
        if not pipes:
            return results
        for pipe in connections.wait([one.pipe for one in self._workers], timeout=self._patience()):
            one = pipes[pipe]
            try:
                message = transfer.receive(one.pipe)
            except (EOFError, OSError):
                results += self._lost(one, queue, tasks, "crash")
                continue
            if message[0] == worker.READY:
                one.ready, one.held, self._troubles.failed_starts = True, held(one.process.pid), 0
                continue
            number = one.queue.popleft()
            one.served += 1
            one.since = time.monotonic()
            results.append((number, _outcome(tasks[number][0], message)))
            if one.served >= self._recycle and not one.queue:
                self._retire(one)
        now = time.monotonic()
        for one in list(self._workers):
            late = now - one.since > self._timeout if one.queue else not one.ready and now - one.started > STARTUP
            if late and not one.pipe.poll():
                one.process.kill()
                results += self._lost(one, queue, tasks, "timeout")
        return results

    def _patience(self) -> float:
        now = time.monotonic()
        limits = [
            one.since + self._timeout if one.queue else one.started + STARTUP
            for one in self._workers
            if one.queue or not one.ready
        ]
        return max(0.0, min(limits, default=now + 1.0) - now) + 0.01

    def _retire(self, one: WorkerProcess) -> None:
        try:
            transfer.send(one.pipe, None)
        except (BrokenPipeError, ConnectionError):
            pass
        self._workers.remove(one)
        one.end()

    def _lost(
        self, one: WorkerProcess, queue: deque[int], tasks: dict[int, tuple[K, P]], reason: str
    ) -> list[tuple[int, Outcome[K, V]]]:
        """A worker is gone: charge the task it was at, hand the ones behind it to others."""
        self._workers.remove(one)
        one.end()
        if reason == "crash" and one.orphaned:
            queue.extendleft(reversed(one.queue))
            self._troubles.note_server(one.server)
            return []
        if not one.queue:
            if not one.ready:
                self._troubles.note_start(one.exit)
            return []
        number = one.queue.popleft()
        queue.extendleft(reversed(one.queue))
        if one.greedy:
            return [(number, Failed(tasks[number][0], "memory", f"more than {self._memory / (1 << 30):.3g} GiB for one clip"))]
        detail = f"no result after {self._timeout:g} s" if reason == "timeout" else f"worker process ended, {one.exit}"
        return [(number, Failed(tasks[number][0], reason, detail))]


def _outcome(key: K, message: tuple) -> Outcome[K, V]:
    if message[0] == worker.DONE:
        return Done(key, message[2])
    return Failed(key, message[2], message[3])
