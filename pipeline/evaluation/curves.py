"""Learning curves for the report, from `plots/history.csv`."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from pipeline.runs.folders import FUSED

from . import plots, results
from .panels import Floors
from .plots import Line

#: Curves drawn as single runs before only the means are shown.
THIN = 40


def show_learning(table: pl.DataFrame | None, floors: Floors, streams: Sequence[str] = ()) -> list[dict]:
    """Loss of the main variant, and the selecting metric of all variants on validation clips.

    Of the floors those are drawn that need no validation labels: chance, wherever it is 0 or one over the classes.
    """
    if table is None:
        return []
    names = sorted(table["variant"].unique(), key=lambda name: (name != FUSED, name))
    called = [results.name_variant(name, streams) for name in names]
    mine = table.filter(pl.col("variant") == names[0])
    result = []
    losses = [c for c in ("train_loss", "val_loss") if c in table.columns]
    if losses:
        curves = [line for rank, c in enumerate(losses) for line in _runs(mine, c, f"s{rank}")]
        result.append(
            {
                "title": f"Loss, {called[0]}",
                "svg": plots.draw_lines(curves, "epoch", "loss", f"Training and validation loss of {called[0]} over epochs"),
                "legend": [
                    {"style": f"s{rank}", "name": {"train_loss": "training", "val_loss": "validation"}[c]}
                    for rank, c in enumerate(losses)
                ],
            }
        )
    for column in [c for c in table.columns if c.startswith("val_") and c != "val_loss"]:
        title = results.name_metric(column.removeprefix("val_"))
        curves = [
            line
            for rank, name in enumerate(names)
            for line in _runs(table.filter(pl.col("variant") == name), column, f"s{rank % 8}")
        ]
        if curves:
            result.append(
                {
                    "title": f"{title} on validation clips",
                    "svg": plots.draw_lines(
                        curves,
                        "epoch",
                        title,
                        f"{title} of {', '.join(called)} on validation clips over epochs",
                        floors=_chance(floors, column.removeprefix("val_")),
                    ),
                    "legend": [{"style": f"s{rank % 8}", "name": name} for rank, name in enumerate(called)],
                }
            )
    return result


def _chance(floors: Floors, metric: str) -> dict[str, float]:
    """Chance on whatever clips: of other metrics it depends on how often the classes occur."""
    value = floors.get("chance", {}).get(metric)
    return {"chance": value} if value is not None and (metric == "uar" or metric.endswith("ccc")) else {}


def _runs(table: pl.DataFrame, column: str, style: str) -> list[Line]:
    """Each run thin, and the mean of the epochs that all runs reached."""
    keys = ["seed"] + (["fold"] if "fold" in table.columns else [])
    table = table.with_columns(pl.col(column).cast(pl.Float64, strict=False).fill_nan(None)).sort(*keys, "epoch")
    runs = table.partition_by(keys, maintain_order=True)
    thin = [Line(r["epoch"].to_list(), r[column].to_list(), f"faint {style}") for r in runs]
    mean = (
        table.group_by("epoch")
        .agg(pl.col(column).mean(), pl.len().alias("runs"))
        .sort("epoch")
        .filter(pl.col("runs") == len(runs))
    )
    return ([*thin] if 1 < len(thin) <= THIN else []) + [Line(mean["epoch"].to_list(), mean[column].to_list(), style)]
