"""Content hashes of clips: media bytes and the cut, computed in parallel, remembered per file."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import xxhash

from pipeline.storage.memo import Memo, file_key

from .decode.folder import NOTE, is_image

_CHUNK = 1 << 20


def hash_file(path: str) -> str:
    """XXH3-128 of a file's bytes.

    Raises:
        OSError: the file cannot be read.
    """
    state = xxhash.xxh3_128()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def _members(path: str) -> list[tuple[str, str]]:
    """(name, path) of the files that make up a medium: itself, or the frames of a folder and the note of their rate."""
    if not os.path.isdir(path):
        return [("", path)]
    with os.scandir(path) as found:
        return sorted(
            (entry.name, entry.path) for entry in found if entry.is_file() and (is_image(entry.name) or entry.name == NOTE)
        )


def hash_media(paths: Sequence[str], workers: int = 8) -> dict[str, str | None]:
    """Hash of each medium (a file or a folder of frames); None for what cannot be read."""
    unique = sorted(set(paths))
    members: dict[str, list[tuple[str, str, str]]] = {}
    for path in unique:
        try:
            members[path] = [(name, file, file_key(file, _stat(file))) for name, file in _members(path)]
        except OSError:
            members[path] = []
    wanted = {key: file for entries in members.values() for _, file, key in entries}
    with Memo("hash") as memo:
        known = memo.get(wanted)
        todo = [key for key in wanted if key not in known]
        with ThreadPoolExecutor(max(1, workers)) as pool:
            # Commit as we go: an interrupted run of a large corpus keeps what it has hashed.
            for at in range(0, len(todo), 4096):
                part = todo[at : at + 4096]
                fresh = {k: h for k, h in zip(part, pool.map(lambda k: _try(wanted[k]), part), strict=True) if h}
                memo.put(fresh)
                known |= fresh
    return {path: _join([(name, known.get(key)) for name, _, key in members[path]]) for path in unique}


def _stat(path: str) -> os.stat_result:
    state = os.stat(path)
    if not stat.S_ISREG(state.st_mode):
        raise OSError(f"{path} is not a file")
    return state


def _try(path: str) -> str | None:
    try:
        return hash_file(path)
    except OSError:
        return None


def _join(parts: list[tuple[str, str | None]]) -> str | None:
    if not parts or any(hash_ is None for _, hash_ in parts):
        return None
    if len(parts) == 1 and parts[0][0] == "":
        return parts[0][1]
    return xxhash.xxh3_128_hexdigest(json.dumps(parts).encode())


def identify_clip(row: dict, hashes: dict[str, str | None]) -> str:
    """The clip's identity: what is seen and heard, from where to where, on which channel and half.

    Face points that the corpus gives belong to it. A clip of text alone is identified by its text. `hashes` maps
    the row's media, as spelled there.
    """
    identity = [hashes.get(row[m]) if row.get(m) else None for m in ("video", "audio")]
    if identity == [None, None]:
        identity = ["text", row.get("text")]
    parts = [*identity, row.get("channel") if row.get("audio") else None, row.get("start"), row.get("end")]
    if row.get("half") and row.get("video"):
        parts.append({"half": row["half"]})
    if row.get("landmarks"):
        parts.append(row["landmarks"])
    return xxhash.xxh3_128_hexdigest(json.dumps(parts, ensure_ascii=False).encode())
