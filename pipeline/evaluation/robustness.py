"""What disturbed clips cost: figures of `reports/robustness.json`, beside those of the same clips as they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.errors import StoreError, UserError
from pipeline.storage import tables

from . import intervals
from .intervals import Draws
from .predictions import truth_table
from .sums import Groups, Part, clip_parts, decision_part


def choose_clips(folds: str | Path, truth: str | Path, count: int, seed: int) -> list[str]:
    """At most `count` held-out clips that have a label, by chance that hangs on the seed alone, sorted.

    Raises:
        UserError: fewer than one is asked for.
        StoreError: no held-out clip has a label.
    """
    if count < 1:
        raise UserError(f"{count} clips tell nothing; give --clips 1 or more.")
    labels = [pl.col(name) for name in tables.LABELS]
    known = tables.read(truth).filter(pl.any_horizontal(label.is_not_null() for label in labels))["id"]
    held = tables.read(folds).filter((pl.col("role") == "test") & pl.col("id").is_in(known.to_list()))
    ids = held["id"].unique().sort().to_list()
    if not ids:
        raise StoreError(f"{truth} has no label of any test clip. Run `dvc repro manifest`.")
    return sorted(np.random.default_rng([4, seed]).permutation(ids)[:count].tolist())


def score(
    table: pl.DataFrame, truth: str | Path, truth_annotations: str | Path, manifest: str | Path
) -> tuple[str, list[dict[str, object]]]:
    """The metric (UAR, else CCC), and a row per variant and disturbance.

    Args:
        table: predictions, see `serving.robustness.predict_disturbed`.

    Returns:
        Rows of `variant`, `kind` and `level` (null for clips as they are), the interval, and `difference` to the same clips as
        they are, its interval and `p`.
    """
    classes = tuple(name[2:] for name in table.columns if name.startswith("p_"))
    names = tuple(name for name in ("valence", "arousal", "dominance") if name in table.columns)
    known = truth_table(truth, truth_annotations, names)[0]
    known = known.rename({"emotion": "truth", **{name: f"truth_{name}" for name in names}})
    facts = tables.read(manifest)
    facts = facts.select("id", *(c for c in ("speaker", "dialogue", "session") if c in facts.columns))
    table = table.join(facts, on="id", how="left").join(known, on="id", how="left")
    groups, metric = Groups.of(table), "uar" if classes else "ccc"

    def part(found: pl.DataFrame) -> Part:
        seeds = found.partition_by("seed", maintain_order=True)
        return decision_part(seeds, groups, classes) if classes else clip_parts(seeds, groups, (), names)[0]

    rows: list[dict[str, object]] = []
    for number, found in enumerate(table.partition_by("variant", maintain_order=True)):
        plain = part(found.filter(pl.col("kind").is_null()))
        draws = Draws.of(len(groups.names), len(plain.sums), variant=number)
        for one in found.partition_by("kind", "level", maintain_order=True):
            kind, level, mine = one["kind"][0], one["level"][0], part(one)
            enough = draws if len(groups.names) >= intervals.FEW else None
            value = intervals.estimate([mine], enough)[metric]
            row = {"variant": found["variant"][0], "kind": kind, "level": level, **value.rounded()}
            if kind is not None:
                gap = intervals.compare((mine, draws), (plain, draws), metric)
                row |= {"difference": gap.difference.rounded(), "p": round(gap.p, 6) if np.isfinite(gap.p) else None}
            rows.append(row)
    return metric, rows


def name_evaluation(reports: Path) -> str:
    """Which evaluation figures belong to: a digest of `metrics.json`.

    Raises:
        StoreError: nothing was evaluated.
    """
    path = reports / "metrics.json"
    if not path.is_file():
        raise StoreError(f"{path} is not there. Run `dvc repro evaluate`.")
    return hashlib.sha256(path.read_bytes()).hexdigest()
