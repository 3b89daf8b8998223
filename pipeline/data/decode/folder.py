"""Folders of frame images, the way several corpora ship their video."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from PIL import Image

from .errors import DecodeError

#: Frames per second of a folder that does not say otherwise in `fps.txt`.
RATE = 25.0

#: The file that says it.
NOTE = "fps.txt"

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def is_image(name: str) -> bool:
    """Whether a file of that name is a frame; hidden ones are what systems leave."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def images(folder: Path) -> list[Path]:
    """The frames in time order: by the numbers in their names, so that 10.png follows 9.png.

    Raises:
        DecodeError: missing, empty.
    """
    try:
        found = [p for p in folder.iterdir() if is_image(p.name)]
    except OSError as error:
        raise DecodeError("missing", error.strerror or "cannot be listed", folder) from error
    if not found:
        raise DecodeError("empty", "the folder holds no frame images", folder)
    return sorted(found, key=lambda p: ([int(n) for n in re.findall(r"\d+", p.stem)], p.name))


def rate(folder: Path) -> float:
    """Frames per second: the number in `fps.txt`, else 25."""
    note = folder / NOTE
    if not note.is_file():
        return RATE
    try:
        value = float(note.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DecodeError("unreadable", "fps.txt does not hold a number", folder) from error
    if not 0 < value <= 1000:
        raise DecodeError("unreadable", f"fps.txt says {value}, which is no frame rate", folder)
    return value


def picture(path: Path) -> Image.Image:
    """One frame as RGB, turned the way its EXIF orientation asks.

    Raises:
        DecodeError: unreadable, too_large; access where the bytes could not be had.
    """
    from PIL import ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return ImageOps.exif_transpose(image).convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DecodeError("too_large", str(error), path) from error
    except (OSError, ValueError, SyntaxError) as error:
        # The system's own errors have a number; Pillow's, of what is in the file, have none.
        reason = "access" if isinstance(error, OSError) and error.errno is not None else "unreadable"
        raise DecodeError(reason, str(error), path) from error
