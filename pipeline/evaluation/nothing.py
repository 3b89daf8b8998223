"""What `evaluate` leaves where nothing was trained: the files of a run, with nothing in them."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl

from pipeline.params import Params
from pipeline.storage import atomic, tables

TABLES = ("predictions", "traces", "trajectories", "per_speaker")
RECORDS = ("metrics", "per_class", "per_fold", "comparisons", "baselines", "trust", "probe", "run", "summary")
PLOTS = ("missing", "selective", "confusion", "calibration", "history", "difficulty", "variants", "learning", "leading")


def find_scores(params: Params, reports: Path) -> Path:
    """Where the report finds what was scored: nowhere without labels, for what a run does not have is said in its section."""
    return Path(os.devnull) if params.protocol.kind == "none" else reports


def write_nothing(out: Path) -> None:
    """Every output of the stage; DVC wants them there."""
    for name in TABLES:
        tables.write(pl.DataFrame(schema={"id": pl.String()}), out / f"{name}.parquet")
    for name in RECORDS:
        atomic.write_json(out / f"{name}.json", {})
    atomic.write_text(out / "submission.csv", "id\n")
    for name in PLOTS:
        atomic.write_text(out / "plots" / f"{name}.csv", "variant\n")
