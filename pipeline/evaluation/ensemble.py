"""The ensemble's rows in tables of predictions: the weighted mean of its members' rows, no network is asked again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from pipeline.runs.ensemble import find_members, read_shares
from pipeline.runs.folders import ENSEMBLE, FUSED, LINEAR, RunName, list_runs

from .predictions import mix_spread


def weigh_members(root: str | Path) -> dict[RunName, float]:
    """What each run below `root` is worth in the ensemble, together 1 in every fold; empty when there is none.

    Raises:
        StoreError: a member was not trained.
    """
    if read_shares(root) is None:
        return {}
    names = {folder: name for name, folder in list_runs(root).items()}
    folds = sorted({name.fold for name in names.values()})
    return {names[folder]: share for fold in folds for folder, share in find_members(root, ENSEMBLE, fold).items()}


def add_ensemble(table: pl.DataFrame, weights: Mapping[RunName, float], classes: tuple[str, ...]) -> pl.DataFrame:
    """`table` and, after it, a row of variant `ensemble` and seed 0 for what its members say of the same clip (and instant).

    Numbers are averaged (probabilities, dimensions); the class is the likeliest of the mean. What only some members give,
    as traces, is the mean of those.

    Args:
        table: `variant`, `fold`, `seed`, `id`, perhaps `time` and `kept`, and numbers.
    """
    if not weights or not table.height:
        return table
    worth = pl.DataFrame([{**vars(name), "weight": weight} for name, weight in weights.items()])
    by = [name for name in ("fold", "kept", "id", "time") if name in table.columns]
    given = [n for n in table.columns if n not in ("variant", "seed", "predicted", *by)]
    keys = ["variant", "fold", "seed"]
    members = table.join(worth, on=keys, how="inner", maintain_order="left")
    share = pl.col("weight") / pl.col("weight").sum()
    own = [n for n in given if n == "temperature" or n.startswith("share_")]  # of a network, not of a mean
    mean = members.group_by(by, maintain_order=True).agg(_average(n, share) for n in given if n not in own)
    mean = mean.with_columns(pl.lit(None).alias(n) for n in own)
    mean = mean.with_columns(variant=pl.lit(ENSEMBLE), seed=pl.lit(0))
    if "predicted" in table.columns:
        likeliest = mean.select(f"p_{name}" for name in classes).to_numpy().argmax(1)
        mean = mean.with_columns(predicted=pl.Series([classes[place] for place in likeliest], dtype=pl.String))
    return pl.concat([table, mean.select(pl.col(n).cast(kind) for n, kind in table.schema.items())])


def _average(name: str, share: pl.Expr) -> pl.Expr:
    if name.startswith("truth"):
        return pl.col(name).first()
    return (
        mix_spread(name.removeprefix("sd_"), share) if name.startswith("sd_") else (pl.col(name).cast(pl.Float64) * share).sum()
    )


def count_members(weights: Mapping[RunName, float]) -> dict[str, object] | None:
    """For people: how many networks there are in a fold, and whether the linear model is with them; None without an ensemble."""
    networks = {name.seed for name in weights if name.variant == FUSED}
    return {"networks": len(networks), "linear": any(name.variant == LINEAR for name in weights)} if weights else None
