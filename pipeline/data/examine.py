"""Look into every medium once: length, tracks, level. In worker processes, remembered per file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from pipeline.params import Params
from pipeline.storage.memo import Memo, file_key

from .integrity import Fact, frames_fact

#: Part of the memo's key: raised when a fact of the same file would come out differently.
VERSION = "2"


def examine(path: str) -> Fact:
    """Probe one file and measure its sound.

    Raises:
        DecodeError: no decoder can read it.
    """
    from .decode.audio import level, read_waveform
    from .decode.errors import DecodeError
    from .decode.probe import probe

    found = probe(path)
    loudness = None
    if found.has_audio:
        try:
            # The source's own rate: nothing is resampled to measure a level.
            loudness = max(level(read_waveform(path, found.audio_rate or 16000)), -200.0)
        except DecodeError as error:
            # A film keeps its picture when its sound is broken.
            if not found.has_video:
                raise
            return Fact(
                duration=float(found.duration),
                video=True,
                audio=False,
                detail=f"the sound cannot be decoded ({' '.join(str(error).split())})",
            )
    return Fact(duration=float(found.duration), video=found.has_video, audio=found.has_audio, level=loudness)


def facts(paths: Sequence[str], params: Params) -> dict[str, Fact]:
    """Facts of media (absolute paths of files or folders of frames).

    A file that crashes or hangs its decoder has `reason` crash or timeout; it does not hurt others.
    """
    result = {path: frames_fact(path) for path in paths if os.path.isdir(path)}
    keys = {path: file_key(path, os.stat(path), VERSION) for path in paths if path not in result}
    with Memo("facts") as memo:
        known = memo.get(keys.values())
        result |= {path: Fact.load(known[key]) for path, key in keys.items() if key in known}
        todo = [path for path in keys if path not in result]
        if not todo:
            return result
        fresh: dict[str, Fact] = {}
        for path, fact in _examined(todo, params):
            fresh[path] = fact
            if len(fresh) == 512:
                memo.put(_lasting(fresh, keys))
                result |= fresh
                fresh = {}
        memo.put(_lasting(fresh, keys))
    return result | fresh


def _lasting(fresh: dict[str, Fact], keys: dict[str, str]) -> dict[str, str]:
    # A time-out or a crash may be the machine's fault: it is tried again next time.
    return {keys[path]: fact.dump() for path, fact in fresh.items() if fact.reason not in ("timeout", "crash")}


def _examined(paths: Sequence[str], params: Params) -> Iterator[tuple[str, Fact]]:
    """(path, fact) as they come; each file is the business of a worker process."""
    from pipeline.workers.pool import Pool

    with Pool(examine, workers=max(1, params.run.workers), timeout=params.run.timeout) as pool:
        for outcome in pool.imap_unordered((path, path) for path in paths):
            yield outcome.key, (outcome.value if outcome.ok else Fact(reason=outcome.reason, detail=outcome.detail))
