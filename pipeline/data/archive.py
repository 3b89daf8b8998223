"""Unpacking archives that strangers made: nothing leaves the folder, no link, no device."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import IO, cast

from pipeline.errors import CorpusError

from .corpora.folder import inside


def unpack(archive: str | Path, folder: str | Path, *, under: str | None = None) -> int:
    """Unpack a zip or tar archive into `folder`; the number of files written.

    Args:
        under: only members below this folder of the archive (its name is kept out of the result).

    Raises:
        CorpusError: it is no archive, a member is damaged, or a member would leave the folder, is a link
            or a device. Names are checked before anything is written.
    """
    archive, folder = Path(archive), Path(folder)
    prefix = f"{under.strip('/')}/" if under else ""
    try:
        if zipfile.is_zipfile(archive):
            return _zip(archive, folder, prefix)
        if tarfile.is_tarfile(archive):
            return _tar(archive, folder, prefix)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise CorpusError(f"{archive} cannot be unpacked: {' '.join(str(error).split())}.") from error
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
        for member, target in chosen:
            with pack.open(member) as source:
                _write(source, target)
    return len(chosen)


def _tar(archive: Path, folder: Path, prefix: str) -> int:
    with tarfile.open(archive) as pack:
        chosen = []
        for member in pack.getmembers():
            if not (member.isfile() or member.isdir()):
                raise CorpusError(f"{archive}: member {member.name!r} is a link or a device. Nothing was unpacked.")
            target = _target(member.name, prefix, archive, folder)
            if target is not None and member.isfile():
                chosen.append((member, target))
        for member, target in chosen:
            # A file, as was just made sure of.
            _write(cast(IO[bytes], pack.extractfile(member)), target)
    return len(chosen)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # A file that is a link already must not be written through.
    target.unlink(missing_ok=True)
    with open(target, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
