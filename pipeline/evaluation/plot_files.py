"""What `dvc plots` draws of a run, from the tables beside it; the templates are in `.dvc/plots/`."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from pipeline.runs.folders import FUSED
from pipeline.storage import atomic

from .results import rank_variant, read_csv

ROLES = {"train_loss": "training", "val_loss": "validation"}


def write_plot_files(plots: Path, metric: str) -> None:
    """Write `learning.csv`, the loss of the fused model by epoch and role, mean over the runs while all of them learned; and
    `leading.csv`, each variant's figure with its interval.

    Args:
        plots: folder of `history.csv` and `variants.csv`. metric: which figure.
    """
    atomic.write_text(plots / "learning.csv", _average(read_csv(plots / "history.csv", ("variant", "epoch"))).write_csv())
    table = read_csv(plots / "variants.csv", ("variant", "metric", "mean"))
    rows = [] if table is None else table.filter(pl.col("metric") == metric).to_dicts()
    rows.sort(key=lambda row: (row["variant"] in ("chance", "majority"), rank_variant(row["variant"])))
    names = ("variant", "metric", "mean", "low", "high")
    leading = pl.DataFrame([[row[name] for name in names] for row in rows], schema=names, orient="row", infer_schema_length=None)
    atomic.write_text(plots / "leading.csv", leading.write_csv())


def _average(history: pl.DataFrame | None) -> pl.DataFrame:
    schema = {"epoch": pl.Int64(), "role": pl.String(), "loss": pl.Float64()}
    if history is None:
        return pl.DataFrame(schema=schema)
    names = history["variant"].unique().to_list()
    mine = history.filter(pl.col("variant") == (FUSED if FUSED in names else min(names)))
    keys = [name for name in ("fold", "seed") if name in mine.columns]
    runs = mine.select(keys).unique().height if keys else 1
    parts = []
    for column, role in ROLES.items():
        if column in mine.columns:
            means = (
                mine.select("epoch", pl.col(column).cast(pl.Float64, strict=False).fill_nan(None).alias("loss"))
                .group_by("epoch")
                .agg(pl.col("loss").mean(), pl.len().alias("runs"))
                .filter((pl.col("runs") >= runs) & pl.col("loss").is_not_null())
            )
            parts.append(means.select(pl.col("epoch").cast(pl.Int64), pl.lit(role).alias("role"), "loss").sort("epoch"))
    return pl.concat(parts) if parts else pl.DataFrame(schema=schema)
