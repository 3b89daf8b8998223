"""How long a file says it is, in bytes: what tells a file cut short from one whose tracks are short."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from .errors import DecodeError
from .streamed import W64, is_unknown

#: Share of the declared bytes that may be missing before the file counts as cut short.
MARGIN = 0.1

#: Boxes at the top of an ISO file (ISO/IEC 14496-12) or a QuickTime film.
_BOXES = (
    b"ftyp",
    b"styp",
    b"moov",
    b"mdat",
    b"moof",
    b"free",
    b"skip",
    b"wide",
    b"pnot",
    b"uuid",
    b"sidx",
    b"mfra",
    b"meta",
    b"udta",
    b"emsg",
)
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")

#: Containers of unknown size whose headers tell the length in time, written when the file was finished.
_TIMED = {"flv", "mov", "caf", "au", "mxf", "ape", "tta", "wv", "flac"}


def check(path: Path) -> int | None:
    """The bytes a file declares to have, or None where its format does not say or its writer could not.

    Raises:
        DecodeError: truncated, when more than a tenth of them is missing.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        declared = _declared(file, size)
    if declared is not None and declared - size > MARGIN * declared:
        raise DecodeError("truncated", f"{size} of {declared} bytes", path)
    return declared


def declares_length(path: Path, name: str, declared: int | None) -> bool:
    """Whether the length in time a container (FFmpeg's name) tells is to be held against what is found.

    Not where it is guessed from the bit rate or the last page. Nor where the bytes are all there, the better witness:
    headers are often wrong; unless zeros stand at the end, as in a file made room for and never filled. `declared` is what
    `check` gave.
    """
    if name == "mp3":
        return _has_index(path)
    return name in _TIMED if declared is None else _is_hollow(path)


def _is_hollow(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return not any(file.read())


def has_links(path: Path) -> bool:
    """Whether an Ogg file is several, one after the other: a stream begins again after the first has been told."""
    begun, kept = False, b""
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            data = kept + block
            at = data.find(b"OggS\x00")
            while 0 <= at < len(data) - 6:
                first = bool(data[at + 5] & 2)
                if first and begun:
                    return True
                begun |= not first
                at = data.find(b"OggS\x00", at + 5)
            kept = data[-6:]
    return False


def _declared(file: BinaryIO, size: int) -> int | None:
    head = file.read(48)
    if head[:4] in (b"RIFF", b"RIFX", b"FORM"):
        return _riff(file, size, "<I" if head[:4] == b"RIFF" else ">I")
    if head[:4] == b"RF64" and head[12:16] == b"ds64" and len(head) >= 28:
        return _real(struct.unpack("<Q", head[20:28])[0] + 8, 2**62)
    if head[:16] == W64 and len(head) >= 24:
        return _real(struct.unpack("<Q", head[16:24])[0], 2**62)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska(file)
    if head[:16] == _ASF:
        return _asf(file)
    return _boxes(file, size) if head[4:8] in _BOXES else None


def _real(declared: int, most: int) -> int | None:
    # What a writer leaves that cannot come back: nothing, a bare header, or the largest number.
    return declared if 64 < declared < most and declared not in (2**32 - 1, 2**32 + 7) else None


def _riff(file: BinaryIO, size: int, form: str) -> int | None:
    """A chunk of WAV, AVI or AIFF; long AVI files are several one after the other."""
    end = 0
    while True:
        file.seek(end)
        head = file.read(8)
        if len(head) < 8 or head[:4] not in (b"RIFF", b"RIFX", b"FORM"):
            return end
        length = struct.unpack(form, head[4:])[0]
        if length <= 64 or is_unknown(length):
            return None
        end += 8 + length + length % 2
        if end >= size:
            return end


def _boxes(file: BinaryIO, size: int) -> int | None:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        if name not in _BOXES:
            break  # what follows the film is no part of it
        if length == 1:
            wide = file.read(8)
            length = struct.unpack(">Q", wide)[0] if len(wide) == 8 else 0
        if length < 8:
            return None  # to the end, or no box
        at += length
    return at


def _matroska(file: BinaryIO) -> int | None:
    """EBML header, then one segment (RFC 8794, RFC 9559)."""
    file.seek(4)
    header = _vint(file)
    if header is None:
        return None
    file.seek(header, 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return None
    length = _vint(file)
    return None if not length else file.tell() + length


def _vint(file: BinaryIO) -> int | None:
    """A length of EBML; None when it is left open."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    width = 9 - first[0].bit_length()
    rest = file.read(width - 1)
    value = (first[0] & ((1 << (8 - width)) - 1)) << 8 * len(rest) | int.from_bytes(rest, "big")
    return None if value == (1 << 7 * width) - 1 or len(rest) < width - 1 else value


def _asf(file: BinaryIO) -> int | None:
    file.seek(0)
    head = file.read(1 << 16)
    at = head.find(_ASF_FILE)
    if at < 0 or at + 104 > len(head):
        return None
    live = struct.unpack("<I", head[at + 88 : at + 92])[0] & 1
    return None if live else _real(struct.unpack("<Q", head[at + 40 : at + 48])[0], 2**62)


def _has_index(path: Path) -> bool:
    """Whether an MP3 tells its number of frames in its first one, by an index of Xing's, LAME's or Fraunhofer's kind."""
    with open(path, "rb") as file:
        head = file.read(10)
        # The tag before the sound: its length has seven bits a byte (ID3v2.4, 3.1).
        tag = 10 + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(head[6:10])) if head[:3] == b"ID3" else 0
        file.seek(tag)
        frame = file.read(256)
    return any(name in frame for name in (b"Xing", b"Info", b"VBRI"))
