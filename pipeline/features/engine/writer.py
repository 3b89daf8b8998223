"""Committing to clip caches in a thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence

from pipeline.errors import CacheError
from pipeline.storage.clip_cache import ClipCache
from pipeline.storage.feature_store import Entry

#: Seconds between commits: what a power cut may cost.
COMMIT = 1.0


class Writer:
    """Commits entries from a thread, so that the device does not wait for the disk.

    An error (disk full, read-only cache) is raised in the caller at the next `put` or at the end.

    Args:
        caches: of the streams that share a pass; the same clips go to each.
    """

    def __init__(self, *caches: ClipCache) -> None:
        self._caches = caches
        self._queue: queue.Queue[Sequence[dict[str, Entry]] | None] = queue.Queue(maxsize=64)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="writer", daemon=True)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.put(None)
        self._thread.join()
        self._raise()

    def put(self, entries: Sequence[dict[str, Entry]]) -> None:
        """Entries by content, for each of the caches in their order."""
        self._raise()
        self._queue.put(entries)

    def _raise(self) -> None:
        if self._error:
            error, self._error = self._error, None
            raise error

    def _write(self) -> None:
        pending: list[dict[str, Entry]] = [{} for _ in self._caches]
        since, open_ = time.monotonic(), True
        while open_:
            try:
                entries = self._queue.get(timeout=COMMIT)
                open_ = entries is not None
                for held, more in zip(pending, entries or (), strict=False):
                    held |= more
            except queue.Empty:
                pass
            if any(pending) and (not open_ or time.monotonic() - since >= COMMIT):
                try:
                    for cache, held in zip(self._caches, pending, strict=True):
                        if held and self._error is None:
                            cache.put(held)
                except CacheError as error:
                    self._error = error
                pending, since = [{} for _ in self._caches], time.monotonic()
