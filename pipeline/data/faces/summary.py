"""What is told of the faces of a corpus: `data/faces.json` for the report, and a note for each clip that shows few."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from pipeline.params import Faces
from pipeline.storage import jpeg
from pipeline.storage.atomic import atomic_file
from pipeline.storage.feature_store import Status
from pipeline.storage.media_store import Media

#: Side of the pictures in the report, pixels.
SIDE = 96


def write(out: Path, frames: Media, rows: list[dict], boxes: pl.DataFrame, spec: Faces) -> list[dict]:
    """Write the summary beside the store `out`; returns a quarantine row for each clip below `faces.min_share`.

    Args:
        rows: clips that were searched, of the manifest.
        boxes: of all of them, as in `faces.parquet`.
    """
    found = Media(out)
    searched = [row for row in rows if found[row["id"]].status != Status.FAILED]
    counts = {row["id"]: (len(found[row["id"]].items), len(frames[row["id"]].items)) for row in searched}
    few = [row for row in searched if counts[row["id"]][0] < spec.min_share * counts[row["id"]][1]]
    facts = {
        "detector": spec.detector,
        "clips": len(searched),
        "frames": sum(total for _, total in counts.values()),
        "with_face": sum(count for count, _ in counts.values()),
        "few": len(few),
        "min_share": spec.min_share,
        "choice": spec.choice,
        "heard": boxes.filter("heard")["id"].n_unique(),
        "crops": _crops(found, spec.crops),
    }
    with atomic_file(out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return [{"id": row["id"], "media": row["video"], "reason": "few_faces", "detail": _detail(*counts[row["id"]])} for row in few]


def _detail(count: int, total: int) -> str:
    return f"the face is in {count} of {total} frames; the clip stays in use" if count else f"no face in {total} frames"


def _crops(found: Media, most: int) -> list[str]:
    """Faces of clips from first to last, as JPEGs in base64."""
    clips = [clip for clip in found.ids if found[clip].status == Status.OK]
    chosen = sorted({round(at) for at in np.linspace(0, len(clips) - 1, min(most, len(clips)))})
    pictures = []
    for clip in (clips[at] for at in chosen):
        items = found[clip].items
        small = jpeg.decode(bytes(items[len(items) // 2])).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pictures.append(base64.b64encode(jpeg.encode(small, 80)).decode("ascii"))
    return pictures
