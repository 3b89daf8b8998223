"""Runs that are there, compared on the same held-out clips."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from pipeline.evaluation.intervals import Interval
from pipeline.evaluation.paired import Side, compare_sides
from pipeline.evaluation.results import name_metric
from pipeline.evaluation.summary import SHOWN
from pipeline.evaluation.sums import have_frames

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


def compare_runs(runs: Sequence[Kept], variant: str) -> list[Compared]:
    """The figures of each run, and their differences to the first one's.

    Args:
        variant: of runs that name none.

    Raises:
        ParamsError: a run has no such variant.
        StoreError: the runs do not hold the same test clips or classes, or have unequal numbers of seeds.
    """
    sides = [Side.of(run.name, run.predictions, run.variant or variant) for run in runs]
    found: list[Compared] = []
    for figures in compare_sides(sides, [runs[0].select, *SHOWN]).values():
        corrected = [math.nan, *correct([one.p for one in figures[1:]])]
        found += [
            Compared(run, one.metric, one.value, one.difference, one.p, p)
            for run, one, p in zip(runs, figures, corrected, strict=True)
        ]
    return found


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
    lines += _tell_frames(runs, variant)
    lines += [f"{run.name} is transductive: features normalised within a {run.shared}." for run in runs if run.shared]
    return "\n".join(lines).rstrip()


def _tell_frames(runs: Sequence[Kept], variant: str) -> list[str]:
    """Which runs keep nothing of frames where others do, so that figures of frames are not compared."""
    kept = {run.name: have_frames(run.predictions.filter(pl.col("variant") == (run.variant or variant))) for run in runs}
    lacking = [name for name, there in kept.items() if not there]
    if not lacking or len(lacking) == len(kept):
        return []
    names = ", ".join(lacking)
    return [f"Figures of frames are not compared: {names} kept none. Evaluated anew, what is predicted over time keeps them."]


def _tell_value(value: object) -> str:
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)
