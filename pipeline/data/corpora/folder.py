"""Walking a corpus folder: sorted, inside the root, safe from symlink loops."""

from __future__ import annotations

import os
from collections.abc import Iterator
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
    if os.path.isabs(relative) or "\0" in relative or (len(relative) > 1 and relative[1] == ":"):
        return False
    return not os.path.normpath(relative.replace("\\", "/")).startswith("..")


def problem(id_: str | None, media: str | None, reason: str, detail: str) -> dict:
    """A quarantine row of the stage `manifest`."""
    return {"id": id_, "media": media, "stage": "manifest", "reason": known(reason), "detail": detail}
