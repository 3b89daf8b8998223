"""Numbers from prediction tables: one table per seed in, means over seeds with their intervals out."""

from __future__ import annotations

import math

import numpy as np
import polars as pl

from pipeline.runs.folders import WHOLE

from . import intervals
from .intervals import Draws, Interval
from .selective import selective_part
from .sums import Groups, Part, class_part, clip_parts, frame_parts

#: Metrics that a list of experiments shows, where they exist.
SHOWN = ("uar", "macro_f1", "weighted_f1", "accuracy", "ccc", "valence_ccc", "arousal_ccc", "dominance_ccc",
         "frame_ccc", "frame_ccc_per_clip")  # fmt: skip

#: Of a speaker's clips; fewer give no correlation.
CORRELATED = 3

#: Two-sided 95 % of a normal distribution.
Z = 1.959964


def summarise(
    tables: list[pl.DataFrame],
    traces: list[pl.DataFrame],
    groups: Groups,
    classes: tuple[str, ...],
    dimensions: tuple[str, ...],
    variant: int = 0,
) -> dict[str, Interval]:
    """Every metric of one variant.

    Args:
        tables, traces: one per seed; traces may be none.
        variant: see `Draws.of`.
    """
    parts = clip_parts(tables, groups, classes, dimensions)
    parts += frame_parts(traces, groups, dimensions) if traces else []
    parts += [selective_part(tables, groups, classes)] if classes else []
    return intervals.estimate(parts, draws_of(tables, groups, variant))


def add_bounds_by_clip(
    result: dict[str, dict[str, float | None]], traces: list[pl.DataFrame], dimensions: tuple[str, ...], variant: int
) -> None:
    """Give the figures of frames `low_by_clip` and `high_by_clip`: clips drawn as if those of one speaker were strangers.

    Papers that split by clip report this interval; it is the narrower, the more clips a speaker has.

    Args:
        result: metric → its interval of one variant, changed here. traces: one per seed; none leaves all as it is.
    """
    if not traces:
        return
    groups = Groups.of_clips(traces[0])
    for name, one in intervals.estimate(frame_parts(traces, groups, dimensions), draws_of(traces, groups, variant)).items():
        bounds = one.rounded()
        result[name] |= {f"{side}_by_clip": bounds[side] for side in ("low", "high")}


def draws_of(tables: list[pl.DataFrame], groups: Groups, variant: int) -> Draws | None:
    """None where there are too few groups to draw from."""
    count = len(groups.names)
    return Draws.of(count, len(tables), variant=variant) if count >= intervals.FEW else None


def pick_headlines(result: dict[str, dict[str, dict]], select: str, fused: str) -> dict[str, float | str | None]:
    """What a list of experiments shows: the means of `SHOWN`, and of the selecting metric the interval, and what the
    ensemble, the linear model and the best stream alone reach.

    Args:
        result: variant → metric → mean, low, high.
        select: metric that selected the checkpoints.
        fused: name of the variant that is shown.
    """
    ours = result.get(fused) or next(iter(result.values()))
    shown: dict[str, float | str | None] = {}
    for name in (select, *(name for name in SHOWN if name != select)):
        if name not in ours:
            continue
        shown[name] = ours[name]["mean"]
        if name == select:
            shown |= {f"{name}_low": ours[name]["low"], f"{name}_high": ours[name]["high"]}
            means = {variant: values[name]["mean"] for variant, values in result.items() if variant != fused and name in values}
            shown |= {f"{name}_{other}": means.pop(other) for other in WHOLE if other in means}
            shown |= {f"{name}_best_alone": max(means.values())} if means else {}
    return shown


def per_class(tables: list[pl.DataFrame], groups: Groups, classes: tuple[str, ...]) -> dict[str, dict[str, object]]:
    """Class → precision, recall, F1 with their intervals, and support (of one seed)."""
    part = class_part(tables, groups, classes)
    found = intervals.estimate_each([part], draws_of(tables, groups, 0))
    support = part.sums[0].sum((0, 2))
    return {
        name: {**{key: values[k].rounded() for key, values in found.items()}, "support": int(support[k])}
        for k, name in enumerate(classes)
    }


def per_speaker(tables: list[pl.DataFrame], classes: tuple[str, ...], dimensions: tuple[str, ...]) -> list[dict]:
    """One row per speaker: clips with the label of the first of these figures, mean over seeds of accuracy, UAR, F1 and CCC,
    and `at_most`.

    `at_most` is an upper 95 % bound of the first of these, by the speaker's clips alone: Wilson's (1927) of a share, Lin's
    (1989) by the z-transformation of a CCC. It orders speakers: one with few clips may be good, whatever they showed. CCC
    is none below `CORRELATED` clips.
    """
    named = [table.filter(pl.col("speaker").is_not_null()) for table in tables]
    groups = Groups.of(named[0]) if len(named[0]) else None
    if groups is None or groups.unit != "speaker":
        return []
    figures = {
        name: _over_seeds(p.figures(p.sums)[name]) for p in clip_parts(named, groups, classes, dimensions) for name in _names(p)
    }
    wanted = [n for n in ("accuracy", "uar", "macro_f1", *(f"{d}_ccc" for d in dimensions)) if n in figures]
    for name in wanted:
        if name.endswith("ccc"):
            figures[name] = np.where(_known(named[0], groups, name, classes) >= CORRELATED, figures[name], np.nan)
    clips = _known(named[0], groups, wanted[0], classes)
    bound = bound_share if wanted[0] == "accuracy" else bound_concordance
    return [
        {
            "speaker": name.removeprefix("speaker "),
            "clips": int(clips[g]),
            **{n: float(figures[n][g]) for n in wanted},
            "at_most": bound(float(figures[wanted[0]][g]), int(clips[g])),
        }
        for g, name in enumerate(groups.names)
    ]


def _known(table: pl.DataFrame, groups: Groups, metric: str, classes: tuple[str, ...]) -> np.ndarray:
    """(G,) clips of each group that have the label a metric is of: others are predicted and not scored."""
    truth = pl.col(f"truth_{metric.removesuffix('_ccc')}") if metric.endswith("_ccc") else pl.col("truth")
    known = table.filter(truth.is_not_null() if metric.endswith("_ccc") else truth.is_in(list(classes))).unique("id")
    return np.bincount([groups.place[clip] for clip in known["id"]], minlength=len(groups.names))


def bound_share(share: float, count: int) -> float:
    """Wilson's upper bound of a share of `count`.

    >>> round(bound_share(0.0, 1), 3)
    0.793
    """
    if not math.isfinite(share) or not count:
        return 1.0
    middle, spread = share + Z**2 / (2 * count), Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return min(1.0, (middle + spread) / (1 + Z**2 / count))


def bound_concordance(value: float, count: int) -> float:
    """Upper bound of a CCC of `count` clips by the z-transformation; 1 where nothing can be said."""
    if not math.isfinite(value) or count <= CORRELATED:
        return 1.0
    return math.tanh(math.atanh(max(min(value, 1 - 1e-9), -1 + 1e-9)) + Z / math.sqrt(count - CORRELATED))


def _over_seeds(values: np.ndarray) -> np.ndarray:
    known = np.isfinite(values)
    return np.divide(np.nan_to_num(values).sum(0), known.sum(0), out=np.full(values.shape[1], np.nan), where=known.any(0))


def _names(part: Part) -> list[str]:
    return list(part.figures(part.sums[:, :0].sum(1)))
