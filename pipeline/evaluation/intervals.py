"""How sure: one interval for every figure, and one test for every difference.

A figure would differ with other speakers and with other seeds, so both are drawn anew, with replacement and crossed
(Owen 2007, the pigeonhole bootstrap): groups of clips, and trained runs. The bounds are percentiles of the figure
itself and so never leave its range; they are taken further out the fewer groups there are (Hesterberg 2015, the
expanded percentile interval), since a plain bootstrap of few groups is too narrow.

The one number that needs scipy is remembered: importing it takes longer than most figures.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

from pipeline.errors import StoreError
from pipeline.storage import memo

from .sums import Figures, Part

LEVEL = 0.95

#: Fewer groups have no interval: four can be drawn in 35 ways, and the percentiles of 35 values bound nothing (Cameron,
#: Gelbach and Miller 2008). The range of single groups and runs is told instead. A swap of whole groups could not give
#: a p value below 2 / 2⁴ either.
FEW = 5

#: Sums held at once while drawing.
CHUNK = 8_000_000


class Interval(NamedTuple):
    """A mean over seeds, the bounds of its 95 % interval, and where there is none, the range of single groups and runs."""

    mean: float
    low: float = float("nan")
    high: float = float("nan")
    least: float = float("nan")
    most: float = float("nan")

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def ranged(self) -> bool:
        return math.isfinite(self.least) and math.isfinite(self.most)

    def rounded(self, digits: int = 6) -> dict[str, float | None]:
        """For JSON: NaN becomes null."""
        return {name: round(float(value), digits) if np.isfinite(value) else None for name, value in self._asdict().items()}


@dataclass(frozen=True)
class Draws:
    """How often each group and each seed is drawn: (draws, groups) counts and (draws, seeds) shares."""

    groups: np.ndarray
    seeds: np.ndarray

    @classmethod
    def of(cls, groups: int, seeds: int, *, draws: int = 2000, variant: int = 0) -> Draws:
        """The same groups for every variant, so that their differences are paired; seeds of its own for each.

        Args:
            variant: number of the variant; its runs are other runs than those of the next.
        """
        chosen = np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), draws)
        runs = np.random.default_rng([1, variant]).multinomial(seeds, np.full(seeds, 1 / seeds), draws)
        return cls(chosen.astype(float), runs / seeds)


def estimate(parts: list[Part], draws: Draws | None = None) -> dict[str, Interval]:
    """Every metric of the parts with its interval."""
    return {name: values[0] for name, values in estimate_each(parts, draws).items()}


def estimate_each(parts: list[Part], draws: Draws | None = None) -> dict[str, list[Interval]]:
    """As `estimate`, with one interval per class where a metric has a value for each."""
    result: dict[str, list[Interval]] = {}
    for part in parts:
        seeds, groups = part.sums.shape[:2]
        whole = part.figures(part.sums.sum(1))
        if groups >= FEW:
            drawn = draw(part, draws or Draws.of(groups, seeds))
            bounds = {name: find_bounds(values, groups) for name, values in drawn.items()}
        single = part.figures(part.sums) if groups < FEW else {}
        for name, values in whole.items():
            mean = np.atleast_1d(_mean(values, np.ones(len(values))))
            if groups >= FEW:
                low, high = (np.atleast_1d(side) for side in bounds[name])
                found = [Interval(m, min(a, m), max(b, m)) for m, a, b in zip(mean, low, high, strict=True)]
            else:
                cells = single[name].reshape(seeds * groups, -1).T
                found = [Interval(m, math.nan, math.nan, *_range(c)) for m, c in zip(mean, cells, strict=True)]
            result[name] = found
    return result


def draw(part: Part, draws: Draws) -> Figures:
    """(draws, …) each metric of the part, of the groups and mean over the seeds that were drawn."""
    seeds, groups, *rest = part.sums.shape
    flat = np.moveaxis(part.sums, 0, 1).reshape(groups, -1)
    found: list[Figures] = []
    for rows in _chunks(len(draws.groups), flat.shape[1]):
        figures = part.figures((draws.groups[rows] @ flat).reshape(-1, seeds, *rest))
        found.append({name: _mean_seeds(values, draws.seeds[rows]) for name, values in figures.items()})
    return {name: np.concatenate([one[name] for one in found]) for name in found[0]}


def find_bounds(drawn: np.ndarray, groups: int, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """(…) bounds of drawn values (draws, …), further out than their percentiles the fewer groups there are."""
    side = find_side(groups, level)
    known = np.isfinite(drawn).any(0)
    low, high = np.nanquantile(np.where(known, drawn, 0), [side, 1 - side], axis=0)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


@functools.cache
def find_side(groups: int, level: float = LEVEL) -> float:
    """Share of the draws below the lower bound: what Student's distribution of so many groups leaves out, in a normal one."""

    def ask() -> float:
        from scipy import special  # without the second that scipy.stats takes to import

        return float(special.ndtr(special.stdtrit(groups - 1, (1 - level) / 2) * math.sqrt(groups / (groups - 1))))

    return float(memo.ask_library("side of an expanded interval", ask, libraries=("scipy",), about=[groups, level]))


class Comparison(NamedTuple):
    """Difference of one metric between two variants (first - second), its interval, and the two-sided p value."""

    difference: Interval
    p: float


def compare(first: tuple[Part, Draws], second: tuple[Part, Draws], name: str, *, swaps: int = 4999) -> Comparison:
    """Paired comparison of two variants on the same clips.

    The interval draws groups and seeds anew. The p value swaps the two variants' predictions of whole groups: were they
    the same, it would not matter whose prediction of a speaker is called whose (exact when all swaps number `swaps` or
    fewer). With fewer than `FEW` groups there is neither.
    """
    (one, draws), (other, others) = first, second
    groups = one.sums.shape[1]
    means = [_mean(part.figures(part.sums.sum(1))[name], np.ones(len(part.sums))) for part in (one, other)]
    apart = float(means[0] - means[1])
    if groups < FEW:
        cells = [_mean(part.figures(part.sums)[name], np.ones(len(part.sums))) for part in (one, other)]
        return Comparison(Interval(apart, math.nan, math.nan, *_range(cells[0] - cells[1])), math.nan)
    low, high = find_bounds(draw(one, draws)[name] - draw(other, others)[name], groups)
    exact = 2**groups <= swaps + 1
    kept = (
        np.array(list(product((0.0, 1.0), repeat=groups)))
        if exact
        else np.random.default_rng(2).integers(0, 2, (swaps, groups)).astype(float)
    )
    one, other = _level(one, other), _level(other, one)
    sides = [(one, kept), (other, 1 - kept)], [(other, kept), (one, 1 - kept)]
    swapped = [_swapped(side, name) for side in sides]
    # Rounding must not part what is equal.
    count = int((np.abs(swapped[0] - swapped[1]) >= abs(apart) - 1e-12).sum())
    p = count / len(kept) if exact else (count + 1) / (len(kept) + 1)
    return Comparison(Interval(apart, min(float(low), apart), max(float(high), apart)), p)


def _level(part: Part, other: Part) -> Part:
    """The part with as many runs as the other: one that starts from nothing, as the linear model, is the same for every seed."""
    return part._replace(sums=np.repeat(part.sums, len(other.sums), 0)) if len(part.sums) == 1 else part


def _swapped(side: list[tuple[Part, np.ndarray]], name: str) -> np.ndarray:
    """(swaps,) a metric, mean over seeds, of the groups each part gives; NaN where nothing is left."""
    if len({len(part.sums) for part, _ in side}) > 1:
        raise StoreError("the variants have unequal numbers of seeds. Run `dvc repro train`.")
    figures, found = side[0][0].figures, []
    seeds, groups, *rest = side[0][0].sums.shape
    flats = [np.moveaxis(part.sums, 0, 1).reshape(groups, -1) for part, _ in side]
    for rows in _chunks(len(side[0][1]), flats[0].shape[1]):
        summed = sum(kept[rows] @ flat for flat, (_, kept) in zip(flats, side, strict=True))
        values = figures(np.asarray(summed).reshape(-1, seeds, *rest))[name]
        found.append(_mean_seeds(values, np.full(values.shape[:2], 1 / seeds)))
    return np.concatenate(found)


def _chunks(rows: int, width: int) -> Iterator[slice]:
    step = max(1, CHUNK // max(width, 1))
    return (slice(start, start + step) for start in range(0, rows, step))


def _mean_seeds(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(draws, …) of values (draws, seeds, …) and shares (draws, seeds)."""
    return _mean(np.moveaxis(values, 1, 0), shares.T.reshape(*shares.T.shape, *[1] * (values.ndim - 2)))


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(…) weighted mean over the first axis of values (seeds, …), without the NaN; NaN of nothing."""
    weights = np.where(np.isfinite(values), weights.reshape(*weights.shape, *[1] * (values.ndim - weights.ndim)), 0.0)
    total = weights.sum(0)
    return np.divide((np.nan_to_num(values) * weights).sum(0), total, out=np.full(total.shape, np.nan), where=total > 0)


def _range(values: np.ndarray) -> tuple[float, float]:
    """Least and greatest; NaN of nothing and of a single value."""
    known = values[np.isfinite(values)]
    return (float(known.min()), float(known.max())) if len(known) > 1 else (math.nan, math.nan)
