"""WAV, RF64 and W64 whose writer could not come back to write the lengths: read as if it had."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import BinaryIO

import soundfile

W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")

#: The least number of those that stand for `unknown` in 32 bits (sox, arecord, ffmpeg), and the largest of the lower kind.
_HALF, _FULL = (0x7FFE0000, 0x80010000), 0xFFFF0000


def is_unknown(length: int) -> bool:
    """Whether a 32-bit length of RIFF is what writers leave that do not know it."""
    return not length or _HALF[0] <= length <= _HALF[1] or length >= _FULL


def open_sound(path: Path) -> soundfile.SoundFile:
    """The file as libsndfile reads it, all its samples counted.

    Raises:
        soundfile.SoundFileError: it does not.
    """
    head = _mended(path)
    return soundfile.SoundFile(str(path) if head is None else _Overlaid(path, head))


class _Overlaid(io.RawIOBase):
    """A file with another head."""

    def __init__(self, path: Path, head: bytes) -> None:
        self._file, self._head = open(path, "rb", buffering=0), head

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        at, count = self._file.tell(), self._file.readinto(buffer) or 0
        if (mended := min(count, len(self._head) - at)) > 0:
            memoryview(buffer).cast("B")[:mended] = self._head[at : at + mended]
        return count

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


def _mended(path: Path) -> bytes | None:
    """The bytes up to the samples with their true lengths in them; None where the file's own are good or cannot be told."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        name = file.read(16)
        if name == W64:
            return _mend_w64(file, size)
        return _mend_riff(file, size) if name[:4] in (b"RIFF", b"RF64") and name[8:12] == b"WAVE" else None


def _mend_riff(file: BinaryIO, size: int) -> bytes | None:
    at, wide = 12, 0
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if name == b"ds64":
            wide = at + 8
        if name == b"data":
            break
        at += 8 + length + length % 2
    else:
        return None
    rest = size - at - 8
    if wide:
        file.seek(wide + 8)
        length = struct.unpack("<Q", file.read(8))[0]
        known = 0 < length <= rest or (0 < length < 2**62 and length != 0xFFFFFFFF)
    else:
        known = not is_unknown(length) or (0 < length <= rest)
    if known or not rest or (not length and _are_chunks(file, at + 8, size)):
        return None
    file.seek(0)
    head = bytearray(file.read(at + 8))
    if wide:
        struct.pack_into("<QQQ", head, wide, size - 8, rest, 0)
    else:
        struct.pack_into("<I", head, 4, min(size - 8, 0xFFFFFFFF))
        struct.pack_into("<I", head, at + 4, min(rest, 0xFFFFFFFF))
    return bytes(head)


def _are_chunks(file: BinaryIO, at: int, size: int) -> bool:
    """Whether notes follow, and no samples: the file is finished, and empty."""
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if not (name.isascii() and name.decode("ascii").isprintable()):
            return False
        at += 8 + length + length % 2
    return at == size


def _mend_w64(file: BinaryIO, size: int) -> bytes | None:
    at = 40
    while at + 24 <= size:
        file.seek(at)
        name, length = struct.unpack("<16sQ", file.read(24))
        if name == _W64_DATA:
            break
        if length < 24:
            return None
        at += length + -length % 8
    else:
        return None
    if 24 < length < 2**62 or size <= at + 24:
        return None
    file.seek(0)
    head = bytearray(file.read(at + 24))
    struct.pack_into("<Q", head, 16, size)
    struct.pack_into("<Q", head, at + 16, size - at)
    return bytes(head)
