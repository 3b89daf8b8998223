"""Files, folders and patterns as the media to be predicted, in order."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.corpora import folder
from pipeline.data.decode.folder import is_image
from pipeline.errors import UserError

#: What makes a word a pattern, where no file is called so.
WILD = "*?["


@dataclass(frozen=True)
class Medium:
    """A file, or a folder of frame images.

    Attributes:
        name: its path as it is told to people: as it was given, or below the folder that was.
        reason, detail: why it is not looked at, as in `pipeline.reasons`; "" where it is.
    """

    path: Path
    name: str
    reason: str = ""
    detail: str = ""


def find_media(words: Sequence[str]) -> list[Medium]:
    """The media that the words name, each once: files, folders with all below them, patterns such as `films/**/*.mp4`.

    A folder of images alone is one film. What lies in a folder and can be no medium of that name (a pipe, a link that leads
    nowhere, a name that is not UTF-8) has its reason; files of other kinds are passed over.

    Raises:
        UserError: a folder without media, or a pattern that meets none.
    """
    found: dict[str, Medium] = {}
    for word in words:
        paths = [word]
        if not os.path.lexists(word) and any(sign in word for sign in WILD):
            # Folders are what `**` goes through, not what it is after, unless nothing else is met.
            met = sorted(glob.glob(word, recursive=True))
            paths = [path for path in met if not os.path.isdir(path)] or met
            if not paths:
                raise UserError(f"{word} meets no file.")
        for path in paths:
            for medium in _look(path):
                found.setdefault(os.path.abspath(medium.path), medium)
    return list(found.values())


def _look(path: str) -> list[Medium]:
    if not os.path.isdir(path):
        if not folder.is_text(path):
            return [Medium(Path(path), folder.printable(path), "name", "the name is not UTF-8; rename it")]
        return [Medium(Path(path), path, *(folder.fault(path) or ("", "")))]
    problems: list[dict] = []
    entries = list(folder.entries(Path(path), problems))
    media = [one for one in entries if one.lower().endswith(folder.AUDIO + folder.VIDEO)]
    bad = [Medium(Path(path, one["media"]), str(Path(path, one["media"])), one["reason"], one["detail"]) for one in problems]
    if not media:
        shots = sorted({os.path.dirname(one) for one in entries if is_image(one)})
        if not shots:
            raise UserError(f"{path} holds no film or sound ({len(entries)} other files).")
        media = shots
    sound = [Medium(place, str(place)) for place in (Path(path, one) for one in media)]
    return sorted([*sound, *bad], key=lambda medium: medium.name)
