"""AFEW-VA: 600 film clips as frames, valence and arousal per frame (Kossaifi et al. 2017)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import xxhash

from pipeline.data.decode import folder as decoding
from pipeline.data.decode.errors import DecodeError
from pipeline.errors import CorpusError

from . import folder, table
from .adapter import Adapter, TableOptions, Tables

#: Labels are whole numbers in [-10, 10].
SCALE = 10.0
LAYOUT = "NNN/NNNNN.png (or .jpg) and NNN/NNN.json for each clip 001..600"


def frames(value: object, where: str) -> tuple[str | None, dict[int, tuple[float, float]]]:
    """(actor, frame number → (valence, arousal) in [-10, 10]) of any of the JSON layouts in circulation.

    Genuine: `{"video_id", "actor", "frames": {"00000": {"valence", "arousal", "landmarks"}}}`. Flattened:
    a list of `{frame, valence, arousal}`, or frame → `{valence, arousal}`, or frame → `[v, a]`.

    Raises:
        CorpusError: it is none of these, or a value leaves the scale.
    """
    actor = None
    if isinstance(value, dict):
        actor = value.get("actor") if isinstance(value.get("actor"), str) else None
        inner = value.get("frames", value)
    else:
        inner = value
    if isinstance(inner, list):
        pairs = [(item.get("frame", item.get("frame_id")), item) for item in inner if isinstance(item, dict)]
        damaged = len(pairs) != len(inner)
    elif isinstance(inner, dict):
        pairs = [(key, item) for key, item in inner.items() if key not in ("actor", "video_id")]
        damaged = False
    else:
        pairs, damaged = [], True
    if damaged or not pairs:
        raise CorpusError(f"{where}: holds no frames. Expected the genuine layout or a list or table of frames.")
    found = {}
    for key, item in pairs:
        match = re.fullmatch(r"(?:.*[/_])?(\d+)(?:\.\w+)?", str(key), re.ASCII)
        try:
            if not match:
                raise ValueError("no frame number")
            pair = (item["valence"], item["arousal"]) if isinstance(item, dict) else (item[0], item[1])
            valence, arousal = (table.number(str(x), -SCALE, SCALE) for x in pair)
            if valence is None or arousal is None:
                raise ValueError("no value")
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise CorpusError(f"{where}, frame {key!r}: {error}.") from error
        found[int(match[1])] = (valence, arousal)
    return actor or None, found


def landmarks(value: object) -> str | None:
    """Digest of the face points a clip brings, part of its identity: where the face is decides its crops. None: none."""
    inner = value.get("frames") if isinstance(value, dict) else None
    entries = inner.items() if isinstance(inner, dict) else ()
    points = [(key, item["landmarks"]) for key, item in entries if isinstance(item, dict) and item.get("landmarks")]
    return xxhash.xxh3_128_hexdigest(json.dumps(points).encode()) if points else None


def original(value: float) -> int:
    """A label in [-1, 1] back on the corpus' own scale."""
    return round(value * SCALE)


def _tell_absent(numbers: list[int], total: int, most: int = 8) -> str:
    """Which annotated frames have no image, in one line."""
    named = ", ".join(f"{number:05}" for number in numbers[:most])
    more = f" and {len(numbers) - most} more" if len(numbers) > most else ""
    return f"{len(numbers)} of {total} annotated frames have no image: {named}{more}"


def _images(place: Path) -> dict[int, str]:
    """Frame number → the name of its picture as written, in time order."""
    stems = {p.stem for p in place.iterdir() if p.suffix.lower() in folder.IMAGE and not p.name.startswith(".")}
    return dict(sorted((int(stem), stem) for stem in stems if stem.isascii() and stem.isdigit()))


class AfewVa(Adapter):
    """Adapter of AFEW-VA."""

    title = "AFEW-VA, valence and arousal in the wild"
    licence = "on request from Imperial College iBUG, research only"
    homepage = "https://ibug.doc.ic.ac.uk/resources/afew-va-database/"
    layout = LAYOUT
    scale = (-SCALE, SCALE)

    class Options(TableOptions):
        #: What unannotated frames inside a clip are: without truth (they carry no row), or a damaged clip.
        partial: Literal["keep", "quarantine"] = "keep"

    options: Options

    def read(self) -> Tables:
        """One clip per folder; its valence and arousal are the means over its frames that have an image.

        A frame's time is the middle of its place among the images that are there, at the rate the decoder takes
        them: 25 per second, as the films, or the number in the folder's `fps.txt`.

        Raises:
            CorpusError: no clip, or none with an actor in the genuine layout.
        """
        options = self.options
        root = self.root
        result = Tables(clips=[])
        lacking = 0
        for place in sorted(p for p in root.rglob("*") if p.is_dir() and re.fullmatch(r"\d{3}", p.name)):
            relative, id_ = place.relative_to(root).as_posix(), f"{self.name}/{place.name}"
            path = place / f"{place.name}.json"
            if not path.is_file():
                result.problems.append(folder.problem(id_, relative, "missing", f"{path.name} is not there"))
                continue
            try:
                value = table.load_json(table.text_of(path, options.encoding), str(path))
                actor, found = frames(value, str(path))
                fps = decoding.rate(place)
            except DecodeError as error:
                result.problems.append(folder.problem(id_, relative, error.reason, error.detail))
                continue
            except CorpusError as error:
                result.problems.append(folder.problem(id_, f"{relative}/{path.name}", "row", str(error)))
                continue
            here = _images(place)
            rows = [((at + 0.5) / fps, number, found[number]) for at, number in enumerate(here) if number in found]
            absent = sorted(set(found) - set(here))
            lacking += len(absent)
            if absent:
                # A clip that stays is not lost; the row says which of its frames nothing can be said of.
                result.problems.append(folder.problem(id_, relative, "missing", _tell_absent(absent, len(found))))
            if not rows or (absent and options.partial == "quarantine"):
                continue
            result.annotations += [
                {"id": id_, "time": round(time, 6), "frame": here[number], "valence": v / SCALE, "arousal": a / SCALE}
                for time, number, (v, a) in rows
            ]
            result.clips.append(
                {
                    "id": id_,
                    "corpus": self.name,
                    "video": relative,
                    "speaker": actor,
                    "valence": sum(v for *_, (v, _) in rows) / len(rows) / SCALE,
                    "arousal": sum(a for *_, (_, a) in rows) / len(rows) / SCALE,
                    "expected": len(here) / fps,
                    "landmarks": landmarks(value),
                }
            )
        if not result.clips and not result.problems:
            raise CorpusError(f"{root} holds no clip of AFEW-VA. Expected {LAYOUT}.")
        nameless = sum(clip["speaker"] is None for clip in result.clips)
        result.notes = {
            "frames annotated": len(result.annotations),
            "annotated frames without image": lacking,
            "clips without an actor (split clip by clip)": nameless,
        }
        return result
