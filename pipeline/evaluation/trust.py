"""What tells how far the figures can be trusted, beside the figures: written by `evaluate`, drawn by the report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from pipeline.storage import atomic

from . import attribution, difficulty, selective
from .summary import draws_of
from .sums import Groups


def write_trust(
    out: Path,
    tables: list[pl.DataFrame],
    kept: pl.DataFrame,
    probe: Mapping[str, object],
    groups: Groups,
    classes: tuple[str, ...],
    labels: tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame],
) -> None:
    """Write `plots/selective.csv`, `plots/difficulty.csv`, `trust.json` (Shapley values, the fit of difficulty) and `probe.json`.

    Args:
        tables: predictions of the main variant, one per seed.
        kept: its predictions with streams left out, with truth.
        labels: held-out truth, the manifest and the folds.
    """
    draws = draws_of(tables, groups, 0)
    curve = selective.draw_curve(tables, groups, classes, draws) if classes else pl.DataFrame(schema={"coverage": pl.Float64()})
    buckets, fit = difficulty.analyse(tables, *labels, classes)
    worth = attribution.attribute(kept, groups, classes, draws)
    atomic.write_text(out / "plots" / "selective.csv", curve.write_csv())
    atomic.write_text(out / "plots" / "difficulty.csv", buckets.write_csv())
    atomic.write_json(out / "trust.json", {"shapley": worth, "difficulty": fit})
    atomic.write_json(out / "probe.json", probe)
