"""`submission.csv`: what the model says of every annotated frame, on the corpus' own scale and by its own frame numbers."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from pipeline.storage import atomic, tables


def read_scale(card: str | Path) -> tuple[float, float]:
    """Ends of the scale on which the corpus annotates dimensions, from the data card; [-1, 1] where it does not say."""
    path = Path(card)
    low, high = json.loads(path.read_text(encoding="utf-8")).get("scale", (-1, 1)) if path.is_file() else (-1, 1)
    return float(low), float(high)


def write_submission(
    traces: pl.DataFrame, annotations: str | Path, names: tuple[str, ...], scale: tuple[float, float], out: Path
) -> None:
    """Write `clip_id`, `frame`, and each dimension with six decimals; the heading alone when nothing is predicted over time.

    Args:
        traces: of the fused model, one row per clip and instant, in [-1, 1].
        annotations: the held-out annotations, whose `frame` is the number of the frame as the corpus has it; where it has
            none, the place among the annotated instants of the clip, from 0.
    """
    low, high = scale
    units = [(pl.lit(low) + (pl.col(f"pred_{n}") + 1) * ((high - low) / 2)).round(6).alias(n) for n in names]
    rows = traces.clear().with_columns(frame=pl.lit(None, pl.String))
    if traces.height:
        asked = tables.read(annotations).sort("id", "time", maintain_order=True)
        given = pl.col("frame") if "frame" in asked.columns else pl.lit(None, pl.String)
        place = pl.int_range(pl.len()).over("id").cast(pl.String)
        asked = asked.select("id", "time", pl.coalesce(given, place).alias("frame"))
        rows = asked.join(traces, on=["id", "time"], how="inner", maintain_order="left")
    corpora = rows["id"].str.split("/").list.first().n_unique()
    # Of one corpus the clips have their own names; of several only what is before them tells them apart.
    clip = pl.col("id").str.splitn("/", 2).struct[1] if corpora == 1 else pl.col("id")
    table = rows.select(pl.coalesce(clip, "id").alias("clip_id"), "frame", *units)
    atomic.write_text(out, table.write_csv(float_precision=6))
