"""Look into every medium once: length, tracks, level. In worker processes, remembered per file."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ..params import Params
from .decode.isolated import Outcome, Pool
from .hashing import FileMemo, file_key
from .integrity import Fact, frames_fact

#: Part of the memo's key: raised when a fact of the same file would come out differently.
VERSION = "1"


def examine(path: str) -> Fact:
    """Probe one file and measure its sound.

    Raises:
        DecodeError: no decoder can read it.
    """
    from .decode.audio import read_waveform
    from .decode.probe import probe

    found = probe(path)
    level = None
    if found.has_audio:
        # 16 kHz is enough for a peak and a third of the work of 48 kHz.
        wave = read_waveform(path, 16000)
        peak = float(np.abs(wave).max()) if wave.size else 0.0
        level = 20 * float(np.log10(peak)) if peak > 0 else -200.0
    return Fact(duration=float(found.duration), video=found.has_video, audio=found.has_audio, level=level)


def facts(paths: Sequence[str], params: Params) -> dict[str, Fact]:
    """Facts of media (absolute paths of files or folders of frames).

    A file that crashes or hangs its decoder has `reason` crashed or timeout; it does not hurt others.
    """
    result = {path: frames_fact(path) for path in paths if os.path.isdir(path)}
    keys = {path: file_key(path, os.stat(path), VERSION) for path in paths if path not in result}
    with FileMemo("facts") as memo:
        known = memo.get(keys.values())
        result |= {path: Fact.load(known[key]) for path, key in keys.items() if key in known}
        todo = [path for path in keys if path not in result]
        if not todo:
            return result
        for at in range(0, len(todo), 512):
            part = todo[at : at + 512]
            fresh = dict(zip(part, _run(part, params), strict=True))
            # A time-out may be the machine's fault: it is not remembered.
            memo.put({keys[path]: fact.dump() for path, fact in fresh.items() if fact.reason != "timeout"})
            result |= fresh
    return result


def _run(paths: Sequence[str], params: Params) -> list[Fact]:
    with Pool(examine, workers=params.run.workers, timeout=params.run.timeout) as pool:
        return [_fact(outcome) for outcome in pool.imap((path, path) for path in paths)]


def _fact(outcome: Outcome) -> Fact:
    return outcome.value if outcome.ok else Fact(reason=outcome.reason, detail=outcome.detail)
