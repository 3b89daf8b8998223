"""Bytes with a checksum before them: a file that was cut short or has decayed is as good as none."""

from __future__ import annotations

from pathlib import Path

import xxhash

from .atomic import atomic_file

#: Bytes of the checksum.
HEAD = 8


def write_checked(path: Path, content: bytes) -> None:
    """Write whole or not at all."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(xxhash.xxh3_64_digest(content) + content)


def read_checked(path: Path | None) -> bytes | None:
    """What `write_checked` wrote; None where there is no such file, or it fails its checksum."""
    try:
        content = path.read_bytes() if path is not None else b""
    except FileNotFoundError:
        return None
    if not content or xxhash.xxh3_64_digest(content[HEAD:]) != content[:HEAD]:
        return None
    return content[HEAD:]
