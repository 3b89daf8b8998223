"""The clip cache: rerun only changed *clips*.

One LMDB environment per identity, in the user's cache folder, shared by clones, by DVC's temporary
experiment folders and by concurrent runs. Key: the clip's `content` hash. Value: the clip's entry.
What is not identity (batch size, workers, device, engine) is not in the key.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TypeVar

import lmdb
import numpy as np
import safetensors.numpy
import xxhash

from pipeline.errors import CacheError

from .atomic import explain_refusal, write_json
from .feature_store import Entry, Status
from .lmdb_folder import Room, open_lmdb

Value = TypeVar("Value")
#: What is said of an entry that is not what was put in.
DAMAGED = "a cached clip fails its checksum; run `python -m pipeline cache verify --repair`."
#: Before the name of a tensor that is one of an entry's extras.
EXTRA = "extra."


def root() -> Path:
    """`$AFFECTORY_CACHE`, else `$XDG_CACHE_HOME/affectory`, else `~/.cache/affectory`."""
    if override := os.environ.get("AFFECTORY_CACHE"):
        return Path(override)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "affectory"


def digest(identity: dict) -> str:
    """Hash of an identity: canonical JSON, 128 bits, hexadecimal.

    >>> digest({"layer": 1, "rate": 2}) == digest({"rate": 2, "layer": 1})
    True
    """
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return xxhash.xxh3_128_hexdigest(text.encode())


def pack(entry: Entry) -> bytes:
    """Entry as bytes: a checksum, then safetensors (no pickle)."""
    tensors = {"values": entry.values, "times": entry.times.astype(np.float32, copy=False)}
    tensors |= {f"{EXTRA}{name}": array for name, array in entry.extras.items()}
    body = safetensors.numpy.save(
        {name: np.ascontiguousarray(array) for name, array in tensors.items()},
        metadata={"status": str(int(entry.status)), "reason": entry.reason},
    )
    return xxhash.xxh3_64_digest(body) + body


def unpack(data: bytes | memoryview) -> Entry:
    """Inverse of `pack`.

    Raises:
        CacheError: the checksum does not match.
    """
    sum_, body = bytes(data[:8]), bytes(data[8:])
    if xxhash.xxh3_64_digest(body) != sum_:
        raise CacheError(DAMAGED)
    tensors = safetensors.numpy.load(body)
    metadata = _metadata(body)
    extras = {name.removeprefix(EXTRA): array for name, array in tensors.items() if name.startswith(EXTRA)}
    return Entry(tensors["values"], tensors["times"], Status(int(metadata["status"])), metadata["reason"], extras)


def _metadata(body: bytes) -> dict[str, str]:
    return json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])["__metadata__"]


def read_outline(data: bytes | memoryview) -> tuple[int, tuple[int, ...], Status, str]:
    """(rows of `times`, shape of `values`, status, reason) of a packed entry, from its header alone.

    Raises:
        CacheError: it cannot be read. One that can be read and is wrong is told by `unpack`, before anything is made of it.
    """
    size = int.from_bytes(bytes(data[8:16]), "little")
    try:
        header = json.loads(bytes(data[16 : 16 + size]))
        rows, shape, metadata = header["times"]["shape"][0], tuple(header["values"]["shape"]), header["__metadata__"]
        return rows, shape, Status(int(metadata["status"])), metadata["reason"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CacheError(DAMAGED) from error


class ClipCache:
    """Entries of one identity.

    Args:
        kind: folder of the cache, e.g. `frames`, `audio`, `extract`.
        identity: all that decides the entry, as JSON values.

    Raises:
        CacheError: the folder cannot be made or opened.

    >>> with ClipCache("extract", {"family": "clip"}) as cache:
    ...     cache.put({"a1": Entry(np.ones((2, 3), np.float32), np.zeros((2, 2), np.float32))})
    ...     cache.missing(["a1", "b2"]), cache.get("a1").values.shape
    ({'b2'}, (2, 3))
    """

    def __init__(self, kind: str, identity: dict, *, base: Path | None = None, readonly: bool = False) -> None:
        self.identity = identity
        self.folder = (base or root()) / kind / digest(identity)
        try:
            with ExitStack() as stack:
                self._lock = stack.enter_context(self._lock_identity(readonly))
                self._lmdb = open_lmdb(self.folder, readonly=not self._lock.writable())
                self._room = Room(self._lmdb)
                stack.pop_all()
        except (OSError, lmdb.Error) as error:
            raise CacheError(
                f"the clip cache {self.folder} cannot be opened ({error}). Make it writable, "
                "or point AFFECTORY_CACHE to another folder."
            ) from error

    def _lock_identity(self, readonly: bool) -> IO[bytes]:
        """The identity file, open, with a lock that keeps `cache gc` away; read-only when the disk is."""
        path = self.folder / "identity.json"
        while not readonly:
            try:
                if path.exists():
                    os.utime(path)  # last use, for `cache gc`
                else:
                    write_json(path, self.identity)
                held: IO[bytes] = open(path, "r+b")
            except FileNotFoundError:
                continue  # collected just now
            except OSError as error:
                if explain_refusal(error) and (self.folder / "data.mdb").exists():
                    break  # what is there can be read
                raise
            with suppress(OSError):  # some network file systems know no locks
                fcntl.flock(held, fcntl.LOCK_SH)
            if os.fstat(held.fileno()).st_nlink:
                return held
            held.close()  # collected while we waited
        held = open(path, "rb")
        with suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_SH)
        return held

    def __enter__(self) -> ClipCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._lmdb.close()
        self._lock.close()

    def __len__(self) -> int:
        return self._lmdb.stat()["entries"]

    @contextmanager
    def _reading(self) -> Iterator[lmdb.Transaction]:
        """A transaction that reads, by buffers: no value is read that nobody looks at.

        Raises:
            CacheError: the table itself is damaged.
        """
        try:
            with self._room.read() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise CacheError(f"the clip cache {self.folder} is damaged ({error}). Remove that folder, then run again.") from error

    def missing(self, contents: Iterable[str]) -> set[str]:
        """Those of `contents` that are not cached."""
        with self._reading() as transaction:
            return {c for c in set(contents) if transaction.get(c.encode()) is None}

    def put(self, entries: dict[str, Entry]) -> None:
        """Commit entries in one transaction: all of them, or none.

        Raises:
            CacheError: the disk is full or the cache is read-only; what was there stays.
        """
        packed = {content.encode(): pack(entry) for content, entry in entries.items()}

        def put(transaction: lmdb.Transaction) -> None:
            for content, data in packed.items():
                transaction.put(content, data)

        try:
            self._room.write(put)
        except (lmdb.Error, OSError) as error:
            raise CacheError(
                f"the clip cache {self.folder} cannot be written ({error}). Nothing computed before is "
                "lost: free space or point AFFECTORY_CACHE elsewhere, then run again."
            ) from error

    def get(self, content: str) -> Entry | None:
        with self._reading() as transaction:
            data = transaction.get(content.encode())
            return None if data is None else unpack(data)

    def layout(self, contents: Iterable[str]) -> list[tuple[int, tuple[int, ...], Status, str]]:
        """`read_outline` per content, without reading the values."""
        return list(self._read(contents, read_outline))

    def iterate(self, contents: Iterable[str]) -> Iterator[Entry]:
        """Entries in the given order, one in memory at a time."""
        return self._read(contents, unpack)

    def _read(self, contents: Iterable[str], what: Callable[[bytes | memoryview], Value]) -> Iterator[Value]:
        with self._reading() as transaction:
            for content in contents:
                data = transaction.get(content.encode())
                if data is None:
                    raise CacheError(f"the clip cache {self.folder} lost clip {content}; run the stage again.")
                yield what(data)

    def verify(self, *, repair: bool = False) -> list[str]:
        """Contents whose bytes fail their checksum; with `repair` they are dropped."""
        bad = []
        with self._lmdb.begin(write=repair, buffers=True) as transaction:
            for key, data in transaction.cursor():
                if xxhash.xxh3_64_digest(bytes(data[8:])) != bytes(data[:8]):
                    bad.append(bytes(key).decode())
            if repair:
                for content in bad:
                    transaction.delete(content.encode())
        return bad
