"""Where a clip can be seen and heard: links to the corpus, sheets of small pictures, and media put into the page on request."""

from __future__ import annotations

import base64
import io
import logging
import math
import mimetypes
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from pipeline.errors import StoreError
from pipeline.params import Params
from pipeline.storage.media_store import Media

from . import results

log = logging.getLogger(__name__)
#: Of a sheet: pictures beside and below each other, and the size of one.
COLUMNS, ROWS, WIDTH, HEIGHT = 8, 8, 160, 120
QUALITY = 72
#: Ground of a picture of another shape.
GROUND = "#101318"
#: Bytes of a file that goes into the page whole; of a longer one its sound does, as it was decoded.
LARGEST = 16 << 20
#: What ends a film's name that browsers play, and what they do not know by name.
TYPES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".wav": "audio/wav", ".flac": "audio/flac"}


class Links:
    """Media of the clips of a manifest, as the page in `reports` links them."""

    def __init__(self, params: Params, data: Path, reports: Path) -> None:
        self.root, self.data, self.reports = Path(params.corpus.root), data, reports
        table = results.read_parquet(data / "manifest.parquet")
        wanted = [
            name for name in ("video", "audio", "start", "end", "channel", "half") if table is not None and name in table.columns
        ]
        self.rows = {row.pop("id"): row for row in table.select("id", *wanted).to_dicts()} if table is not None else {}

    def describe(self, clip: str) -> dict[str, object]:
        """`video` and `sound`: addresses seen from the page, with the span of a clip that is part of a film; `begin` of the
        span in seconds; `side`: which half of the picture, or channel, is the speaker's. What the clip has not is left out."""
        row = self.rows.get(clip, {})
        start, end = row.get("start"), row.get("end")
        found: dict[str, object] = {}
        for kind, column in (("video", "video"), ("sound", "audio")):
            if name := row.get(column):
                found[kind] = self._link(name) + tell_span(start, end)
        if row.get("video") == row.get("audio"):
            found.pop("sound", None)  # one player has both
        if start:
            found["begin"] = start
        sides = [f"{row[key]} {word}" for key, word in (("half", "half"), ("channel", "channel")) if row.get(key)]
        return found | ({"side": ", ".join(sides)} if sides else {})

    def _link(self, name: str) -> str:
        """The address of a file of the corpus, relative to the page; absolute on another drive."""
        path = os.path.abspath(self.root / name)
        try:
            return quote(Path(os.path.relpath(path, os.path.abspath(self.reports))).as_posix())
        except ValueError:
            return Path(path).as_uri()

    def embed(self, clip: str) -> dict[str, object]:
        """As `describe`, with media in the page itself: the file, where the clip is all of it and it is no longer than `LARGEST`,
        else the sound as it was decoded; and its picture."""
        row = self.rows.get(clip, {})
        found: dict[str, object] = {"embedded": True}
        whole = row.get("start") is None and row.get("end") is None
        for kind, column in (("video", "video"), ("sound", "audio")):
            path = self.root / (row.get(column) or "")
            if whole and row.get(column) and path.is_file() and path.stat().st_size <= LARGEST:
                found[kind] = _encode(path.read_bytes(), TYPES.get(path.suffix.lower()) or mimetypes.guess_type(path)[0])
        if row.get("video") == row.get("audio"):
            found.pop("sound", None)
        if "video" not in found and "sound" not in found:
            found |= {"video": None, "begin": None}
            with suppress(StoreError):
                sound = Media(self.data / "audio.h5")[clip].items
                found["sound"] = _encode(bytes(sound[0]), "audio/flac") if sound else None
        with suppress(StoreError):
            picture = _pick(Media(self.data / "frames.h5"), clip)
            found["picture"] = _encode(_pack(picture), "image/jpeg") if picture else None
        return found


def tell_span(start: float | None, end: float | None) -> str:
    """The part of a film as a media fragment.

    >>> tell_span(61.5, 66.0), tell_span(None, 2.5), tell_span(None, None)
    ('#t=61.5,66', '#t=0,2.5', '')
    """
    if start is None and end is None:
        return ""
    return f"#t={round(start or 0, 3):.10g}" + ("" if end is None else f",{round(end, 3):.10g}")


def write_sheets(store: Path, clips: Sequence[str], folder: Path) -> dict[str, dict[str, object]]:
    """Write the middle picture of each clip into sheets `000.jpg`, … of `COLUMNS` × `ROWS`, in the order of the clips.

    Returns:
        Clip → `place`: the number of its sheet, and of its picture there. None of clips without pictures; nothing, and a warning,
        when the store cannot be read.
    """
    try:
        frames = Media(store)
    except StoreError as error:
        if store.is_file():
            log.warning("the clips are shown without pictures: %s", error)
        return {}
    each = COLUMNS * ROWS
    places: dict[str, dict[str, object]] = {}
    sheet = Image.new("RGB", (COLUMNS * WIDTH, ROWS * HEIGHT), GROUND)
    for clip in clips:
        picture = _pick(frames, clip)
        if picture is None:
            continue
        number, place = divmod(len(places), each)
        if number and place == 0:
            _save(sheet, folder, number - 1)
            sheet = Image.new("RGB", sheet.size, GROUND)
        sheet.paste(picture, (place % COLUMNS * WIDTH, place // COLUMNS * HEIGHT))
        places[clip] = {"place": [number, place]}
    if places:
        _save(sheet, folder, (len(places) - 1) // each)
    return places


def _save(sheet: Image.Image, folder: Path, number: int) -> None:
    (folder / f"{number:03d}.jpg").write_bytes(_pack(sheet))


def _pack(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def _pick(frames: Media, clip: str) -> Image.Image | None:
    """The middle picture of a clip on a ground of `WIDTH` × `HEIGHT`."""
    if clip not in frames.position or not (items := frames[clip].items):
        return None
    with Image.open(io.BytesIO(items[len(items) // 2])) as found:
        scale = min(WIDTH / found.width, HEIGHT / found.height)
        small = found.convert("RGB").resize([max(1, math.floor(side * scale)) for side in found.size])
    tile = Image.new("RGB", (WIDTH, HEIGHT), GROUND)
    tile.paste(small, ((WIDTH - small.width) // 2, (HEIGHT - small.height) // 2))
    return tile


def _encode(content: bytes, kind: str | None) -> str:
    return f"data:{kind or 'application/octet-stream'};base64,{base64.b64encode(content).decode()}"
