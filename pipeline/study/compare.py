"""Runs that are there, compared on the same held-out clips."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import polars as pl

from pipeline.errors import StoreError, one_of
from pipeline.evaluation import intervals
from pipeline.evaluation.intervals import Draws, Interval
from pipeline.evaluation.results import name_metric
from pipeline.evaluation.summary import SHOWN
from pipeline.evaluation.sums import Groups, Part, clip_parts, is_scored

from .holm import correct
from .kept import Kept
from .tell import align, tell, tell_difference, tell_p

#: Columns of the table: those of figures, and of parameters as many as there is room for.
FIGURES = ("run", "figure", "held out", "difference", "p", "p, Holm")
COLUMNS = 10


@dataclass(frozen=True)
class Compared:
    """A figure of a run.

    Attributes:
        difference: to the first run, p by the paired test, corrected over the runs; none for the first.
    """

    run: Kept
    metric: str
    figure: Interval
    difference: Interval = Interval(math.nan)
    p: float = math.nan
    corrected: float = math.nan


@dataclass(frozen=True)
class _Side:
    """A run's tables, one per seed, and what it predicts."""

    run: Kept
    seeds: list[pl.DataFrame]
    classes: tuple[str, ...]
    names: tuple[str, ...]

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
        return {name: (part, draws) for part in parts for name in part.figures(part.sums.sum(1))}


def compare_runs(runs: Sequence[Kept], variant: str) -> list[Compared]:
    """The figures of each run, and their differences to the first one's.

    Args:
        variant: of runs that name none.

    Raises:
        ParamsError: a run has no such variant.
        StoreError: the runs do not hold the same test clips or classes, or have unequal numbers of seeds.
    """
    first, *others = sides = [_read_side(run, variant) for run in runs]
    for other in others:
        _check_same(first, other)
    groups = Groups.of(first.seeds[0])
    parts = [side.parts(groups, number) for number, side in enumerate(sides)]
    wanted = [name for name in dict.fromkeys([first.run.select, *SHOWN]) if all(name in one for one in parts)]
    found: list[Compared] = []
    for metric in wanted:
        rows = [
            Compared(side.run, metric, intervals.estimate([one[metric][0]], one[metric][1])[metric])
            for side, one in zip(sides, parts, strict=True)
        ]
        apart = [intervals.compare(one[metric], parts[0][metric], metric) for one in parts[1:]]
        corrected = correct([one.p for one in apart])
        found += [rows[0]] + [
            replace(row, difference=one.difference, p=one.p, corrected=p)
            for row, one, p in zip(rows[1:], apart, corrected, strict=True)
        ]
    return found


def _read_side(run: Kept, variant: str) -> _Side:
    table, variant = run.predictions, run.variant or variant
    if variant not in (known := sorted(table["variant"].unique())):
        raise one_of(f"variant of {run.name}", variant, known)
    mine = table.filter(pl.col("variant") == variant)
    classes = tuple(name.removeprefix("p_") for name in table.columns if name.startswith("p_"))
    names = tuple(name.removeprefix("truth_") for name in table.columns if name.startswith("truth_"))
    return _Side(run, mine.partition_by("seed", maintain_order=True), classes, names)


def _check_same(first: _Side, other: _Side) -> None:
    """
    Raises:
        StoreError: see `compare_runs`.
    """
    both = f"{first.run.name} and {other.run.name}"
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


def list_changes(runs: Sequence[Kept]) -> dict[str, list[object]]:
    """Parameter → its value in each run, of those that are not the same in all."""
    values = {name: [run.params.get(name) for run in runs] for name in sorted({name for run in runs for name in run.params})}
    return {name: given for name, given in values.items() if any(one != given[0] for one in given)}


def format_comparison(runs: Sequence[Kept], found: Sequence[Compared], variant: str) -> str:
    """The comparison for a terminal: a row per figure and run, at most `COLUMNS` wide; parameters without room stand below."""
    changed = list_changes(runs)
    head = FIGURES if len(runs) > 2 else FIGURES[:-1]
    shown = list(changed)[: COLUMNS - len(head)]
    rows: list[tuple[str, ...]] = [(*head, *shown)]
    for place, one in enumerate(found):
        which = place % len(runs)
        apart = (tell_difference(one.difference), tell_p(one.p), tell_p(one.corrected)) if which else ("–", "–", "–")
        values = [_tell_value(changed[name][which]) if place < len(runs) else "" for name in shown]
        rows.append((one.run.name, name_metric(one.metric), tell(one.figure), *apart[: len(head) - 3], *values))
    clips = found[0].run.predictions.filter(pl.col("variant") == (runs[0].variant or variant))["id"].n_unique()
    who = f"{variant}, " if any(run.variant is None for run in runs) else ""
    lines = [f"{who}{clips} held-out clips; differences to {runs[0].name}", "", *align(rows), ""]
    for name in list(changed)[len(shown) :]:
        lines.append(f"{name}: {', '.join(f'{run.name} {_tell_value(v)}' for run, v in zip(runs, changed[name], strict=True))}")
    lines += [] if changed else ["All parameters are the same."]
    lines += [f"{run.name} is transductive: features normalised within a {run.shared}." for run in runs if run.shared]
    return "\n".join(lines).rstrip()


def _tell_value(value: object) -> str:
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)
