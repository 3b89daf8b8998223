"""Features of files that were predicted, for another time: an interrupted prediction of many goes on where it was.

They lie in the clip cache, by what decides them: the encoder, how the file was decoded, its bytes and its cut.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pipeline.code import code_digest
from pipeline.data.examine import facts_version
from pipeline.data.fact import Fact
from pipeline.data.hashing import hash_media
from pipeline.features.encoders.extractor import Extractor
from pipeline.params import Params, Stream
from pipeline.runs.inputs import Features
from pipeline.storage.clip_cache import ClipCache, digest
from pipeline.storage.feature_store import Entry, Status
from pipeline.storage.memo import Memo, file_key

from .prediction import StreamUse

if TYPE_CHECKING:
    from .source import Source


class Kept:
    """The features of files, by stream and view. To be entered with `with`.

    Words and ready-made features are not kept: they cost nothing, or belong to no file.

    Args:
        encoders: stream → what makes its features.
        extractor: stream, view → the extractor.

    Raises:
        CacheError: the cache cannot be opened or written.
    """

    def __init__(self, params: Params, encoders: dict[str, Stream], extractor: Callable[[str, str | None], Extractor]) -> None:
        self._params, self._extractor = params, extractor
        kept = {name: one for name, one in encoders.items() if one.modality != "text" and one.encoder != "import"}
        #: Stream and view.
        self.parts = [(name, view) for name, one in kept.items() for view in (None, *one.views)]
        self._modality = {name: one.modality for name, one in kept.items()}
        self._dtype = {name: one.store.dtype for name, one in kept.items()}
        self._caches: dict[tuple[str, str | None], ClipCache] = {}
        self._hashes: dict[str, str | None] = {}
        self._open = ExitStack()

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._caches.clear()

    def get(self, name: str, view: str | None, source: Source) -> Features | StreamUse | None:
        """What is kept of a stream of a file; None = nothing."""
        if (name, view) not in self.parts or (key := self._key(source)) is None:
            return None
        if (entry := self._cache(name, view).get(key)) is None:
            return None
        if entry.status == Status.MISSING:
            return StreamUse(Status.MISSING, reason=entry.reason)
        return entry.values.astype(np.float32), entry.times

    def put(self, name: str, view: str | None, found: Iterable[tuple[Source, Features | StreamUse]]) -> None:
        """Keep what was found of a stream of files, but what failed: that may pass."""
        entries = {}
        for source, one in found if (name, view) in self.parts else ():
            key = self._key(source)
            if key is not None and not isinstance(one, StreamUse):
                entries[key] = Entry(one[0].astype(self._dtype[name]), one[1])
            elif key is not None and isinstance(one, StreamUse) and one.status == Status.MISSING:
                nothing = np.empty((0,), np.float32), np.empty((0, 2), np.float32)
                entries[key] = Entry(*nothing, Status.MISSING, one.reason)
        if entries:
            self._cache(name, view).put(entries)

    def recall(self, sources: Iterable[Source]) -> list[Source | None]:
        """Of each file, itself with what is known of its length, where all its streams are kept; else None."""
        sources = list(sources)
        hash_media([str(source.path) for source in sources])  # together, several at a time
        known = _read_facts(sources)
        return [
            replace(source, known=fact) if fact and all(self.get(*part, source) is not None for part in self.parts) else None
            for source, fact in zip(sources, known, strict=True)
        ]

    def _cache(self, name: str, view: str | None) -> ClipCache:
        if (name, view) not in self._caches:
            params, modality = self._params, self._modality[name]
            served = {
                "decode": params.decode.model_dump(mode="json"),
                "silence": params.integrity.silence,
                "faces": params.faces.model_dump(mode="json") if modality == "face" else None,
                "code": code_digest("pipeline.serving.source"),
            }
            identity = {**self._extractor(name, view).identity, "served": served}
            self._caches[name, view] = self._open.enter_context(ClipCache("predict", identity))
        return self._caches[name, view]

    def _key(self, source: Source) -> str | None:
        path = str(source.path)
        try:
            state = file_key(path, os.stat(path))
        except OSError:
            return None
        # Of a folder, its own state does not tell what is in its files.
        if state not in self._hashes or os.path.isdir(path):
            self._hashes[state] = hash_media([path])[path]
        found = self._hashes[state]
        return None if found is None else digest({"media": found, "start": source.start, "end": source.end})


def note_facts(sources: Iterable[Source]) -> None:
    """Remember what files are, as the examination of a corpus does."""
    found = {}
    for source in sources:
        outcome = source.decoded.get("facts")
        if outcome is not None and outcome.ok and isinstance(outcome.value, Fact):
            found[_name(source)] = outcome.value.dump()
    if found:
        with Memo("facts") as memo:
            memo.put(found)


def _read_facts(sources: list[Source]) -> list[Fact | None]:
    keys = [_name(source) if os.path.isfile(source.path) else "" for source in sources]
    with Memo("facts") as memo:
        known = memo.get(key for key in keys if key)
    return [Fact.load(known[key]) if key in known else None for key in keys]


def _name(source: Source) -> str:
    return file_key(source.path, os.stat(source.path), facts_version())
