"""Walking a corpus folder: sorted, inside the root, safe from symlink loops."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from pipeline.errors import CorpusError
from pipeline.reasons import known

#: Suffixes of media files, lower case.
AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a")
VIDEO = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".flv", ".mpg", ".mpeg")
IMAGE = (".png", ".jpg", ".jpeg")


def root_of(root: str | Path, layout: str) -> Path:
    """`root` as a path.

    Raises:
        CorpusError: it is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise CorpusError(f"{root} is not a folder. Put the corpus there ({layout}) or set corpus.root.")
    return root


def files(root: Path, suffixes: tuple[str, ...]) -> Iterator[str]:
    """Paths of the files below `root` with one of `suffixes`, relative, with `/`, in sorted order.

    Hidden files and folders are left out (macOS archives carry `._name.wav` twins). A symlinked
    folder is followed once: a loop ends where it meets a folder already on its way down.
    """
    yield from _walk(str(root), "", suffixes, ())


def _walk(folder: str, prefix: str, suffixes: tuple[str, ...], above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    state = os.stat(folder)
    here = (state.st_dev, state.st_ino)
    if here in above:
        return
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, f"{prefix}{entry.name}/", suffixes, (*above, here))
        elif entry.name.lower().endswith(suffixes) and entry.is_file():
            yield prefix + entry.name


def inside(root: Path, relative: str) -> bool:
    """Whether `relative` stays below `root` by its spelling: not absolute, no way up past the root."""
    plain = relative.replace("\\", "/")
    if os.path.isabs(plain) or "\0" in plain or plain[1:3] == ":/":
        return False
    return os.path.normpath(plain).split("/")[0] != ".."


def locate(root: Path, relative: str) -> str:
    """The path of a medium as the disk spells it: written on Windows, decomposed by macOS, or absolute below the root.

    What is not there under any of these spellings comes back as it is.
    """
    if os.path.isabs(relative):
        for base in (root.absolute(), root.resolve()):
            if Path(relative).is_relative_to(base):
                relative = Path(relative).relative_to(base).as_posix()
    if not inside(root, relative) or os.path.lexists(root / relative):
        return relative
    found: list[str] = []
    for part in relative.replace("\\", "/").split("/"):
        if part in ("", "."):
            continue
        here = root.joinpath(*found)
        if part != ".." and not os.path.lexists(here / part):
            part = _spellings(str(here), _changed(here)).get(unicodedata.normalize("NFC", part), "")
            if not part:
                return relative
        found.append(part)
    return "/".join(found)


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=64)
def _spellings(folder: str, changed: int) -> dict[str, str]:
    """Composed name → name as the disk has it."""
    try:
        return {unicodedata.normalize("NFC", name): name for name in os.listdir(folder)}
    except OSError:
        return {}


def problem(id_: str | None, media: str | None, reason: str, detail: str) -> dict:
    """A quarantine row of the stage `manifest`."""
    return {"id": id_, "media": media, "stage": "manifest", "reason": known(reason), "detail": detail}
