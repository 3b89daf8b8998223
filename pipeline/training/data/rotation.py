"""Rotation: seeds select on one validation part after the other, so that together they learn from every clip not held out.

Parts are drawn by the stage `manifest` (column `part` of `data/folds.parquet`): disjoint by the protocol's group, part 0 the
validation clips of the fold itself. Held-out clips are in none.
"""

from __future__ import annotations

import polars as pl

from pipeline.errors import ParamsError, StoreError


def check_rotation(folds: pl.DataFrame, origin: object) -> None:
    """Refuse, before the first run, what cannot be rotated.

    Raises:
        StoreError: the folds are of an older version, without parts.
        ParamsError: a fold has no validation parts.
    """
    if "part" not in folds.columns:
        raise StoreError(f"{origin} is of an older version and has no validation parts. Run `dvc repro manifest`.")
    for (fold,), rows in folds.group_by("fold", maintain_order=True):
        if rows["part"].null_count() == rows.height:
            raise ParamsError(
                f"training.rotate: fold {fold} has no validation parts to take in turn, for its validation clips are the corpus' "
                "own or there are none. Set it to false, or choose protocol.kind split, kfold or leave_one_out with protocol.val "
                "above 0."
            )


def count_parts(folds: pl.DataFrame) -> int:
    """Parts of the fold that has most of them; 1 where there is nothing to take in turn."""
    return 1 + int(folds["part"].fill_null(0).to_numpy().max()) if "part" in folds.columns else 1


def rotate(folds: pl.DataFrame, turn: int) -> pl.DataFrame:
    """`folds` with validation part `turn`, counted round, as `val` and the others as `train`; what has no part stays.

    Args:
        turn: a run's seed; every fold counts its own parts.
    """
    if "part" not in folds.columns:
        return folds
    chosen = turn % (pl.col("part").max().over("fold") + 1)
    role = pl.when(pl.col("part") == chosen).then(pl.lit("val")).otherwise(pl.lit("train"))
    return folds.with_columns(role=pl.when(pl.col("part").is_null()).then("role").otherwise(role))
