"""One variant against another on the same clips: the content of `comparisons.json`."""

from __future__ import annotations

import polars as pl

from pipeline.runs.folders import ENSEMBLE, FUSED, LINEAR
from pipeline.storage.atomic import to_finite

from . import intervals
from .intervals import Draws
from .sums import Groups, clip_parts


def compare_variants(
    seeds: dict[str, list[pl.DataFrame]],
    groups: Groups,
    result: dict[str, dict[str, dict[str, float | None]]],
    metric: str,
    classes: tuple[str, ...],
    names: tuple[str, ...],
) -> dict[str, dict[str, object]]:
    """Variant → fused minus this variant, with interval and p; of the ensemble also `over_linear`: it minus the linear model.

    Args:
        seeds: prediction tables of each variant, one per seed. result: content of `metrics.json`.
    """
    if FUSED not in seeds:
        return {}
    sides = {
        variant: (part, Draws.of(len(groups.names), len(parts), variant=number))
        for number, (variant, parts) in enumerate(seeds.items())
        for part in clip_parts(parts, groups, classes, names)
        if metric in part.figures(part.sums.sum(1))
    }

    def differ(first: str, second: str) -> dict[str, object]:
        found = intervals.compare(sides[first], sides[second], metric)
        bounds = found.difference.rounded()
        return {
            "difference": bounds.pop("mean"),
            **{f"difference_{name}": value for name, value in bounds.items()},
            "p": to_finite(round(found.p, 6)),
        }

    compared: dict[str, dict[str, object]] = {
        variant: {"metric": metric, "fused": result[FUSED][metric], "other": result[variant][metric], **differ(FUSED, variant)}
        for variant in seeds
        if variant != FUSED
    }
    if {ENSEMBLE, LINEAR} <= set(compared):
        compared[ENSEMBLE]["over_linear"] = differ(ENSEMBLE, LINEAR)
    return compared
