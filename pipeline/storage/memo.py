"""The memo: facts that are dear to find out and cheap to keep, in the user's cache folder.

Facts about files (content hash, sha256, what an examination found) are remembered while path, size, times and inode of the
file stay the same; what a library says, while its version does. Each kind is one small LMDB, `memo/<kind>`. A memo that
cannot be written costs time, nothing else, where the fact can be found out again at once.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lmdb
import xxhash

from pipeline.errors import CacheError

from .clip_cache import digest, root
from .folder_lock import use_folder
from .lmdb_folder import open_lmdb

#: LMDB opens a folder once in a process.
_opening = threading.RLock()


class Memo:
    """Facts of one kind, by key (see `file_key`). To be entered with `with`.

    Args:
        kind: what is remembered, e.g. `hash`.

    Raises:
        CacheError: the cache folder cannot be made or opened.
    """

    def __init__(self, kind: str, base: Path | None = None) -> None:
        self.folder = (base or root()) / "memo" / kind

    def __enter__(self) -> Memo:
        _opening.acquire()
        try:
            with ExitStack() as stack:
                stack.enter_context(use_folder(self.folder))
                self._lmdb = open_lmdb(self.folder, readonly=not os.access(self.folder, os.W_OK))
                self._use = stack.pop_all()
        except (OSError, lmdb.Error) as error:
            _opening.release()
            raise CacheError(
                f"the cache {self.folder} cannot be opened ({error}). Make it writable, or point "
                "AFFECTORY_CACHE to another folder."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._lmdb.close()
        self._use.close()
        _opening.release()

    def get(self, keys: Iterable[str]) -> dict[str, str]:
        """What is known of `keys`."""
        known = {}
        with self._lmdb.begin() as transaction:
            for key in keys:
                value = transaction.get(_short(key))
                if value is not None:
                    known[key] = value.decode()
        return known

    def put(self, facts: dict[str, str]) -> None:
        """Remember, all or nothing.

        Raises:
            CacheError: the disk is full or the cache read-only.
        """
        try:
            with self._lmdb.begin(write=True) as transaction:
                for key, value in facts.items():
                    transaction.put(_short(key), value.encode())
        except (lmdb.Error, OSError) as error:
            raise CacheError(f"the memo {self.folder} cannot be written ({error}). Free space, then run again.") from error


def _short(key: str) -> bytes:
    # LMDB keys end at 511 bytes, paths do not.
    return xxhash.xxh3_128_digest(key.encode(errors="surrogateescape"))


def file_key(path: str | Path, state: os.stat_result, extra: str = "") -> str:
    """Key of a file: absolute path, what changes when it does, and what else decides the fact.

    Size and mtime alone do not tell a file that another was copied over with its time kept: ctime and inode do.
    """
    same = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_dev, state.st_ino)
    return "\0".join((os.path.abspath(path), *map(str, same), extra))


def remember(kind: str, key: str, find: Callable[[], str]) -> str:
    """What is remembered under `key`, else `find()`. Errors of `find` are passed on and never remembered.

    >>> remember("colour", "sky", lambda: "blue"), remember("colour", "sky", lambda: "grey")
    ('blue', 'blue')
    """
    try:
        with Memo(kind) as memo:
            if known := memo.get([key]):
                return known[key]
    except CacheError:
        return find()
    found = find()
    try:
        with Memo(kind) as memo:
            memo.put({key: found})
    except CacheError:
        pass  # costs time, nothing else
    return found


def sha256(paths: Path | Sequence[Path]) -> str:
    """sha256 of one file; of several, sha256 over their names and sums. Remembered, for multi-gigabyte files.

    >>> path = Path("model.bin")
    >>> _ = path.write_bytes(b"")
    >>> sha256(path)[:16] == sum_file(path)[:16] == "e3b0c44298fc1c14"
    True
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    if len(paths) == 1:
        path = paths[0].resolve()
        return remember("sha256", file_key(path, path.stat()), lambda: sum_file(path))
    lines = "".join(f"{sha256(path)}  {path.name}\n" for path in sorted(paths, key=lambda p: p.name))
    return hashlib.sha256(lines.encode()).hexdigest()


def sum_file(path: str | Path) -> str:
    """sha256 of a file's bytes, read now."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ask_library(question: str, ask: Callable[[], Any], *, libraries: Sequence[str], about: object) -> Any:
    """`ask()` as JSON values, or what it answered before: asking may import a deep-learning framework, for seconds.

    An extractor's identity depends on such facts (the vocabulary of a configuration class, the pixels of a timm tag).

    Args:
        question: names what is asked; another name when `ask` comes to answer otherwise.
        libraries: packages whose versions decide the answer; one that is not installed counts as that.
        about: JSON value, all else that decides it.
    """
    key = digest({"question": question, "versions": {name: _version(name) for name in libraries}, "about": about})
    return json.loads(remember("libraries", key, lambda: json.dumps(ask(), ensure_ascii=False)))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
