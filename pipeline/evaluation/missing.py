"""The fused model with streams left out: how it fares, and what each stream is worth to it."""

from __future__ import annotations

import polars as pl

from pipeline.runs.folders import ENSEMBLE, FUSED

from . import intervals
from .summary import draws_of
from .sums import Groups, clip_parts, decision_part


def measure_missing(kept: pl.DataFrame, groups: Groups, classes: tuple[str, ...], names: tuple[str, ...]) -> pl.DataFrame:
    """`variant`, `kept`, `streams` (how many), `metric` (UAR, else CCC) and its interval: a row per set of streams not empty.

    Args:
        kept: predictions with truth of the fused model, and of the ensemble where there is one; other variants are left out.
            `kept` is the streams' names, "audio+text".
    """
    metric, rows = "uar" if classes else "ccc", []
    for variant in (FUSED, ENSEMBLE):
        mine = kept.filter(pl.col("variant") == variant) if kept.height else kept
        labels = sorted(mine["kept"].unique(), key=lambda one: (-one.count("+"), one.split("+"))) if mine.height else []
        for label in filter(None, labels):
            tables = mine.filter(pl.col("kept") == label).partition_by("seed", maintain_order=True)
            parts = [decision_part(tables, groups, classes)] if classes else clip_parts(tables, groups, (), names)
            found = intervals.estimate(parts, draws_of(tables, groups, 0))[metric]
            row = {"variant": variant, "kept": label, "streams": label.count("+") + 1, "metric": metric}
            rows.append(row | found.rounded())
    return pl.DataFrame(rows, infer_schema_length=None) if rows else pl.DataFrame(schema={"kept": pl.String()})
