"""Look into every medium once: length, tracks, level. In worker processes, remembered per file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from importlib.metadata import version

from pipeline.code import code_digest
from pipeline.params import Params
from pipeline.progress import track
from pipeline.reasons import OF_BYTES
from pipeline.storage.memo import Memo, file_key

from .fact import Fact, examine_file, examine_folder


def facts_version() -> str:
    """Part of the memo's key: another one when the code that finds facts is another."""
    return code_digest("pipeline.data.fact")


def examine_media(paths: Sequence[str], params: Params) -> dict[str, Fact]:
    """Facts of media (absolute paths of files or folders of frames).

    A file that crashes or hangs its decoder has `reason` crash or timeout; it does not hurt others.
    """
    result = {path: examine_folder(path) for path in paths if os.path.isdir(path)}
    version = facts_version()
    keys = {path: file_key(path, os.stat(path), version) for path in paths if path not in result}
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
    """What stays true while the file does: a verdict about bytes that could all be read, of a file nobody changed meanwhile."""
    return {
        keys[path]: fact.dump()
        for path, fact in fresh.items()
        if (not fact.reason or fact.reason in OF_BYTES) and (not (fact.reason or fact.lost) or _is_readable(path, keys[path]))
    }


def _is_readable(path: str, key: str) -> bool:
    # A decoder calls a disk's error damage. Few files are damaged, so they can be read once more.
    try:
        with open(path, "rb", buffering=0) as file:
            while file.read(1 << 20):
                pass
        return file_key(path, os.stat(path), facts_version()) == key
    except OSError:
        return False


def _examined(paths: Sequence[str], params: Params) -> Iterator[tuple[str, Fact]]:
    """(path, fact) as they come; each file is the business of a worker process, here or on a cluster."""
    from .outcomes import work

    options = params.run.model_copy(update={"workers": max(1, params.run.workers)})
    outcomes = closing(work(((path, path) for path in paths), examine_file, options, identify_facts))
    with outcomes as found, track(len(paths), "files examined") as advance:
        for outcome in found:
            advance(1)
            yield outcome.key, (outcome.value if outcome.ok else Fact(reason=outcome.reason, detail=outcome.detail))


def identify_facts() -> dict[str, object]:
    """What decides the facts of a file beside its bytes: code, and the libraries that decode."""
    return {"facts": facts_version(), "versions": {name: version(name) for name in ("av", "numpy")}}
