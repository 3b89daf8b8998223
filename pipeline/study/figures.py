"""Figures of a study: held-out truth meets the predictions of every setting, as in `evaluate`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from pipeline.errors import StoreError
from pipeline.evaluation import intervals, summary
from pipeline.evaluation.intervals import Draws, Interval
from pipeline.evaluation.predictions import tell_traces, truth_table
from pipeline.evaluation.sums import Groups, Part, clip_parts, frame_parts
from pipeline.params import Params
from pipeline.storage import tables
from pipeline.training.variants import list_variants

from .settings import Setting
from .work import Outcome

NONE = Interval(math.nan)
#: Sums of a metric, and the draws of groups and seeds.
Side = tuple[Part, Draws]


@dataclass(frozen=True)
class Row:
    """A setting and what it reached.

    Attributes:
        figure: held-out, of the study's metric. figures: of every metric.
        validation: what its checkpoints scored when they were selected, mean over folds and seeds; NaN where that is not
            comparable with the reference.
        difference: to the reference, and its interval. p, corrected: by the paired test, and by Holm's method.
        shared: see `Outcome`. runs: how many there are.
    """

    setting: Setting
    figure: Interval = NONE
    figures: dict[str, Interval] | None = None
    validation: float = math.nan
    difference: Interval = NONE
    p: float = math.nan
    corrected: float = math.nan
    shared: str = ""
    runs: int = 0
    reason: str = ""

    @property
    def shown(self) -> bool:
        """Whether test, corrected, and interval both say that it differs from the reference."""
        apart = self.difference
        return self.corrected < 0.05 and apart.bounded and (apart.low > 0 or apart.high < 0)


class Truth:
    """What held-out clips are, and whose; made when all is trained."""

    def __init__(self, manifest: str | Path, truth: str | Path, annotations: str | Path) -> None:
        table = tables.read(manifest)
        self.facts = table.select("id", *(c for c in ("speaker", "dialogue", "session") if c in table.columns))
        self.truth, self.annotations = truth, annotations
        self.groups: Groups | None = None
        self._known: dict[tuple[str, ...], tuple[pl.DataFrame, dict[str, np.ndarray]]] = {}

    def measure(self, setting: Setting, outcomes: Sequence[Outcome], metric: str, number: int) -> tuple[Row, Side | None]:
        """The row of a setting, not compared yet, and what `intervals.compare` wants of it.

        Args:
            number: see `number_draws`.
        """
        reason = setting.skipped or next((one.reason for one in outcomes if one.reason), "")
        if reason:
            return Row(setting, reason=reason), None
        classes, names = outcomes[0].classes, outcomes[0].dimensions
        seeds = self._join(outcomes, names)
        self.groups = self.groups or Groups.of(seeds[0])
        traces = self._trace(outcomes, names)
        parts = clip_parts(seeds, self.groups, classes, names)
        parts += frame_parts(traces, self.groups, names) if traces else []
        chosen = next((part for part in parts if metric in part.figures(part.sums.sum(1))), None)
        if chosen is None:
            return Row(setting, reason=f"it predicts nothing that {metric} is measured on"), None
        found = summary.summarise(seeds, traces, self.groups, classes, names, number)
        scores = [one.score for one in outcomes if one.score is not None]
        validation = sum(scores) / len(scores) if len(scores) == len(outcomes) else math.nan
        row = Row(setting, found[metric], found, validation, shared=outcomes[0].shared, runs=len(outcomes))
        return row, (chosen, Draws.of(len(self.groups.names), len(seeds), variant=number))

    def _join(self, outcomes: Sequence[Outcome], names: tuple[str, ...]) -> list[pl.DataFrame]:
        """A table per seed, folds pooled.

        Raises:
            StoreError: no test clip has a label.
        """
        known, _ = self._read(names)
        renamed = known.rename({"emotion": "truth", **{name: f"truth_{name}" for name in names}})
        table = pl.concat([one.predictions for one in outcomes if one.predictions is not None])
        table = table.join(self.facts, on="id", how="left").join(renamed, on="id", how="left").sort("seed", "fold", "id")
        if not table.filter(pl.any_horizontal(pl.col("^truth.*$").is_not_null())).height:
            raise StoreError(f"{self.truth} has no label of any test clip. Run `dvc repro manifest`.")
        return table.partition_by("seed", maintain_order=True)

    def _trace(self, outcomes: Sequence[Outcome], names: tuple[str, ...]) -> list[pl.DataFrame]:
        """Predictions at annotated instants, a table per seed, folds pooled; none where a seed says nothing over time."""
        frames = self._read(names)[1]
        seeds: dict[int, list[pl.DataFrame]] = {}
        for one in outcomes:
            if one.answers is None or one.predictions is None:
                continue
            told = tell_traces(one.answers, frames, names)
            seeds.setdefault(one.predictions["seed"][0], []).extend([] if told is None else [told])
        return [pl.concat(parts) for _, parts in sorted(seeds.items())] if all(seeds.values()) else []

    def _read(self, names: tuple[str, ...]) -> tuple[pl.DataFrame, dict[str, np.ndarray]]:
        if names not in self._known:
            self._known[names] = truth_table(self.truth, self.annotations, names)
        return self._known[names]


def choose_metric(select: str, results: Sequence[Sequence[Outcome]]) -> str:
    """The study's figure: what selects the checkpoints; a CCC is that of frames, pooled, where all that ran say something
    over time, as validation has it.

    Args:
        results: the runs of each setting, the reference first.
    """
    metric = select if select not in ("loss", "last") else ("uar" if results[0][0].classes else "ccc")
    ran = [one.answers for outcomes in results for one in outcomes if one.answers is not None]
    return "frame_ccc" if metric == "ccc" and all(one.tokens is not None for one in ran) else metric


def number_draws(settings: Sequence[Setting], params: Params) -> list[int]:
    """Whose seeds are drawn with which number: that of the same variant in `evaluate`, so that the interval is the same one,
    and of its own for every other setting."""
    variants = sorted(list_variants(params), key=lambda one: (one.student, one.name))
    numbers = []
    for place, setting in enumerate(settings):
        present = setting.params.model_dump(exclude={"run"}) == params.model_dump(exclude={"run"})
        own = present and setting.variant in variants
        numbers.append(variants.index(setting.variant) if own else len(variants) + 1 + place)
    return numbers


def compare_rows(rows: Sequence[Row], sides: Sequence[Side | None], metric: str) -> list[Row]:
    """The rows with their differences to the first, not corrected yet."""
    if (first := sides[0]) is None:
        return list(rows)
    found = [rows[0]]
    for row, side in zip(rows[1:], sides[1:], strict=True):
        if side is not None:
            difference, p = intervals.compare(side, first, metric)
            row = replace(row, difference=difference, p=p)
        found.append(row)
    return found
