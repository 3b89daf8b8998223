"""The last run of this checkout, kept so that the next one can be compared with it.

`last.json` holds this run and the latest one with other parameters or figures; a folder of the same name their predictions. No
stage removes them, and DVC does not know them: a result that comes from its cache is compared by `python -m pipeline compare`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from pipeline.errors import UserError
from pipeline.runs.folders import FUSED
from pipeline.storage import atomic

from .paired import Side, compare_sides
from .results import read_parquet
from .summary import SHOWN

#: What tells one run from another; where it was made does not.
RUN = ("params", "summary")


def exchange(now: Mapping[str, object], predictions: pl.DataFrame, place: Path) -> dict | None:
    """Keep this run; the one before it, or None. Evaluating the same again gives the same one before.

    Args:
        now: `params` (flat), `summary`, and what else is told of a run. place: `last.json`.
    """
    kept = _read(place)
    latest, folder = _entry(kept.get("now")), place.with_suffix("")
    same = latest is not None and all(latest[key] == now[key] for key in RUN)
    before = _entry(kept.get("before")) if same else latest
    if not same:
        (folder / "before.parquet").unlink(missing_ok=True)
        if latest is not None and (folder / "now.parquet").is_file():
            os.replace(folder / "now.parquet", folder / "before.parquet")
    with atomic.atomic_file(folder / "now.parquet") as temporary:
        predictions.write_parquet(temporary)
    atomic.write_json(place, {"now": now, "before": before})
    return before


def compare_with_last(predictions: pl.DataFrame, select: str, place: Path) -> dict[str, object]:
    """`figures`: of the fused model in the last run and in this one, with their paired difference, its interval and p; or
    `reason`, why nothing is paired."""
    earlier = _read_table(place)
    if earlier is None:
        return {"reason": "the predictions of the last run were not kept"}
    try:
        sides = []
        for name, table in (("the last run", earlier), ("this one", predictions)):
            known = table["variant"].unique().to_list()
            sides.append(Side.of(name, table, FUSED if FUSED in known else min(known)))
        found = compare_sides(sides, [select, *SHOWN])
    except UserError as error:
        return {"reason": str(error).rstrip(".")}
    return {
        "figures": [
            {
                "metric": metric,
                "before": before.value.rounded(),
                "after": after.value.rounded(),
                "difference": after.difference.rounded(),
                "p": None if after.p != after.p else round(after.p, 6),
            }
            for metric, (before, after) in found.items()
        ]
    }


def _read(path: Path) -> dict:
    """What was kept; nothing when there is none or when it is damaged: it only says what to compare with."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_table(place: Path) -> pl.DataFrame | None:
    try:
        return read_parquet(place.with_suffix("") / "before.parquet")
    except (pl.exceptions.PolarsError, OSError):
        return None


def _entry(value: object) -> dict | None:
    return value if isinstance(value, dict) and all(isinstance(value.get(key), dict) for key in RUN) else None


def read_last(place: Path) -> tuple[pl.DataFrame, dict[str, object]] | None:
    """Predictions and parameters of the last run, where they were kept."""
    entry, table = _entry(_read(place).get("before")), _read_table(place)
    return None if entry is None or table is None else (table, entry["params"])
