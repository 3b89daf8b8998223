"""Committing to the clip cache in a thread."""

from __future__ import annotations

import queue
import threading
import time

from pipeline.errors import CacheError
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Entry

#: Seconds between commits: what a power cut may cost.
COMMIT = 1.0


class Writer:
    """Commits entries from a thread, so that the device does not wait for the disk.

    An error (disk full, read-only cache) is raised in the caller at the next `put` or at the end.
    """

    def __init__(self, cache: ClipCache) -> None:
        self._cache = cache
        self._queue: queue.Queue[dict[str, Entry] | None] = queue.Queue(maxsize=64)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        self._raise()

    def put(self, entries: dict[str, Entry]) -> None:
        self._raise()
        self._queue.put(entries)

    def _raise(self) -> None:
        if self._error:
            error, self._error = self._error, None
            raise error

    def _write(self) -> None:
        pending: dict[str, Entry] = {}
        since, open_ = time.monotonic(), True
        while open_:
            try:
                entries = self._queue.get(timeout=COMMIT)
                open_ = entries is not None
                pending |= entries or {}
            except queue.Empty:
                pass
            if pending and (not open_ or time.monotonic() - since >= COMMIT):
                try:
                    if self._error is None:
                        self._cache.put(pending)
                except CacheError as error:
                    self._error = error
                pending, since = {}, time.monotonic()
