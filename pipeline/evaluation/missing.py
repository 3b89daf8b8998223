"""The fused model with streams left out: how it fares, and what each stream is worth to it."""

from __future__ import annotations

import polars as pl

from . import intervals
from .summary import draws_of
from .sums import Groups, clip_parts, decision_part


def measure_missing(kept: pl.DataFrame, groups: Groups, classes: tuple[str, ...], names: tuple[str, ...]) -> pl.DataFrame:
    """`kept`, `streams` (how many), `metric` (UAR, else CCC) and its interval: a row per set of streams that is not empty.

    Args:
        kept: predictions with truth; `kept` is the streams' names, "audio+text".
    """
    metric, rows = "uar" if classes else "ccc", []
    labels = sorted(kept["kept"].unique(), key=lambda one: (-one.count("+"), one.split("+"))) if kept.height else []
    for label in filter(None, labels):
        tables = kept.filter(pl.col("kept") == label).partition_by("seed", maintain_order=True)
        parts = [decision_part(tables, groups, classes)] if classes else clip_parts(tables, groups, (), names)
        found = intervals.estimate(parts, draws_of(tables, groups, 0))[metric]
        rows.append({"kept": label, "streams": label.count("+") + 1, "metric": metric, **found.rounded()})
    return pl.DataFrame(rows, infer_schema_length=None) if rows else pl.DataFrame(schema={"kept": pl.String()})
