"""Two runs, or more, on the same held-out clips: their figures, and the differences of figures, paired."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from pipeline.errors import StoreError, one_of

from . import intervals
from .intervals import Draws, Interval
from .sums import Groups, Part, clip_parts, is_scored, kept_frame_parts


@dataclass(frozen=True)
class Side:
    """A run's predictions by one variant: a table per seed, truth included, and what they predict."""

    name: str
    seeds: list[pl.DataFrame]
    classes: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, name: str, table: pl.DataFrame, variant: str) -> Side:
        """
        Args:
            name: what the run is called. table: its `predictions.parquet`.

        Raises:
            ParamsError: it has no such variant.
        """
        if variant not in (known := sorted(table["variant"].unique())):
            raise one_of(f"variant of {name}", variant, known)
        mine = table.filter(pl.col("variant") == variant)
        classes = tuple(column.removeprefix("p_") for column in table.columns if column.startswith("p_"))
        names = tuple(column.removeprefix("truth_") for column in table.columns if column.startswith("truth_"))
        return cls(name, mine.partition_by("seed", maintain_order=True), classes, names)

    @property
    def truth(self) -> pl.DataFrame:
        """The held-out clips that count, as often as they are tested, with their labels and groups."""
        table = self.seeds[0].filter(is_scored(self.classes, self.names))
        columns = ["id", "truth", "speaker", "dialogue", "session", *(f"truth_{name}" for name in self.names)]
        return table.select(name for name in columns if name in table.columns).sort("id")

    def parts(self, groups: Groups, number: int) -> dict[str, tuple[Part, Draws]]:
        """Metric → what `intervals.compare` wants."""
        draws = Draws.of(len(groups.names), len(self.seeds), variant=number)
        parts = clip_parts(self.seeds, groups, self.classes, self.names)
        parts += kept_frame_parts(self.seeds, groups, self.names)
        return {name: (part, draws) for part in parts for name in part.figures(part.sums.sum(1))}


@dataclass(frozen=True)
class Figure:
    """A figure of one side; its difference to the first side's, and p of the paired test, of all but the first."""

    metric: str
    side: Side
    value: Interval
    difference: Interval = Interval(math.nan)
    p: float = math.nan


def compare_sides(sides: Sequence[Side], metrics: Sequence[str]) -> dict[str, list[Figure]]:
    """Metric, of those that all sides have → a figure of each side.

    Raises:
        StoreError: the sides do not hold the same test clips or classes, or have unequal numbers of seeds.
    """
    for other in sides[1:]:
        _check_same(sides[0], other)
    groups = Groups.of(sides[0].seeds[0])
    parts = [side.parts(groups, number) for number, side in enumerate(sides)]
    found: dict[str, list[Figure]] = {}
    for metric in [name for name in dict.fromkeys(metrics) if all(name in one for one in parts)]:
        values = [intervals.estimate([one[metric][0]], one[metric][1])[metric] for one in parts]
        apart = [intervals.compare(one[metric], parts[0][metric], metric) for one in parts[1:]]
        found[metric] = [Figure(metric, sides[0], values[0])] + [
            Figure(metric, side, value, one.difference, one.p)
            for side, value, one in zip(sides[1:], values[1:], apart, strict=True)
        ]
    return found


def _check_same(first: Side, other: Side) -> None:
    """
    Raises:
        StoreError: see `compare_sides`.
    """
    both = f"{first.name} and {other.name}"
    if first.classes != other.classes or first.names != other.names:
        told = [", ".join((*side.classes, *side.names)) for side in (first, other)]
        raise StoreError(f"{both} do not predict the same: {told[0]}; {told[1]}.")
    one, two = first.truth, other.truth
    if not one["id"].equals(two["id"]):
        lacking = sorted(set(one["id"]) ^ set(two["id"]))
        example = f", for instance {lacking[0]}" if lacking else ", some of them more often"
        raise StoreError(f"{both} were not tested on the same clips ({len(one)} and {len(two)}{example}); nothing is paired.")
    if not one.equals(two):
        raise StoreError(f"{both} were tested on the same clips with other labels or speakers; nothing is paired.")
    if len(counts := {len(first.seeds), len(other.seeds)}) > 1 and 1 not in counts:
        raise StoreError(f"{both} have {len(first.seeds)} and {len(other.seeds)} seeds; compare as many, or one.")
