"""`reports/clips.html`: every held-out clip to see and to hear, the surest mistake first.

The page is a table of JSON values and a script of its own that shows them twenty at a time, so that ten thousand clips open at
once. It asks no network. Media stay where they are and are linked; pictures lie beside the page in `reports/clips/`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from pipeline.params import Params
from pipeline.storage import atomic

from . import clip_media, results
from .page import TEMPLATES, make_environment

#: Instants of a trace that are kept: more than its drawing has room for.
INSTANTS = 60
#: What must not stand in a script element, whatever a transcript says.
UNSAFE = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


def write_clips(
    params: Params,
    data: Path = Path("data"),
    reports: Path = Path("reports"),
    *,
    embed: int = 0,
    heading: Mapping[str, object] | None = None,
) -> Path:
    """Write the page and the pictures it shows.

    Args:
        embed: of how many clips, the worst first, sound and picture are put into the page itself, so that it can be given away.
        heading: what the report says at its top: `recipe`, `corpus`, `summary`, `random`, `transductive`.

    Raises:
        StoreError: a table is there but cannot be read.
    """
    found = gather_clips(params, data, reports)
    shown: list[dict] = found["clips"]
    media = clip_media.Links(params, data, reports)
    with atomic.atomic_folder(reports / "clips") as folder:
        pictures = clip_media.write_sheets(data / "frames.h5", [clip["id"] for clip in shown], folder)
    for place, clip in enumerate(shown):
        clip |= media.describe(clip["id"]) | pictures.get(clip["id"], {})
        if place < embed:
            clip |= media.embed(clip["id"])
    atomic.write_text(reports / "clips.html", render_page(found, heading or {"recipe": params.recipe}, embed))
    return reports / "clips.html"


def render_page(found: Mapping[str, object], heading: Mapping[str, object], embedded: int = 0) -> str:
    """The page as text; the same clips give the same bytes."""
    script = (TEMPLATES / "clips.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    values = {
        "style": Markup("\n".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "clips.css"))),
        "script": Markup(script),
        # Nothing but this very script is run, and files are all that is asked for.
        "policy": f"img-src data: file: 'self'; media-src data: file: 'self'; script-src 'sha256-{digest}'",
        "clips": found,
        "values": Markup(json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(UNSAFE)),
        "sheet": [clip_media.COLUMNS, clip_media.ROWS],
        "embedded": embedded,
        "corpus": "",
        "summary": "",
        "random": [],
        "transductive": "",
        **heading,
    }
    return make_environment().get_template("clips.html").render(values)


def gather_clips(params: Params, data: Path, reports: Path) -> dict[str, Any]:
    """What the page shows of every held-out clip, the surest mistake of the main variant first.

    Returns:
        `variants` (names), `classes`, `dimensions`, `streams` (that have shares), and `clips`, each with `id` and what is known
        of it: `speaker`, `truth` (a class), `chances` (variant × class, thousandths), `values` (variant × dimension) and
        `wanted` (dimension), `shares` (stream, hundredths), `said`, `heard` (the words were recognised), `trace` (packed). Means
        over seeds; what a variant does not say is None.
    """
    table = results.read_parquet(reports / "predictions.parquet")
    empty: dict[str, Any] = {"variants": [], "classes": [], "dimensions": [], "streams": [], "clips": []}
    if table is None or "variant" not in table.columns:  # nothing was trained
        return empty
    columns = table.columns
    classes = [name[2:] for name in columns if name.startswith("p_")]
    names = [name for name in columns if f"truth_{name}" in columns]
    streams = [name for name in columns if name.startswith("share_")]
    variants = sorted(table["variant"].unique(), key=results.rank_variant)
    numbers = [*(f"p_{name}" for name in classes), *names, *streams]
    means = table.group_by("variant", "id").agg(pl.col(numbers).cast(pl.Float64).fill_nan(None).mean())
    facts = [name for name in ("speaker", "truth", *(f"truth_{name}" for name in names)) if name in columns]
    clips = {row["id"]: row for row in table.group_by("id").agg(pl.col(facts).first()).sort("id").to_dicts()}
    told = {clip: _tell_truth(row, classes, names) for clip, row in clips.items()}
    for rank, variant in enumerate(variants):
        mine = means.filter(pl.col("variant") == variant)
        ids = mine["id"].to_list()
        chances = np.rint(1000 * _numbers(mine, [f"p_{name}" for name in classes]))
        values, shares = np.round(_numbers(mine, names), 3), np.rint(100 * _numbers(mine, streams))
        for row, clip in enumerate(ids):
            if classes:
                told[clip].setdefault("chances", [None] * len(variants))[rank] = _whole(chances[row])
            if names:
                told[clip].setdefault("values", [None] * len(variants))[rank] = _plain(values[row])
            if streams and rank == 0 and np.isfinite(shares[row]).all():
                told[clip]["shares"] = _whole(shares[row])
    _add_words(told, data)
    _add_traces(told, reports)
    called = [results.name_variant(name, params.streams) for name in variants]
    ordered = sorted(told.values(), key=lambda clip: (-find_fault(clip, len(classes)), clip["id"]))
    return {
        "variants": called,
        "classes": classes,
        "dimensions": names,
        "streams": [name.removeprefix("share_") for name in streams],
        "clips": ordered,
    }


def find_fault(clip: Mapping, classes: int, variant: int = 0) -> float:
    """How sure a variant is of its mistake, in (1, 2]; of what is right, how little sure, in [0, 1]. Without classes the mean
    distance from the truth. Less than 0 where there is nothing to compare.

    >>> find_fault({"truth": 0, "chances": [[300, 700]]}, 2)
    1.7
    >>> find_fault({"truth": 1, "chances": [[300, 700]]}, 2)
    0.3
    """
    if classes:
        chances = clip["chances"][variant] if "chances" in clip else None
        if clip.get("truth") is None or not chances:
            return -1.0
        sure = max(chances) / 1000
        return 1 + sure if chances.index(max(chances)) != clip["truth"] else round(1 - sure, 6)
    wanted, values = clip.get("wanted") or [], (clip.get("values") or [None])[variant] or []
    gaps = [abs(a - b) for a, b in zip(wanted, values, strict=False) if a is not None and b is not None]
    return sum(gaps) / len(gaps) if gaps else -1.0


def _tell_truth(row: Mapping, classes: list[str], names: list[str]) -> dict:
    told = {"id": row["id"]}
    if row.get("speaker"):
        told["speaker"] = row["speaker"]
    if row.get("truth") in classes:
        told["truth"] = classes.index(row["truth"])
    elif row.get("truth"):
        told["other"] = row["truth"]  # a class the model does not predict
    wanted = [value if value is not None and math.isfinite(value) else None for value in (row.get(f"truth_{n}") for n in names)]
    if any(value is not None for value in wanted):
        told["wanted"] = [None if value is None else round(value, 3) for value in wanted]
    return told


def _numbers(table: pl.DataFrame, columns: list[str]) -> np.ndarray:
    return table.select(columns).to_numpy().astype(float) if columns else np.empty((len(table), 0))


def _whole(values: np.ndarray) -> list[int] | None:
    return [int(value) for value in values] if np.isfinite(values).all() else None


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]


def _add_words(told: dict[str, dict], data: Path) -> None:
    """What was said, as it was written down, else as it was recognised."""
    for name, heard in (("transcripts.parquet", True), ("manifest.parquet", False)):
        table = results.read_parquet(data / name)
        if table is not None and {"id", "text"} <= set(table.columns):
            for clip, text in table.select("id", "text").drop_nulls().iter_rows():
                if clip in told and text.strip():
                    told[clip] |= {"said": " ".join(text.split()), "heard": heard}


def _add_traces(told: dict[str, dict], reports: Path) -> None:
    """Truth and prediction over time, mean over folds, thinned evenly to `INSTANTS`, and packed: ten thousand of them are
    most of the page."""
    table = results.read_parquet(reports / "traces.parquet")
    if table is None:
        return
    names = [name.removeprefix("pred_") for name in table.columns if name.startswith("pred_")]
    columns = [f"{kind}_{name}" for name in names for kind in ("truth", "pred")]
    means = table.group_by("id", "time").agg(pl.col(columns).cast(pl.Float64).mean()).sort("id", "time")
    times, values = means["time"].to_numpy(), means.select(columns).to_numpy()
    counts = means.group_by("id", maintain_order=True).len()
    ends = counts["len"].cum_sum().to_list()
    for clip, end, count in zip(counts["id"].to_list(), ends, counts["len"].to_list(), strict=True):
        if clip in told and count > 1:
            kept = end - count + np.unique(np.linspace(0, count - 1, min(INSTANTS, count)).astype(int))
            told[clip]["trace"] = {
                "ends": [round(float(times[kept[0]]), 3), round(float(times[kept[-1]]), 3)],
                "time": pack_times(times[kept]),
                "lines": {name: [pack_values(values[kept, 2 * k + kind]) for kind in (0, 1)] for k, name in enumerate(names)},
            }


def pack_times(times: np.ndarray) -> str:
    """Rising instants (T,) as base64 of 16-bit shares of the way from the first to the last."""
    return base64.b64encode(np.rint((times - times[0]) / (times[-1] - times[0]) * 65535).astype("<u2").tobytes()).decode()


def pack_values(values: np.ndarray) -> str:
    """Values (T,) in [-1, 1] as base64 of bytes, hundredths; -128 is none."""
    whole = np.where(np.isfinite(values), np.rint(100 * np.clip(np.nan_to_num(values), -1, 1)), -128)
    return base64.b64encode(whole.astype(np.int8).tobytes()).decode()
