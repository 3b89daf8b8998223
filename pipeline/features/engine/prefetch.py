"""Reading ahead in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator

from pipeline.workers.outcome import Outcome


class Prefetch:
    """Drains an iterator in a thread, a bounded number of items ahead: reading goes on while the device works."""

    def __init__(self, source: Iterator[Outcome], ahead: int, interrupt: Callable[[], None] = lambda: None) -> None:
        self._source, self._interrupt = source, interrupt
        self._queue: queue.Queue[Outcome | BaseException | None] = queue.Queue(maxsize=ahead)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._drain, name="reader", daemon=True)

    def __enter__(self) -> Prefetch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        if kind is not None:
            self._interrupt()  # a run that is to end does not wait for the clip being read
        self._thread.join()

    def __iter__(self) -> Iterator[Outcome]:
        while True:
            try:
                item = self._queue.get(timeout=1.0)
            except queue.Empty:
                continue  # a signal that another thread has caught is heard only here, between two waits
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _drain(self) -> None:
        try:
            for item in self._source:
                if not self._put(item):
                    break
            self._put(None)
        except BaseException as error:  # noqa: BLE001  handed to the consumer, which raises it
            self._put(error)
        finally:
            if isinstance(self._source, Generator):
                self._source.close()

    def _put(self, item: Outcome | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False
