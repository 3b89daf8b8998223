"""A folder anywhere that fsspec reaches (`s3://`, `gs://`, `sftp://`, `http://`, `file://`, …), mirrored into one here.

Media are read many times and seeked in, so that they are copied once and never read from afar.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import CorpusError
from pipeline.progress import track
from pipeline.storage.atomic import write_json

#: Beside the files: which version of each is here.
RECORD = ".mirror.json"
_CHUNK = 1 << 20
#: Seconds between notes of what is here.
_EVERY = 10.0


def mirror(address: str, folder: Path) -> tuple[int, int]:
    """Copy every file below `address` that is not in `folder` yet; one that was interrupted goes on where it ended.

    A file that changed at the address since is copied anew. What is no longer there stays here.

    Returns:
        How many files there are, and how many of them came now.

    Raises:
        CorpusError: no such protocol, its package is not installed, nothing is there, or the connection failed.
    """
    with _telling(address):
        import fsspec.core

        system, root = fsspec.core.url_to_fs(address)
        # A web server calls everything a file: there a folder ends with a slash.
        one = not address.endswith("/") and system.isfile(root)
        found = {PurePosixPath(root).name: system.info(root)} if one else _list(system, root)
    if not found:
        raise CorpusError(f"{address} holds no file, or is not there.")
    here, fresh, saved = _read_record(folder / RECORD), 0, time.monotonic()
    try:
        with track(len(found), "mirror") as advance:
            for relative, info in sorted(found.items()):
                path, version = _place(folder, relative, address), _name_version(info)
                if here.get(relative) != version or not path.is_file():
                    with _telling(f"{address.rstrip('/')}/{relative}"):
                        _copy(system, info, path, version)
                    here[relative], fresh = version, fresh + 1
                    if time.monotonic() - saved > _EVERY:
                        write_json(folder / RECORD, here)
                        saved = time.monotonic()
                advance(1)
    finally:
        if fresh:
            write_json(folder / RECORD, here)
    return len(found), fresh


def _list(system: Any, root: str) -> dict[str, dict[str, Any]]:
    """Every file below the root by its path there. What cannot be listed raises (to `find` it would be empty)."""
    found: dict[str, dict[str, Any]] = {}
    folders, seen = [root], {root.rstrip("/")}
    while folders:
        for info in system.ls(folders.pop(), detail=True):
            name = info["name"]
            if name.rstrip("/") in seen or not name.startswith(root):  # a folder's own entry; a link out of it
                continue
            if info.get("type") == "directory":
                seen.add(name.rstrip("/"))
                folders.append(name)
            else:
                found[name.removeprefix(root).lstrip("/")] = info
    return found


def _place(folder: Path, relative: str, address: str) -> Path:
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise CorpusError(f"{address} names a file {relative!r}, which would leave {folder}.")
    return folder / path


def _name_version(info: dict[str, Any]) -> str:
    """Of a file at the address: what changes when it does, as far as the protocol says so."""
    told = {key: str(info[key]) for key in ("size", "ETag", "etag", "md5Hash", "mtime", "LastModified", "created") if key in info}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _read_record(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _copy(system: Any, info: dict[str, Any], path: Path, version: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{version}.part")  # of another version it is not gone on with
    have = part.stat().st_size if part.is_file() else 0
    with system.open(info["name"], "rb") as source, open(part, "ab") as file:
        try:
            source.seek(have)
        except (OSError, ValueError):  # a server that gives no ranges
            file.truncate(0)
        while chunk := source.read(_CHUNK):
            file.write(chunk)
    size = info.get("size")
    if size is not None and part.stat().st_size != size:
        raise OSError(f"the connection ended after {part.stat().st_size} of {size} bytes")
    part.replace(path)


@contextmanager
def _telling(address: str) -> Iterator[None]:
    """Each protocol's package has errors of its own: whatever happens is one line."""
    try:
        yield
    except CorpusError:
        raise
    except ImportError as error:
        raise CorpusError(f"{address}: {error}.") from error
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise CorpusError(f"{address}: {said}. What has come is kept; run the same command again to go on.") from error
