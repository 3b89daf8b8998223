"""Unpacking archives that strangers made: nothing leaves the folder, no link, no device."""

from __future__ import annotations

import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

from pipeline.errors import CorpusError

from .corpora.folder import inside

#: What damage in an archive raises, beside errors of its own.
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, OSError, NotImplementedError, RuntimeError, ValueError, LookupError, OverflowError),
)
#: An archive may unpack to so many times its own size; what is smaller than `SMALL` bytes always may.
#: Media hardly shrink, tables tenfold, digital silence a thousandfold, a bomb without end.
RATIO, SMALL = 100, 4 << 30
#: Files that an archive may hold.
MOST_FILES = 5_000_000


def unpack(archive: str | Path, folder: str | Path, *, under: str | None = None) -> int:
    """Unpack a zip or tar archive into `folder`; the number of files written.

    Args:
        under: only members below this folder of the archive (its name is kept out of the result).

    Raises:
        CorpusError: it is no archive, it is cut short or damaged, it would unpack to more than an archive of its size or
            than the disk has room for, or a member would leave the folder, is a link or a device. Names and sizes are
            checked before anything is written.
    """
    archive, folder = Path(archive), Path(folder)
    if not archive.is_file():
        raise CorpusError(f"{archive} is not a file.")
    prefix = f"{under.strip('/')}/" if under else ""
    try:
        if zipfile.is_zipfile(archive):
            return _zip(archive, folder, prefix)
        if tarfile.is_tarfile(archive):
            return _tar(archive, folder, prefix)
    except _DAMAGE as error:
        raise CorpusError(f"{archive} cannot be unpacked: {' '.join(str(error).split()) or type(error).__name__}.") from error
    raise CorpusError(f"{archive} is neither a zip nor a tar archive.")


def _target(name: str, prefix: str, archive: Path, folder: Path) -> Path | None:
    if not inside(folder, name) or name.replace("\\", "/").startswith("/"):
        raise CorpusError(f"{archive}: member {name!r} leads out of the folder. Nothing was unpacked.")
    name = name.replace("\\", "/")
    if prefix and not name.startswith(prefix):
        return None
    relative = name.removeprefix(prefix)
    return folder / relative if relative else None


def _zip(archive: Path, folder: Path, prefix: str) -> int:
    with zipfile.ZipFile(archive) as pack:
        chosen = []
        for member in pack.infolist():
            # The upper half of the attributes is the Unix mode; 0o12 is a symbolic link.
            if member.external_attr >> 28 == 0o12:
                raise CorpusError(f"{archive}: member {member.filename!r} is a link. Nothing was unpacked.")
            target = _target(member.filename, prefix, archive, folder)
            if target is not None and not member.is_dir():
                chosen.append((member, target))
        _check_room([member.file_size for member, _ in chosen], archive, folder)
        for member, target in chosen:
            with pack.open(member) as source:
                _write(source, target)
    return len(chosen)


def _tar(archive: Path, folder: Path, prefix: str) -> int:
    with tarfile.open(archive) as pack:
        chosen: list[tuple[tarfile.TarInfo, Path]] = []
        whole = 0
        for member in pack:
            # Counted as they come: of a compressed archive the next header lies behind all of the last member.
            whole += member.size
            _check_room([whole], archive, folder, len(chosen))
            if not (member.isfile() or member.isdir()):
                raise CorpusError(f"{archive}: member {member.name!r} is a link or a device. Nothing was unpacked.")
            target = _target(member.name, prefix, archive, folder)
            if target is not None and member.isfile():
                chosen.append((member, target))
        _check_end(pack)
        for member, target in chosen:
            # A file, as was just made sure of.
            _write(cast(IO[bytes], pack.extractfile(member)), target)
    return len(chosen)


def _check_end(pack: tarfile.TarFile) -> None:
    """An archive cut between two members looks whole but for the empty block that ends it."""
    # Every archive opened for reading has one.
    file = cast(IO[bytes], pack.fileobj)
    file.seek(pack.offset)
    if not file.read(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends without the mark of its end; it may be cut short")
    # The checksum of a compressed stream stands at its very end, beyond what a reader of tar asks for.
    while file.read(1 << 20):
        pass


def _check_room(sizes: Sequence[int], archive: Path, folder: Path, count: int = 0) -> None:
    """
    Raises:
        CorpusError: what is packed is too much, by its own figures (no member gives more than it declares).
    """
    whole, count = sum(sizes), count or len(sizes)
    most = max(SMALL, RATIO * archive.stat().st_size)
    if whole > most or count > MOST_FILES:
        raise CorpusError(
            f"{archive} would unpack to {whole >> 20} MB in {count} files, more than an archive of its size should "
            f"({most >> 20} MB, {MOST_FILES} files). Nothing was unpacked."
        )
    free = shutil.disk_usage(next(place for place in (folder, *folder.absolute().parents) if os.path.isdir(place))).free
    if whole > free:
        raise CorpusError(
            f"{archive} would unpack to {whole >> 20} MB, the disk has room for {free >> 20} MB. Nothing was unpacked."
        )


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # A file that is a link already must not be written through.
    target.unlink(missing_ok=True)
    with open(target, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
